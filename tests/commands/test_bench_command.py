"""`bench` measures an engine by itself, and what it prints is what it measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.engines.hash_engine import HashEngine, hash_manifest
from node.models.speeds import CALLERS, STREAMS, measure
from tests.engines.onnx_models import FOLDER
from tests.live.command_line import baton_in, commands_running
from wire.errors import ModelRefused

UNIT_S = 0.01


async def test_the_rates_are_those_of_the_engine(autojump_clock: trio.abc.Clock) -> None:
    engine = HashEngine(unit_s=UNIT_S)
    found = await measure(engine, hash_manifest(), {}, seconds=20)
    said = found["generate"]
    assert said["first_token_s"] == pytest.approx(UNIT_S)
    assert said["prefill_tokens_per_s"] == pytest.approx(said["prefill_prompt_tokens"] / UNIT_S)
    assert set(said["tokens_per_s"]) == {str(it) for it in STREAMS}
    for rate in said["tokens_per_s"].values():
        assert rate == pytest.approx(1 / UNIT_S, rel=0.01)
    assert found["embed"]["embeddings_per_s"] == pytest.approx(1 / UNIT_S, rel=0.05)
    assert found["units_per_s"] == pytest.approx(1 / UNIT_S)
    assert engine.statistics().jobs_queued == 0


async def test_a_function_of_tensors_nobody_describes_is_refused(
    autojump_clock: trio.abc.Clock,
) -> None:
    manifest = replace(hash_manifest("calls"), operations=("call",))
    with pytest.raises(ModelRefused, match="the inputs of calls are not known here"):
        await measure(HashEngine(), manifest, {}, seconds=1)


def test_the_command_prints_one_document_or_one_line(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "s"), "--seconds", "0.1", "--json")
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    with commands_running():
        found = baton_in(cache, "bench", "hash", *state).document
        assert found["name"] == "hash"
        assert found["generate"]["tokens_per_s"]["16"] > 0
        assert found["units_per_s"] > 0
        assert "keeps none" in baton_in(cache, "bench", "nonsense", *state).error
        assert "does not exist" in baton_in(cache, "bench", "./missing.gguf", *state).error
        called = baton_in(cache, "bench", str(FOLDER / "torch_mlp.onnx"), *state).document
        assert set(called["call"]["calls_per_s"]) == {str(it) for it in CALLERS}
