"""Stakes in a devnet: they are laid before the load begins, and accounted for in the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import trio

from node.devnet.crimes import Crimes, honest_losses
from node.devnet.economy_plan import EconomyPlan
from node.devnet.economy_watch import EconomyWatch
from node.devnet.invariants import Violations
from node.devnet.peer import DevPeer
from node.devnet.ring import Ring
from node.ledger.books import Books
from node.ledger.wallet import unheard
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import BatonError

HONEST = "nobody honest is slashed"
PROVEN = "every crime that is proved costs stake"
POORER = "a ring ends poorer than it began"
LAID = "every worker can stake"
# Stakes are laid by so many at once; orders of all peers together would keep members from others.
AT_ONCE = 8
LAY_EPOCHS = 20
TRIES = 5


@dataclass(slots=True)
class Stakes:
    """What is staked in one run, and what became of it."""

    watch: EconomyWatch
    violations: Violations
    crimes: Crimes
    ring: Ring
    # At the end of the run.
    ring_before: int = 0
    ring_after: int = 0
    honest_slashed: int = 0
    slashed_acts: int = 0
    unpunished: int = 0
    nothing_left: int = 0
    taken: int = 0

    @property
    def plan(self) -> EconomyPlan:
        """Who stakes what."""
        return self.watch.plan

    async def lay(self, peers: Sequence[DevPeer]) -> None:
        """Have every worker stake what is planned, and wait until askers know of it."""
        if not self.plan.stakes:
            return
        places = trio.CapacityLimiter(AT_ONCE)

        async def one(peer: DevPeer) -> None:
            async with places:
                await self._lay(peer)

        async with trio.open_nursery() as nursery:
            for number in self.plan.stakes:
                nursery.start_soon(one, peers[number])
        staked = sum(it.amount for parts in self.plan.stakes.values() for it in parts)
        with trio.move_on_after(self.plan.config.epoch_s * LAY_EPOCHS):
            while not all(_knows(it, staked) for it in peers if it.plan.asks):
                self.watch.look(peers)
                await trio.sleep(1.0)
            return
        self.violations.note(LAID, None, "askers do not know of the stakes")

    async def _lay(self, peer: DevPeer) -> None:
        problem = "it is down"
        for _ in range(TRIES):
            if peer.node is not None and peer.node.ledger is not None:
                try:
                    wallet = peer.node.ledger.wallet
                    await wallet.order(unheard, stake=self.plan.stakes[peer.number])
                except BatonError as error:
                    problem = str(error)
                else:
                    return
            await trio.sleep(1.0)
        self.violations.note(LAID, peer.number, problem)

    async def finish(self) -> None:
        """Wait until all is accused that is known, and for the end of that epoch."""
        config = self.plan.config
        if not self.plan.stakes:
            return
        with trio.move_on_after(config.epoch_s * LAY_EPOCHS):
            while self.crimes.busy:
                await trio.sleep(0.5)
            wanted = self.watch.ended + 1
            while self.watch.ended <= wanted:
                await trio.sleep(0.5)

    def draw_up(self, books: Books, bad: frozenset[PeerId]) -> None:
        """Compare what the ledger says in the end with what had to come of it."""
        keys = {number: key for key, number in self.plan.numbers.items()}
        stakes = self.plan.stakes.items()
        staked = {keys[at]: sum(it.amount for it in parts) for at, parts in stakes}
        self.taken = sum(staked.values()) - sum(books.stakes.row(it).total for it in staked)
        lost = honest_losses(staked, bad, books)
        self.honest_slashed = len(lost)
        for key, amount in lost.items():
            number = self.plan.numbers[key]
            self.violations.note(HONEST, number, f"it has {show_credits(amount)} credits less")
        for act, culprit in self.crimes.shown.items():
            if act not in self.crimes.planted:
                number = self.plan.numbers[culprit]
                self.violations.note(HONEST, number, "what it did right convicts it")
        self.slashed_acts = self.crimes.punished(books)
        self.nothing_left = self.crimes.beyond_punishment(books)
        unpunished = self.crimes.unpunished(books)
        self.unpunished = len(unpunished)
        for culprit in unpunished:
            self.violations.note(PROVEN, self.plan.numbers[culprit], "it kept its stake")
        for why in self.crimes.refused.values():
            self.violations.note(PROVEN, None, f"members refused the accusation: {why}")
        if self.crimes.false_accusations_taken:
            taken = self.crimes.false_accusations_taken
            self.violations.note(HONEST, None, f"{taken} false accusations were taken")
        self._draw_up_ring(books)

    def _draw_up_ring(self, books: Books) -> None:
        mine = {it.peer for it in self.plan.ring}
        self.ring_before = sum(it.amount for it in self.plan.genesis.grants if it.account in mine)
        deposits = (
            channel.locked
            for shelf in books.channels
            for channel in shelf.values()
            if channel.payer in mine
        )
        self.ring_after = sum(map(books.balance, mine)) + sum(deposits)
        if self.ring.paid and self.ring_after >= self.ring_before:
            self.violations.note(POORER, None, "it has lost nothing")

    def figures(self) -> dict[str, Any]:
        """What a report says of it, by stable names; nothing where nobody stakes."""
        crimes, found = self.crimes, dict[str, Any]()
        if self.plan.stakes:
            found |= {
                "crimes": len(crimes.planted),
                "crimes_shown": len(crimes.shown),
                "crimes_slashed": self.slashed_acts,
                "crimes_of_who_had_nothing_left": self.nothing_left,
                "crimes_unpunished": self.unpunished,
                "honest_slashed": self.honest_slashed,
                "false_accusations": crimes.false_accusations,
                "false_accusations_taken": crimes.false_accusations_taken,
                "slashed": show_credits(self.taken),
            }
        if self.plan.ring:
            found |= {
                "ring_paid": show_credits(self.ring.paid),
                "ring_before": show_credits(self.ring_before),
                "ring_after": show_credits(self.ring_after),
            }
        return found

    def told_of_whale(self) -> str:
        """What came of the whale, in words."""
        parts = self.plan.stakes.get(self.plan.whale or 0, ())
        whole = sum(it.amount for own in self.plan.stakes.values() for it in own)
        mine = sum(it.amount for it in parts)
        return f"one verifier had {show_credits(mine)} of {show_credits(whole)} credits at stake"

    def told_of_ring(self) -> str:
        """What came of the ring, in words."""
        lost = self.ring_before - self.ring_after
        return (
            f"{len(self.plan.ring)} keys paid each other {show_credits(self.ring.paid)} credits in"
            f" {self.ring.rounds} rounds, and have {show_credits(lost)} less than at the beginning"
        )


def _knows(peer: DevPeer, staked: int) -> bool:
    """Whether a peer has heard of a checkpoint by which so much is staked."""
    if peer.node is None or peer.node.ledger is None:
        return True
    return sum(it.total for it in peer.node.ledger.stakes.rows.values()) >= staked
