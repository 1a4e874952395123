"""A peer whose models run on a GPU: OpenCL here, whose driver may well be one for the processor."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.engines.opencl import need_opencl
from tests.engines.tiny_gguf import write_gguf
from tests.live.command_line import LOOPBACK, Peer, baton_in, joined

SIZES = (64, 1, 128, 4, 2, 512)
# Each kernel is compiled by the driver, on a machine that may be busy with other tests.
READY_DEADLINE_S = 240.0
TOKENS = 12
# So short that few graphs are compiled.
CONTEXT = 64


def wait_until_ready(peer: Peer) -> None:
    """Until the peer's one model is loaded."""
    late_at_s = time.monotonic() + READY_DEADLINE_S
    rows: list[dict[str, Any]] = []
    while time.monotonic() < late_at_s:
        rows = peer.ask("models", "--json").document["here"]
        if [row["state"] for row in rows] == ["ready"]:
            return
        assert not any(row["problem"] for row in rows), rows
        time.sleep(1)
    raise AssertionError(f"not ready in time: {rows}")


@pytest.mark.timeout(300)
def test_a_peer_on_opencl_serves_a_stream(state: Path, tmp_path: Path) -> None:
    need_opencl()
    file = write_gguf(
        tmp_path / "small.gguf", "qwen3", "q8_0", sizes=SIZES, context=CONTEXT, seed=10
    )
    serves = ("--role", "infer", "--role", "store", "--model", file)
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with joined(state, "--device", "cl", "--vram", "4MB", *serves, extra=own) as peer:
        wait_until_ready(peer)
        (kept,) = peer.ask("models", "--json").document["kept"]
        # Worked out before it was loaded; so much fits into what may be taken.
        assert kept["memory"]["least_bytes"] < 4_000_000
        assert kept["memory"]["keys_and_values_bytes"] > 0
        asked = ("small", "hello there", "--tokens", TOKENS, "--verdicts", "0/0", "--json")
        result = peer.ask("ask", *asked).document
        assert (result["result"]["tokens"], result["result"]["reason"]) == (TOKENS, "length")
        # The receipt says what it was done on.
        assert result["route"][0]["profile"].endswith(" f32 CL")
        assert peer.stop().code == 0


def test_a_gpu_that_is_not_there_ends_join_in_one_line_and_nothing_runs_elsewhere(
    state: Path, tmp_path: Path
) -> None:
    need_opencl()
    file = write_gguf(tmp_path / "small.gguf", sizes=SIZES)
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OCL_ICD_VENDORS": str(tmp_path)}
    words = ("--state", state, "--device", "cl", "--model", file)
    joining = baton_in(own, "join", *words, "--role", "infer", *LOOPBACK)
    assert "no OpenCL driver is installed" in joining.error
    assert "apt-get install" in joining.error
