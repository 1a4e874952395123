"""The level zk as people use it: two peers, a call over HTTP, the receipt checked offline."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from node.engines.proving.process import library_version
from tests.engines.onnx_models import FOLDER, golden
from tests.live.command_line import baton, environment, joined

DEADLINE_S = 900
MODEL = FOLDER / "sklearn_mlp.onnx"


# Where ezkl is, if it is not beside the rest.
PLACED = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}


def slowly(*arguments: object) -> dict[str, Any]:
    """The document of a command that takes minutes."""
    ran = subprocess.run(
        [sys.executable, "-m", "node", *map(str, arguments), "--json"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment(PLACED),
        timeout=2 * DEADLINE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode() + ran.stdout.decode()
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def offered_at(url: str) -> None:
    """Wait until the gateway knows who serves the model."""
    until_s = time.monotonic() + DEADLINE_S
    while MODEL.stem not in {it["id"] for it in httpx.get(f"{url}/v1/models").json()["data"]}:
        assert time.monotonic() < until_s, "nobody offers the model"
        time.sleep(1.0)


def test_an_srs_is_made_only_with_ezkl_and_only_one_is_taken(tmp_path: Path) -> None:
    if library_version() is None:
        refused = baton("models", "srs", tmp_path / "srs").error
        assert "ezkl is not installed" in refused
    (tmp_path / "no srs").write_bytes(b"points")
    refused = baton("join", "--state", tmp_path / "state", "--srs", tmp_path / "no srs").error
    assert "is no SRS of a height from" in refused


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_answer_is_asked_proved_checked_and_verified_offline(tmp_path: Path) -> None:
    if library_version() is None:
        pytest.skip("ezkl is not installed: pip install 'baton[zk]'")
    srs = tmp_path / "srs"
    made = slowly("models", "srs", srs)
    assert "can forge" in made["trust"]
    serves = ("--model", MODEL, "--srs", srs)
    roles = ("--role", "gateway", "--role", "store", "--http", "127.0.0.1:0")
    with (
        joined(tmp_path / "a", *roles, extra=PLACED) as asker,
        joined(tmp_path / "i", asker.address, "--role", "infer", *serves, extra=PLACED),
        joined(tmp_path / "v", asker.address, "--role", "verify", *serves, extra=PLACED),
    ):
        row = golden("sklearn_mlp")[0]["X"][0].tolist()
        body = {
            "model": MODEL.stem,
            "inputs": [{"name": "X", "dtype": "float32", "shape": [1, 64], "data": row}],
        }
        terms = {
            "x-baton-level": "zk",
            "x-baton-verdicts": "1/1",
            "x-baton-deadline": str(DEADLINE_S),
        }
        offered_at(asker.url)
        until_s = time.monotonic() + DEADLINE_S
        while True:
            answer = httpx.post(
                f"{asker.url}/v1/infer", json=body, headers=terms, timeout=DEADLINE_S
            )
            # The verifier may not be known yet.
            if answer.status_code != 503 or time.monotonic() > until_s:
                break
            time.sleep(1.0)
        assert answer.status_code == 200, answer.text
        label, chances = answer.json()["outputs"]
        assert label["data"] == [0]
        assert chances["data"][0] > 0.9
        receipt = answer.json()["x_baton"]["receipt"]
        offline = ("verify", receipt, "--model", MODEL, "--srs", srs, "--state", asker.state)
        found = slowly(*offline)
    assert (found["holds"], found["level"]) == (True, "zk")
    assert found["parts"]["replay"]["status"] == "holds"
    assert any("home-made" in it["detail"] for it in found["points"])
