"""More is asked of a peer than it can do: it does as much as ever, and tells the rest aloud."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import pytest
import trio
from trio.testing import MockClock

from node.peer import Node
from tests.node.asking import complete, task_of
from tests.node.engines import Counted
from tests.node.network import I, Outsider, S, open_network
from wire.message import Accept, Offer, Piece, Refuse, Result
from wire.tree import name_of

TOKENS = 10
# One leg takes the engine a second.
UNIT_S = 1 / TOKENS
LASTS_S = 60.0


@dataclass(slots=True)
class Asker:
    """Offers legs at a steady rate, whatever becomes of them."""

    there: Outsider
    worker: Node
    every_s: float
    deadline_ms: int = 15_000
    waited_s: list[float] = field(default_factory=list)
    refusals: list[Refuse] = field(default_factory=list)
    late: int = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(int(LASTS_S / self.every_s)):
                nursery.start_soon(self.ask, number)
                await trio.sleep(self.every_s)

    async def ask(self, number: int) -> None:
        prompt = b"%d of %s" % (number, self.there.key.peer)
        wall_s = self.there.peers.environment.wall_s()
        task = task_of(self.there.key, wall_s, complete(TOKENS), source=name_of(prompt))
        offer = Offer(
            task=task.raw,
            stage=0,
            receipts=(),
            input=prompt,
            deadline_ms=self.deadline_ms,
            # What a holder says of the work is not believed.
            units=1,
            resume=None,
            avoid=(),
        )
        began_at_s = trio.current_time()
        async with self.there.peers.call(self.worker.peers.me, deadline_s=30) as call:
            await call.send(offer)
            while True:
                match message := await call.receive():
                    case Accept() | Piece():
                        continue
                    case Refuse():
                        self.refusals.append(message)
                        return
                    case _:
                        assert isinstance(message, Result)
                        waited_s = trio.current_time() - began_at_s
                        self.late += waited_s > self.deadline_ms / 1000
                        self.waited_s.append(waited_s)
                        return


@asynccontextmanager
async def asking(folder: Path, *every_s: float) -> AsyncIterator[tuple[Node, list[Asker]]]:
    """Askers that have asked for LASTS_S, and all of their legs are over."""
    async with open_network(folder) as network, AsyncExitStack() as stack:
        worker = await network.start(I, S, engine=Counted(unit_s=UNIT_S))
        await network.settled()
        while not worker.probing.offered():
            await trio.sleep(0.1)
        askers = [
            Asker(await stack.enter_async_context(network.outsider()), worker, it) for it in every_s
        ]
        async with trio.open_nursery() as nursery:
            for asker in askers:
                nursery.start_soon(asker.run)
        yield worker, askers


async def test_five_times_as_much_as_can_be_done_is_refused_aloud_and_costs_no_throughput(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with asking(tmp_path, *[0.8] * 4) as (_, askers):
        done = sum(len(it.waited_s) for it in askers)
        refused = [refusal for it in askers for refusal in it.refusals]
        # Five legs come every second, one can be done; it goes on until the last deadline.
        assert done + len(refused) == 300
        assert 0.95 * LASTS_S <= done <= LASTS_S + 15
        assert all(it.retry_after_ms is not None and it.retry_after_ms >= 250 for it in refused)
        assert sum(it.late for it in askers) == 0
        # And the askers have the same share of it.
        shares = [len(it.waited_s) for it in askers]
        assert max(shares) - min(shares) <= 3


async def test_a_greedy_asker_does_not_raise_the_waiting_of_the_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with asking(tmp_path / "without", 10.0, 10.1, 10.2) as (_, polite):
        alone_s = [it for asker in polite for it in asker.waited_s]
    async with asking(tmp_path / "with", 10.0, 10.1, 10.2, 0.2) as (worker, (*polite, greedy)):
        beside_s = [it for asker in polite for it in asker.waited_s]
        assert len(beside_s) == len(alone_s)
        # What is at work is finished first: a leg's time at most, half of it as a rule.
        assert mean(beside_s) - mean(alone_s) < 1.0
        assert max(beside_s) - max(alone_s) < 1.1
        assert not any(it.refusals for it in polite)
        # What is left over is all for the greedy one.
        assert len(greedy.waited_s) + len(beside_s) >= 0.95 * LASTS_S
        assert greedy.refusals
        assert worker.leg_server.under_way == 0


async def test_what_is_advertised_counts_those_who_wait(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        worker = await network.start(I, S, engine=Counted(unit_s=UNIT_S))
        other = await network.start(S)
        await network.settled()
        while not worker.probing.offered():
            await trio.sleep(0.1)
        async with network.outsider() as there, trio.open_nursery() as nursery:
            asker = Asker(there, worker, 1.0)
            for number in range(8):
                nursery.start_soon(asker.ask, number)
            await trio.sleep(0.5)
            worker.peers.advertiser.changed()
            await trio.sleep(3)
            advert = other.peers.view.advert_of(worker.peers.me)
            assert advert is not None
            assert advert.record.queue_s == pytest.approx(7.0, abs=1.5)
            assert advert.record.free_slots == pytest.approx(57, abs=2)
