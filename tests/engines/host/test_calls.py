"""The queue of ONNX calls by itself: turns, shared runs, long calls, failures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from node.engines.formats.onnx_graph import Value
from node.engines.formats.onnx_wire import CALL_BYTES_MAX, Signature
from node.engines.host.calls import CallRun, CallScheduler
from node.engines.interface import Loaded
from tests.engines.onnx_models import FOLDER, call, manifest_of, to_arrays
from wire.errors import EngineFailed, Malformed, ModelRefused, TooSlow

MANIFEST, _ = manifest_of(FOLDER / "torch_mlp.onnx")
OTHER, _ = manifest_of(FOLDER / "torch_cnn.onnx")
SIGNATURE = Signature((Value("x", "float32", ("n", 2)),), (("y", "float32"),), 8)


def loaded(manifest=MANIFEST) -> Loaded:
    return Loaded(model=manifest.id, manifest=manifest, profile="", units_per_s=1.0, memory_bytes=0)


def rows(count: int, first: float = 0.0) -> dict[str, np.ndarray]:
    return {"x": np.arange(2 * count, dtype=np.float32).reshape(count, 2) + first}


def doubled(run: CallRun) -> dict[str, Any]:
    """What a worker answers whose model doubles its input."""
    if run.message["do"] == "signature":
        return SIGNATURE.to_plain()
    data = np.frombuffer(run.message["inputs"][0], np.float32).reshape(-1, 2)
    assert len(data) == run.message["rows"] == run.rows
    return {"shapes": [[2]], "outputs": [(2 * data).tobytes()]}


def work(calls: CallScheduler) -> CallRun:
    run = calls.offer()
    assert run is not None
    calls.settle(run, doubled(run))
    return run


async def asked(
    calls: CallScheduler, answers: dict[Any, Any], key: Any, arrays, manifest=MANIFEST
) -> None:
    """Ask, and note the answer or the error."""
    try:
        output = await calls.infer(call(manifest.id, arrays), loaded(manifest), None)
        answers[key] = to_arrays(output.data)["y"]
    except (EngineFailed, Malformed, ModelRefused, TooSlow) as error:
        answers[key] = error


async def test_rows_of_many_calls_share_runs_and_a_long_call_keeps_nobody_waiting(
    autojump_clock: MockClock,
) -> None:
    calls, answers = CallScheduler(lambda: None), {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked, calls, answers, "long", rows(30))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            nursery.start_soon(asked, calls, answers, number, rows(1, number))
            await trio.testing.wait_all_tasks_blocked()
        # Nobody knows yet what the model reads; it is asked once.
        assert work(calls).message["do"] == "signature"
        assert (len(calls), calls.units) == (4, 33)
        first = work(calls)
        assert first.rows == 8
        assert calls.tells_speed(first, 8)
        await trio.testing.wait_all_tasks_blocked()
        # The short ones are done already.
        assert set(answers) == {0, 1, 2}
        sizes = []
        while calls.ready:
            sizes.append(work(calls).rows)
        assert sizes == [8, 8, 8, 1]
        assert not calls.tells_speed(first, 1)
    assert np.array_equal(answers["long"], 2 * rows(30)["x"])
    assert all(np.array_equal(answers[it], 2 * rows(1, it)["x"]) for it in range(3))
    assert (len(calls), calls.units, calls.offer()) == (0, 0, None)


async def test_one_message_brings_as_many_full_runs_as_the_worker_says(
    autojump_clock: MockClock,
) -> None:
    calls, answers = CallScheduler(lambda: None), {}
    several = replace(SIGNATURE, runs=3)
    assert Signature.of(several.to_plain()) == several
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked, calls, answers, "long", rows(20))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(asked, calls, answers, "short", rows(9))
        await trio.testing.wait_all_tasks_blocked()
        calls.settle(calls.offer(), several.to_plain())
        first = work(calls)
        assert first.rows == 24
        # Runs that were not full say nothing of the speed.
        assert [calls.tells_speed(first, it) for it in (24, 16, 8, 7, 17, 0)] == [
            *(True, True, True),
            *(False, False, False),
        ]
        await trio.testing.wait_all_tasks_blocked()
        # They had fair shares: the short one is whole.
        assert set(answers) == {"short"}
        assert work(calls).rows == 5
    assert np.array_equal(answers["long"], 2 * rows(20)["x"])
    assert np.array_equal(answers["short"], 2 * rows(9)["x"])


async def test_who_was_there_when_a_worker_died_goes_alone_and_twice_at_most(
    autojump_clock: MockClock,
) -> None:
    calls, answers = CallScheduler(lambda: None), {}
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(asked, calls, answers, number, rows(1, number))
            await trio.testing.wait_all_tasks_blocked()
        work(calls)
        run = calls.offer()
        assert run.rows == 2
        calls.give_back(run, EngineFailed("it died"))
        again = calls.offer()
        assert again.rows == 1
        calls.give_back(again, EngineFailed("it died again"))
        assert work(calls).rows == 1
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(str(it) for it in answers.values() if isinstance(it, EngineFailed)) == [
        "it died again"
    ]
    assert sum(isinstance(it, np.ndarray) for it in answers.values()) == 1


async def test_an_odd_answer_is_the_workers_fault(autojump_clock: MockClock) -> None:
    calls, answers = CallScheduler(lambda: None), {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked, calls, answers, 0, rows(3))
        await trio.testing.wait_all_tasks_blocked()
        work(calls)
        run = calls.offer()
        with pytest.raises(EngineFailed, match="not asked"):
            calls.settle(run, {"shapes": [[2]], "outputs": [bytes(25)]})
        calls.fail(MANIFEST.id, ModelRefused, "put aside")
    assert str(answers[0]) == "put aside"


async def test_models_never_share_a_run_and_a_deadline_ends_a_call(
    autojump_clock: MockClock,
) -> None:
    calls, answers = CallScheduler(lambda: None), {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked, calls, answers, 0, rows(1))
        nursery.start_soon(asked, calls, answers, 1, rows(1), OTHER)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            work(calls)
        runs = [calls.offer(), calls.offer()]
        assert {it.model for it in runs} == {MANIFEST.id, OTHER.id}
        assert [it.rows for it in runs] == [1, 1]
        # The worker hangs; what it says too late is nobody's any more.
        await trio.sleep(61)
        assert all(isinstance(it, TooSlow) for it in answers.values())
        assert [calls.settle(it, doubled(it)) for it in runs] == [0, 0]
    assert len(calls) == 0


async def test_what_the_worker_refuses_is_the_calls_fault(autojump_clock: MockClock) -> None:
    calls, answers = CallScheduler(lambda: None), {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked, calls, answers, 0, rows(2))
        await trio.testing.wait_all_tasks_blocked()
        plain = Signature(SIGNATURE.inputs, SIGNATURE.outputs, 0).to_plain()
        calls.settle(calls.offer(), plain)
        run = calls.offer()
        assert (run.message["do"], run.message["shapes"]) == ("call", [[2, 2]])
        calls.settle(run, {"refused": "MatMul cannot be run"})
    assert isinstance(answers[0], Malformed)
    assert "MatMul" in str(answers[0])


def test_a_call_larger_than_a_frame_is_refused_with_both_sizes() -> None:
    signature = Signature(SIGNATURE.inputs, SIGNATURE.outputs, 0)
    large = call(MANIFEST.id, {"x": np.zeros((CALL_BYTES_MAX // 8 + 1, 2), np.float32)}).input
    with pytest.raises(Malformed, match=f"at most {CALL_BYTES_MAX}"):
        signature.read(large)
    # Row by row it is done in several runs.
    assert SIGNATURE.read(large)[1] == CALL_BYTES_MAX // 8 + 1
