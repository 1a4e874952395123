"""A model is offered to others only while it does what the offer says."""

from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from node.engines.hash_engine import HashEngine
from node.engines.interface import Emit, EngineStatistics, Job, Output
from node.local.commands import LocalCommands
from node.models.probing import AFTER_FAILURE_S_MIN, EVERY_S, PROBE_DEADLINE_S, RETRY_S_MAX, Probes
from node.peer import Node
from tests.node.asking import MODEL
from tests.node.engines import PROBE
from tests.node.network import I, Network, S, V, open_network
from wire.content import ContentId
from wire.errors import EngineFailed
from wire.payload import Vectors

OTHER = ContentId.of(b"another model")
WELL = (0, "")


class Moody(HashEngine):
    """Does what its mood says, to everybody; counts the probes it had."""

    def __init__(self, mood: str = "well") -> None:
        super().__init__(unit_s=0.01)
        self.mood = mood
        self.restarts = 0
        self.probed_at_s: list[float] = []

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.input == PROBE:
            self.probed_at_s.append(trio.current_time())
        output = await super().infer(job, emit)
        vectors = Vectors.from_bytes(output.data)
        match self.mood:
            case "fails":
                raise EngineFailed("the worker ran out of memory")
            case "hangs":
                await trio.sleep_forever()
            case "not numbers":
                data = np.full(vectors.dimensions, np.nan, "<f4").tobytes()
            case "wavers":
                rows = np.frombuffer(vectors.data, "<f4") * np.float32(len(self.probed_at_s))
                data = rows.astype("<f4").tobytes()
            case "garbage":
                return Output(data=b"anything at all", units=output.units)
            case _:
                return output
        altered = Vectors(dimensions=vectors.dimensions, rows=1, data=data)
        return Output(data=altered.to_bytes(), units=output.units)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            jobs_queued=0,
            units_queued=0,
            units_done=0,
            restarts=self.restarts,
            running=True,
            last_failure="",
        )


def advertised(by: Node, seen_by: Node) -> bool:
    advert = seen_by.peers.view.advert_of(by.peers.me)
    return advert is not None and any(it.model == MODEL for it in advert.record.models)


async def until_advertised(by: Node, seen_by: Node, *, wanted: bool, within_s: float) -> None:
    with trio.fail_after(within_s):
        while advertised(by, seen_by) is not wanted:
            await trio.sleep(0.1)


async def status_of(node: Node) -> dict[str, str]:
    found = await LocalCommands(node).status({}, [].append)
    (row,) = found["models"]
    return {"state": row["state"], "problem": row["problem"]}


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        ("fails", "ran out of memory"),
        ("hangs", f"within {PROBE_DEADLINE_S:.0f} s"),
        ("not numbers", "no numbers"),
        ("wavers", "differ"),
        ("garbage", ""),
    ],
)
async def test_what_fails_its_probe_is_not_offered_until_it_passes(
    autojump_clock: MockClock, tmp_path: Path, mood: str, why: str
) -> None:
    async with open_network(tmp_path) as network:
        seeing = await network.start(S)
        engine = Moody(mood)
        worker = await network.start(I, V, S, engine=engine)
        with trio.move_on_after(PROBE_DEADLINE_S * 2):
            while not advertised(worker, seeing):
                await trio.sleep(0.1)
        assert seeing.peers.view.advert_of(worker.peers.me) is not None
        assert not advertised(worker, seeing)
        said = await status_of(worker)
        assert said["state"] == "set aside"
        assert said["problem"]
        assert why in said["problem"]
        engine.mood = "well"
        await until_advertised(worker, seeing, wanted=True, within_s=RETRY_S_MAX + 60)
        assert await status_of(worker) == {"state": "ready", "problem": ""}


async def a_worker(network: Network, engine: Moody) -> tuple[Node, Node]:
    seeing = await network.start(S)
    worker = await network.start(I, S, engine=engine)
    await until_advertised(worker, seeing, wanted=True, within_s=30)
    return worker, seeing


async def test_a_model_that_breaks_after_an_engine_failure_is_withdrawn_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        engine = Moody()
        worker, seeing = await a_worker(network, engine)
        await trio.sleep(30)
        engine.mood = "fails"
        engine.restarts = 1
        await until_advertised(worker, seeing, wanted=False, within_s=15)
        assert any("set aside" in line for line in worker.notes.lines().values())
        engine.mood = "well"
        await until_advertised(worker, seeing, wanted=True, within_s=30)


async def test_a_model_that_breaks_silently_is_withdrawn_by_the_probe_from_time_to_time(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        engine = Moody()
        worker, seeing = await a_worker(network, engine)
        await trio.sleep(EVERY_S / 2)
        # Two for one probe: it is not tried while nothing is due.
        assert len(engine.probed_at_s) == 2
        engine.mood = "not numbers"
        await until_advertised(worker, seeing, wanted=False, within_s=EVERY_S / 2 + 30)


def test_what_is_due_by_the_clock_alone() -> None:
    probes = Probes()
    probes.saw([MODEL, OTHER], WELL, 0.0)
    assert probes.due(0.0, idle=False) == [MODEL, OTHER]
    assert probes.succeeded(MODEL, 1.0)
    assert not probes.succeeded(MODEL, 1.0)
    assert not probes.failed(OTHER, "it is ill", 1.0)
    assert (probes.passed(MODEL), probes.passed(OTHER)) == (True, False)
    assert probes.problem(OTHER) == "it is ill"
    assert probes.due(2.0, idle=True) == []
    assert probes.due(1.0 + EVERY_S, idle=False) == [OTHER]
    assert probes.due(1.0 + EVERY_S, idle=True) == [MODEL, OTHER]
    probes.saw([OTHER], WELL, 2.0)
    assert not probes.passed(MODEL)


def test_what_fails_again_and_again_is_tried_ever_more_seldom() -> None:
    probes = Probes()
    at_s, waits = 0.0, []
    for _ in range(12):
        # The engine restarts each time: that brings on nothing for what is set aside.
        probes.saw([MODEL], (len(waits), ""), at_s)
        probes.failed(MODEL, "no", at_s)
        began_at_s = at_s
        while not probes.due(at_s, idle=True):
            probes.saw([MODEL], (len(waits) + 1, ""), at_s)
            at_s += 1.0
        waits.append(at_s - began_at_s)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (5.0, RETRY_S_MAX)


def test_failures_of_the_engine_bring_on_no_more_than_so_many_probes() -> None:
    probes = Probes()
    probes.saw([MODEL], WELL, 0.0)
    probes.succeeded(MODEL, 10.0)
    probes.saw([MODEL], (1, "it crashed"), 11.0)
    assert probes.due(11.0, idle=False) == []
    assert probes.due(10.0 + AFTER_FAILURE_S_MIN, idle=False) == [MODEL]
