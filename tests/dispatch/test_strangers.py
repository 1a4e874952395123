"""Newcomers among peers that take legs and sit on them, or sound faster than they are."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from statistics import mean

import pytest
import trio
from trio.testing import MockClock

from node.dispatch.route import Candidate
from node.dispatch.sitting import BENCHED_S, BENCHED_S_MAX, KEPT_MAX, Sitting, sits
from node.dispatch.trials import HEDGES_MAX, Trials
from node.engines.interface import Emit, Job, Output
from node.peer import Node
from p2p.typed_call import TypedCall
from tests.node.asking import asked, complete, request
from tests.node.engines import PROBE, Counted
from tests.node.network import I, Network, S, open_network
from tests.p2p.transports import key_of
from tests.repeats import repeats
from wire.kinds import Level
from wire.message import Accept, Message, Offer, Quote, Quoted

UNIT_S, UNITS = 0.1, 20
PEACE_S = UNIT_S * UNITS
HONEST = 4
TASKS = 100


async def sit(call: TypedCall, _: Message) -> None:
    """As a sitter does: takes the leg, and nothing comes of it."""
    await call.send(Accept(expected_ms=int(PEACE_S * 1000)))
    await trio.sleep_forever()


async def quote(call: TypedCall, _: Message) -> None:
    await call.send(Quoted(expected_ms=int(PEACE_S * 1000)))


async def six_sitters(network: Network, stack: AsyncExitStack) -> None:
    for _ in range(6):
        sitter = await stack.enter_async_context(network.outsider(I, units_per_s=1 / UNIT_S))
        sitter.answer(Offer, sit)
        sitter.answer(Quote, quote)


class Boaster(Counted):
    """Claims to be ten times as fast as the honest ones, and is ten times as slow."""

    def __init__(self) -> None:
        super().__init__(unit_s=UNIT_S / 10)

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.input != PROBE:
            await trio.sleep(10 * PEACE_S)
        return await super().infer(job, emit)


async def twenty_boasters(network: Network, stack: AsyncExitStack) -> None:
    for _ in range(20):
        await network.start(I, S, engine=Boaster())


async def nobody(network: Network, stack: AsyncExitStack) -> None:
    """Peace."""


async def took_s(asker: Node, number: int) -> float:
    began_at_s = trio.current_time()
    wanted = request(complete(UNITS), data=b"%d" % number, level=Level.SIGNED)
    await asked(asker, wanted)
    return trio.current_time() - began_at_s


Others = Callable[[Network, AsyncExitStack], Awaitable[None]]


async def a_newcomer_s_tasks(folder: Path, seed: int, others: Others, tasks: int) -> list[float]:
    async with open_network(folder, seed=seed) as network, AsyncExitStack() as stack:
        await network.start(S)
        for _ in range(HONEST):
            await network.start(I, S, engine=Counted(unit_s=UNIT_S))
        await network.settled()
        await others(network, stack)
        newcomer = await network.start(S)
        await network.settled()
        return [await took_s(newcomer, it) for it in range(tasks)]


async def worse_than_in_peace(
    folder: Path, others: Others, seeds: range, tasks: int
) -> tuple[list[float], list[float]]:
    """How many times as long the first task of a newcomer takes, and its last ten; by seed."""
    firsts, lasts = [], []
    for seed in seeds:
        peace = await a_newcomer_s_tasks(folder / f"peace {seed}", seed, nobody, 1)
        taken = await a_newcomer_s_tasks(folder / f"{seed}", seed, others, tasks)
        firsts.append(taken[0] / peace[0])
        lasts.append(mean(taken[-10:]) / peace[0])
    return firsts, lasts


@pytest.mark.timeout(600)
async def test_a_newcomers_first_task_among_sitters_is_soon_done(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    # By which sitters it tries first it takes once or three times as long, so several are asked.
    seeds = range(repeats(4, soak=8))
    firsts, _ = await worse_than_in_peace(tmp_path, six_sitters, seeds, 1)
    assert max(firsts) <= 3.1
    assert mean(firsts) <= 2.8


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "others", [six_sitters, pytest.param(twenty_boasters, marks=pytest.mark.soak)]
)
async def test_a_newcomers_hundredth_task_takes_as_long_as_in_peace(
    autojump_clock: MockClock, tmp_path: Path, others: Others
) -> None:
    firsts, lasts = await worse_than_in_peace(tmp_path, others, range(1), TASKS)
    assert max(firsts) <= 3.5
    assert max(lasts) <= 1.2


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("others", [six_sitters, twenty_boasters])
async def test_so_it_is_with_many_seeds(
    autojump_clock: MockClock, tmp_path: Path, others: Others
) -> None:
    firsts, lasts = await worse_than_in_peace(tmp_path, others, range(8), TASKS)
    assert max(firsts) <= 3.5
    assert mean(firsts) <= 3.0
    assert max(lasts) <= 1.2


def candidate(name: str, **changes: object) -> Candidate:
    values: dict[str, object] = {
        "unwelcome": False,
        "full": False,
        "expected_s": 1.0,
        "work_s": 1.0,
        "idle_s": 1.0,
        "observed": False,
        "delivered": False,
    }
    return Candidate(peer=key_of(name).peer, **(values | changes))  # type: ignore[arg-type]


def pools(trials: Trials, *choices: Candidate, times: int = 400) -> float:
    """In which share of draws strangers are drawn from."""
    random = Random(1)
    drawn = [trials.pool(choices, random) for _ in range(times)]
    return sum(any(not it.delivered for it in pool) for pool in drawn) / times


def test_strangers_get_a_share_of_the_legs_one_at_a_time() -> None:
    known = [candidate(f"known {it}", delivered=True) for it in range(4)]
    fast = candidate("stranger", expected_s=0.001, idle_s=0.001, work_s=0.001)
    assert pools(Trials(), *known, fast) == pytest.approx(1 / 16, abs=0.03)
    assert pools(Trials(), known[0], fast) == pytest.approx(1 / 8, abs=0.04)
    assert pools(Trials(under_way=1), *known, fast) == 0.0
    # Among strangers alone there is nobody to prefer.
    assert pools(Trials(), fast) == 1.0


def test_a_stranger_is_worth_it_where_all_that_delivered_are_busy_or_unwelcome() -> None:
    stranger = candidate("stranger")
    assert pools(Trials(), candidate("a", delivered=True, expected_s=9.0), stranger) == 1.0
    assert pools(Trials(), candidate("a", delivered=True, full=True), stranger) == 1.0
    assert pools(Trials(), candidate("a", delivered=True, unwelcome=True), stranger) == 1.0
    benched = candidate("benched", unwelcome=True)
    assert pools(Trials(), candidate("a", delivered=True), benched) == 0.0
    assert Trials().pool([], Random(1)) == []


def test_the_more_strangers_had_the_leg_the_sooner_the_next_has_it_and_within_bounds() -> None:
    trials = Trials()
    waits_s = [trials.hedge_after_s(1.0, it) for it in range(40)]
    assert waits_s[:3] == pytest.approx([1.2, 0.48, 0.25])
    assert sum(waits_s[:6]) < 2.7
    # Where legs are long, so that the shortest wait does not count, twice the time of one.
    assert sum(trials.hedge_after_s(1000.0, it) for it in range(40)) <= 2010.0
    assert min(waits_s) == 0.25
    assert sum(trials.spend() for _ in range(100)) == HEDGES_MAX
    for _ in range(4):
        trials.delivered()
    assert [trials.spend(), trials.spend()] == [True, False]


def test_who_sits_is_benched_for_twice_as_long_each_time_and_who_delivers_is_welcome() -> None:
    sitting, peer = Sitting(), key_of("sitter").peer
    at_s = 0.0
    for times in range(12):
        sitting.sat(peer, at_s)
        benched_s = min(BENCHED_S_MAX, BENCHED_S * 2**times)
        assert sitting.is_benched(peer, at_s + benched_s - 1)
        assert not sitting.is_benched(peer, at_s + benched_s)
        at_s += benched_s
    sitting.sat(peer, at_s)
    sitting.delivered(peer)
    assert not sitting.is_benched(peer, at_s)
    # Not all is forgotten with one leg.
    sitting.sat(peer, at_s)
    assert sitting.is_benched(peer, at_s + BENCHED_S_MAX - 1)


def test_a_flood_of_sitters_frees_none_that_is_benched_for_longer() -> None:
    sitting, peer = Sitting(), key_of("sitter").peer
    for _ in range(5):
        sitting.sat(peer, 0.0)
    for number in range(KEPT_MAX + 100):
        sitting.sat(key_of(str(number)).peer, 0.0)
    assert len(sitting._records) == KEPT_MAX
    assert sitting.is_benched(peer, BENCHED_S + 1)


def test_slow_is_not_sitting() -> None:
    assert not sits(2.0, 1.0)
    assert sits(4.0, 1.0)
    assert not sits(0.5, 0.0)
