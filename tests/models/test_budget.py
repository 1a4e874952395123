"""Which models go from memory, and an engine that holds more of them than fit."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.interface import Emit, EngineStatistics, Job, Loaded, Output
from node.models.budget import ResidentModel, to_let_go
from node.models.devices import Devices
from node.models.on_demand import OnDemand, open_on_demand
from wire.content import ContentId
from wire.errors import EngineFailed, ModelRefused, TooSlow
from wire.model import Manifest
from wire.payload import Texts


def model(number: int) -> ContentId:
    return ContentId.of(bytes([number]))


def held(number: int, size: int, used_at_s: float, *, busy: bool = False) -> ResidentModel:
    return ResidentModel(model=model(number), memory_bytes=size, used_at_s=used_at_s, busy=busy)


def test_least_used_goes_first_and_no_more_than_need_to() -> None:
    there = [held(1, 40, 3.0), held(2, 30, 1.0), held(3, 20, 2.0)]
    assert to_let_go(there, 10, 100) == ()
    assert to_let_go(there, 30, 100) == (model(2),)
    assert to_let_go(there, 50, 100) == (model(2), model(3))
    # The small one that came first need not go, once the large one has to.
    assert to_let_go([held(1, 5, 1.0), held(2, 90, 2.0)], 80, 100) == (model(2),)


def test_what_is_in_use_is_waited_for() -> None:
    there = [held(1, 60, 1.0, busy=True), held(2, 30, 2.0)]
    assert to_let_go(there, 40, 100) == (model(2),)
    assert to_let_go(there, 50, 100) is None


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100), st.booleans()), max_size=8),
    st.integers(0, 100),
)
def test_what_stays_fits_and_nothing_more_could_stay(
    rows: list[tuple[int, float, bool]], wanted: int
) -> None:
    there = [held(at, size, used, busy=busy) for at, (size, used, busy) in enumerate(rows)]
    gone = to_let_go(there, wanted, 100)
    busy_bytes = sum(it.memory_bytes for it in there if it.busy)
    if gone is None:
        assert busy_bytes + wanted > 100
        return
    stay = sum(it.memory_bytes for it in there if it.model not in gone)
    assert stay + wanted <= 100
    assert not any(it.busy for it in there if it.model in gone)
    for it in there:
        if it.model in gone:
            assert stay + it.memory_bytes + wanted > 100


NAMES = ("one", "two", "three")
MANIFESTS = {name: hash_manifest(name) for name in NAMES}


class Slow(HashEngine):
    """Loads take a second; may be told to fail them, or to put a model aside."""

    def __init__(self, unit_s: float = 0.0) -> None:
        super().__init__(unit_s)
        self.failures: list[Exception] = []
        self.quarantined: dict[ContentId, str] = {}
        self.at_once_max = 0

    async def load(self, manifest: Manifest, files: Mapping[str, Path]) -> Loaded:
        await trio.sleep(1.0)
        if self.failures:
            raise self.failures.pop(0)
        ready = await super().load(manifest, files)
        self.at_once_max = max(self.at_once_max, len(self.loaded()))
        return ready

    async def put_aside(self, key: ContentId, why: str) -> None:
        self.quarantined[key] = why
        await super().unload(key)

    def statistics(self) -> EngineStatistics:
        found = super().statistics()
        return EngineStatistics(
            **{name: getattr(found, name) for name in found.__slots__ if name != "quarantined"},
            quarantined=self.quarantined,
        )


@asynccontextmanager
async def holding(
    engine: HashEngine, *, each: int = 40, budget: int = 100
) -> AsyncIterator[OnDemand]:
    async with open_on_demand(engine, budget, lambda _manifest, _files: each) as found:
        for name in NAMES:
            await found.load(MANIFESTS[name], {})
        yield found


def job(name: str, deadline_s: float = 30.0) -> Job:
    return Job(
        model=MANIFESTS[name].id,
        operation="embed",
        input=Texts(texts=("a text",)).to_bytes(),
        parameters={},
        deadline_s=deadline_s,
    )


async def test_all_models_are_on_offer_and_two_are_in_memory(autojump_clock: MockClock) -> None:
    engine = Slow()
    async with holding(engine) as found:
        assert set(found.loaded()) == {it.id for it in MANIFESTS.values()}
        assert found.statistics().resting == {MANIFESTS["one"].id}
        began_at_s = trio.current_time()
        await found.infer(job("one"))
        assert trio.current_time() - began_at_s == pytest.approx(1.0)
        assert found.statistics().resting == {MANIFESTS["two"].id}
        await found.infer(job("three"))
        assert trio.current_time() - began_at_s == pytest.approx(1.0)
        assert engine.at_once_max == 2


async def test_a_model_in_use_is_not_let_go(autojump_clock: MockClock) -> None:
    async with holding(Slow(unit_s=5.0)) as found, trio.open_nursery() as nursery:
        began_at_s = trio.current_time()
        nursery.start_soon(found.infer, job("two"))
        nursery.start_soon(found.infer, job("three"))
        await trio.sleep(0.1)
        output: Output = await found.infer(job("one"))
        assert output.units == 1
        # After the first of them was done: five seconds, one of loading, and its own five.
        assert trio.current_time() - began_at_s >= 11.0


async def test_who_gives_up_waiting_does_not_break_off_the_load(autojump_clock: MockClock) -> None:
    engine = Slow()
    async with holding(engine) as found:
        with pytest.raises(TooSlow):
            await found.infer(job("one", deadline_s=0.5))
        await trio.sleep(1.0)
        assert MANIFESTS["one"].id in engine.loaded()


async def test_what_never_fits_is_refused_before_it_is_loaded(autojump_clock: MockClock) -> None:
    engine = Slow()
    async with open_on_demand(engine, 100, lambda _manifest, _files: 101) as found:
        with pytest.raises(ModelRefused, match="--memory"):
            await found.load(MANIFESTS["one"], {})
        assert not engine.loaded()
        assert not found.loaded()


async def test_a_load_that_fails_is_an_error_of_its_job_and_tried_again(
    autojump_clock: MockClock,
) -> None:
    engine = Slow()
    async with holding(engine) as found:
        engine.failures.append(EngineFailed("the worker ended"))
        with pytest.raises(EngineFailed):
            await found.infer(job("one"))
        assert MANIFESTS["one"].id in found.loaded()
        assert (await found.infer(job("one"))).units == 1


async def test_a_model_that_is_put_aside_is_not_on_offer_and_says_why(
    autojump_clock: MockClock,
) -> None:
    engine = Slow()
    async with holding(engine) as found:
        await engine.put_aside(MANIFESTS["three"].id, "it failed 3 times")
        assert MANIFESTS["three"].id not in found.loaded()
        assert found.statistics().quarantined == {MANIFESTS["three"].id: "it failed 3 times"}
        engine.failures.append(ModelRefused("its file was cut short"))
        with pytest.raises(ModelRefused):
            await found.infer(job("one"))
        assert MANIFESTS["one"].id not in found.loaded()
        assert "cut short" in found.statistics().quarantined[MANIFESTS["one"].id]


async def test_an_unloaded_model_is_forgotten(autojump_clock: MockClock) -> None:
    async with holding(Slow()) as found:
        await found.unload(MANIFESTS["one"].id)
        with pytest.raises(ModelRefused):
            await found.infer(job("one"))
        assert MANIFESTS["one"].id not in found.loaded()


async def test_a_job_goes_to_the_device_where_it_waits_least(autojump_clock: MockClock) -> None:
    engines = [HashEngine(1.0), HashEngine(1.0)]
    devices = Devices(engines)
    await devices.load(MANIFESTS["one"], {})

    async def infer(job: Job, emit: Emit | None = None) -> None:
        await devices.infer(job, emit)

    began_at_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(infer, job("one"))
            await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() - began_at_s == pytest.approx(2.0)
    assert [it.statistics().units_done for it in engines] == [2, 2]
    await devices.unload(MANIFESTS["one"].id)
    assert not devices.loaded()
