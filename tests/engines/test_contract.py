"""What every engine promises. A new engine is done when it passes this file."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio

from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.interface import Engine, Found, Job, Output
from tests.engines.opencl import CL, need_opencl
from tests.engines.tiny import texts, write_tiny
from wire.content import ContentId
from wire.errors import Malformed, ModelNotLoaded, ModelRefused, Refused, TooSlow
from wire.model import Manifest
from wire.payload import Vectors

JOBS_MAX = 4
GPU_TOLERANCE = 2e-6
pytestmark = pytest.mark.own_device


class Bench:
    """An engine, a model it can run, and a job for it."""

    def __init__(
        self, engine: Engine, manifest: Manifest, files: dict[str, Path], *, exact: bool = True
    ) -> None:
        self.engine = engine
        # Whether a text's numbers are the same to the bit alone and among others: on a processor.
        self.exact = exact
        self.manifest = manifest
        self.files = files

    def job(self, *lines: str, **changes: object) -> Job:
        job = Job(
            model=self.manifest.id,
            operation="embed",
            input=texts(*lines),
            parameters={},
            deadline_s=30,
        )
        return replace(job, **changes)

    def same(self, one: np.ndarray, other: np.ndarray) -> bool:
        """To the bit where the engine promises that, else as nearly as floats on a GPU are."""
        if self.exact:
            return one.tobytes() == other.tobytes()
        return bool(np.abs(one - other).max() <= GPU_TOLERANCE * np.abs(other).max())

    async def embed(self, *lines: str) -> np.ndarray:
        output = await self.engine.infer(self.job(*lines))
        assert output.units == len(lines)
        numbers = numbers_of(output)
        assert len(numbers) == len(lines)
        return numbers


def numbers_of(output: Output) -> np.ndarray:
    """The vectors of an answer, one in a row."""
    vectors = Vectors.from_bytes(output.data)
    return np.frombuffer(vectors.data, "<f4").reshape(vectors.rows, vectors.dimensions)


ON_OPENCL = "tinygrad on OpenCL"


@pytest.fixture(params=["hash", "tinygrad", pytest.param(ON_OPENCL, marks=pytest.mark.soak)])
async def bench(request, tmp_path, open_engine) -> AsyncIterator[Bench]:
    if request.param == "hash":
        yield Bench(HashEngine(jobs_max=JOBS_MAX), hash_manifest(), {})
        return
    device = {}
    if request.param == ON_OPENCL:
        need_opencl()
        device = {"device": CL}
    async with open_engine(jobs_max=JOBS_MAX, **device) as engine:
        yield Bench(engine, *write_tiny(tmp_path), exact=not device)


@pytest.fixture
async def ready(bench) -> Bench:
    await bench.engine.load(bench.manifest, bench.files)
    return bench


async def test_a_model_that_is_not_loaded_is_refused(bench: Bench) -> None:
    with pytest.raises(ModelRefused, match="not loaded"):
        await bench.engine.infer(bench.job("a"))


async def test_what_is_loaded_is_told_with_its_speed(ready: Bench) -> None:
    loaded = ready.engine.loaded()[ready.manifest.id]
    assert loaded.manifest == ready.manifest
    assert loaded.units_per_s > 0
    assert await ready.engine.load(ready.manifest, ready.files) == loaded
    assert ready.engine.statistics().running
    assert loaded.profile
    assert ready.engine.ready(ready.manifest.id) == loaded
    assert ready.engine.ready(ContentId.of(b"another")) is None


async def test_the_answer_is_a_unit_vector_for_each_text(ready: Bench) -> None:
    vectors = await ready.embed("a b c", "d", "")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert not np.array_equal(vectors[0], vectors[1])


async def test_a_text_alone_and_among_others_has_the_same_bits(ready: Bench) -> None:
    lines = ("a b c d e f", "x", "q r s t", "a", "x", "m n")
    together = await ready.embed(*lines)
    for line, vector in zip(lines, together, strict=True):
        assert ready.same((await ready.embed(line))[0], vector)


async def test_jobs_at_the_same_time_each_get_their_own_answer(ready: Bench) -> None:
    alone = {line: await ready.embed(line) for line in "abc"}
    answers = {}

    async def ask(line: str) -> None:
        answers[line] = await ready.embed(line)

    async with trio.open_nursery() as nursery:
        for line in "abc":
            nursery.start_soon(ask, line)
    for line in "abc":
        assert ready.same(answers[line], alone[line])


async def test_a_full_queue_refuses_aloud_and_says_when_to_come_back(ready: Bench) -> None:
    outcomes = []

    async def ask() -> None:
        try:
            await ready.embed("a")
            outcomes.append("done")
        except Refused as error:
            outcomes.append("refused" if error.retry_after_s is not None else "for ever")

    assert ready.engine.free_slots == JOBS_MAX
    async with trio.open_nursery() as nursery:
        for _ in range(JOBS_MAX + 2):
            nursery.start_soon(ask)
    assert outcomes.count("refused") == 2
    assert outcomes.count("done") == JOBS_MAX
    assert ready.engine.free_slots == JOBS_MAX


async def test_a_deadline_that_passes_is_TooSlow_and_leaves_no_work(ready: Bench) -> None:
    with pytest.raises(TooSlow):
        await ready.engine.infer(ready.job("a", deadline_s=0.0))
    assert ready.engine.statistics().jobs_queued == 0
    assert ready.engine.queue_s == 0
    assert len(await ready.embed("a")) == 1


async def test_a_cancelled_job_leaves_no_work(ready: Bench) -> None:
    with trio.move_on_after(0) as scope:
        await ready.embed(*("a b c",) * 200)
    assert scope.cancelled_caught
    assert ready.engine.statistics().units_queued == 0
    assert len(await ready.embed("a")) == 1


async def test_an_unloaded_model_is_refused(ready: Bench) -> None:
    await ready.engine.unload(ready.manifest.id)
    await ready.engine.unload(ContentId.of(b"never loaded"))
    assert not ready.engine.loaded()
    with pytest.raises(ModelRefused):
        await ready.embed("a")


@pytest.mark.parametrize("operation", ["nearest", "dance"])
async def test_an_operation_the_engine_does_not_do_is_refused(ready: Bench, operation: str) -> None:
    with pytest.raises(ModelRefused, match=operation):
        await ready.engine.infer(ready.job("a", operation=operation))


async def test_an_input_that_is_no_text_is_Malformed(ready: Bench) -> None:
    with pytest.raises(Malformed):
        await ready.engine.infer(ready.job("a", input=b"\x00"))


async def test_a_format_the_engine_does_not_run_is_refused(bench: Bench) -> None:
    with pytest.raises(ModelRefused, match="dance"):
        await bench.engine.load(replace(bench.manifest, format="dance"), bench.files)


async def test_done_units_are_counted(ready: Bench) -> None:
    before = ready.engine.statistics().units_done
    await ready.embed("a", "b", "c")
    assert ready.engine.statistics().units_done == before + 3


def rows_of(found: Found) -> int:
    assert isinstance(found, Output)
    return Vectors.from_bytes(found.data).rows


async def test_many_jobs_are_answered_in_order_as_each_alone(ready: Bench) -> None:
    jobs = [ready.job(*lines) for lines in (("a",), ("b", "c"), ("a", "d", "e"))]
    alone = [await ready.engine.infer(it) for it in jobs]
    before = ready.engine.statistics().units_done
    found = await ready.engine.infer_many(jobs)
    for one, other in zip(found, alone, strict=True):
        assert isinstance(one, Output)
        assert ready.same(numbers_of(one), numbers_of(other))
    assert [rows_of(it) for it in found] == [1, 2, 3]
    assert ready.engine.statistics().units_done == before + 6
    assert ready.engine.free_slots == JOBS_MAX


async def test_one_bad_job_of_many_is_its_own_error(ready: Bench) -> None:
    good, bad = ready.job("a"), ready.job("a", input=b"\x00")
    late = ready.job("b", deadline_s=0.0)
    found = await ready.engine.infer_many([good, bad, late, good])
    assert rows_of(found[0]) == rows_of(found[3]) == 1
    assert isinstance(found[1], Malformed)
    assert isinstance(found[2], TooSlow)
    assert ready.engine.statistics().jobs_queued == 0
    assert ready.engine.queue_s == 0


async def test_many_jobs_of_a_model_that_is_not_loaded_have_an_error_each(bench: Bench) -> None:
    found = await bench.engine.infer_many([bench.job("a"), bench.job("b")])
    assert [type(it) for it in found] == [ModelNotLoaded] * 2
    assert found[0] is not found[1]


async def test_many_jobs_that_are_cancelled_leave_no_work(ready: Bench) -> None:
    with trio.move_on_after(0) as scope:
        await ready.engine.infer_many([ready.job("a"), ready.job("b")])
    assert scope.cancelled_caught
    assert ready.engine.statistics().jobs_queued == 0
    assert ready.engine.free_slots == JOBS_MAX
