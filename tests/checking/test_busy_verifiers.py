"""A verifier that says it is busy is waited for in a dispute, but not until the task's deadline."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.checking.asked_verifiers import BUSY_IN_DISPUTE_S
from node.checking.quorum import DISPUTE_LOST_AFTER_S
from p2p.score import Offence
from p2p.typed_call import TypedCall
from tests.checking.test_disputes import MANY, invents, verifiers, wanted
from tests.checking.test_verifiers import find
from tests.node.asking import asked, signers
from tests.node.network import I, Network, Outsider, S, V, open_network
from wire.errors import TaskFailed
from wire.message import Check, Message, Refuse

FOR_EVER = 1_000_000
# With the time in which the next peer does the leg.
ELSEWHERE_AFTER_S = BUSY_IN_DISPUTE_S + DISPUTE_LOST_AFTER_S + 3.0


class Accomplices:
    """One opens a dispute about each leg, and another is busy `times` times in each."""

    def __init__(self, times: int, retry_after_s: float, *, agrees: bool) -> None:
        self.times, self.retry_after_s = times, retry_after_s
        # Whether the other one agrees first, while nothing is in dispute.
        self.agrees = agrees
        # When each leg was first checked by one of them, and when its dispute began.
        self.begun_at_s: dict[bytes, float] = {}
        self.disputed_at_s: dict[bytes, float] = {}
        self.refusals: Counter[bytes] = Counter()

    def play(self, rogue: Outsider, busy: Outsider) -> None:
        async def lie(call: TypedCall, message: Message) -> None:
            assert isinstance(message, Check)
            now_at_s, leg = trio.current_time(), message.receipts[-1]
            self.begun_at_s.setdefault(leg, now_at_s)
            self.disputed_at_s.setdefault(leg, now_at_s)
            await invents(17)(call, message, rogue)

        async def later(call: TypedCall, message: Message) -> None:
            assert isinstance(message, Check)
            leg = message.receipts[-1]
            self.begun_at_s.setdefault(leg, trio.current_time())
            if (message.rows or not self.agrees) and self.refusals[leg] < self.times:
                self.refusals[leg] += 1
                after_ms = int(1000 * self.retry_after_s)
                await call.send(Refuse(reason="busy", retry_after_ms=after_ms))
            else:
                await find(call, message, busy.key)

        rogue.answer(Check, lie)
        busy.answer(Check, later)

    @property
    def held(self) -> list[bytes]:
        """The legs in dispute for which the busy one was asked."""
        return [it for it in self.begun_at_s if it in self.disputed_at_s and self.refusals[it]]


async def network_of(network: Network, workers: int) -> None:
    for roles in ((S,), *((I, S),) * workers):
        await network.start(*roles)
    await verifiers(network, 1)


@pytest.mark.parametrize("agrees", [True, False], ids=["agreed before", "never answered"])
@pytest.mark.parametrize("retry_after_s", [0.5, 30.0])
async def test_a_disputed_leg_goes_elsewhere_though_a_verifier_is_busy_for_ever(
    autojump_clock: MockClock, tmp_path: Path, retry_after_s: float, agrees: bool
) -> None:
    async with open_network(tmp_path) as network:
        await network_of(network, workers=2)
        asker = network.nodes[0]
        async with network.outsider(V) as rogue, network.outsider(V) as busy:
            both = Accomplices(FOR_EVER, retry_after_s, agrees=agrees)
            both.play(rogue, busy)
            await network.settled()
            for number in range(30):
                both.begun_at_s.clear()
                with suppress(TaskFailed):
                    await asked(asker, wanted(*MANY, str(number)))
                if both.held:
                    break
            held = both.held[0]
            legs = list(both.begun_at_s)
            # The task did not end with this leg: the next peer did it, and was checked.
            following = legs[legs.index(held) + 1 :]
            assert following
            waited_s = both.begun_at_s[following[0]] - both.disputed_at_s[held]
            assert waited_s < ELSEWHERE_AFTER_S
            cost = asker.peers.scores.cost(busy.key.peer, trio.current_time())
            assert 0.9 * Offence.SLOW <= cost < Offence.UNANSWERED


@pytest.mark.parametrize("agrees", [True, False], ids=["agreed before", "never answered"])
@pytest.mark.parametrize(("times", "retry_after_s"), [(3, 0.5), (1, 4.0), (1, 8.0)])
async def test_a_verifier_that_is_busy_for_a_short_time_still_decides(
    autojump_clock: MockClock, tmp_path: Path, times: int, retry_after_s: float, agrees: bool
) -> None:
    async with open_network(tmp_path) as network:
        await network_of(network, workers=1)
        asker, worker = network.nodes[:2]
        async with network.outsider(V) as rogue, network.outsider(V) as busy:
            both = Accomplices(times, retry_after_s, agrees=agrees)
            both.play(rogue, busy)
            await network.settled()
            for number in range(30):
                answered, _ = await asked(asker, wanted(*MANY, str(number)))
                if both.held:
                    break
            assert both.refusals[both.held[0]] == times
            assert signers(answered) == [worker.peers.me]
            assert answered.answer.record.attempts == 1
            assert asker.peers.scores.cost(busy.key.peer, trio.current_time()) == 0.0
