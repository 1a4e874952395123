"""The ledger as one peer follows it: epoch by epoch, checked, with what it says of use.

Whoever follows needs no member's word: each epoch is one checkpoint of a quorum, and the orders
that lead to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from node.ledger.chain_file import follower
from node.ledger.committee import Committee
from node.ledger.jury_draw import DrawnBy
from node.ledger.received import ReceivedPayments, income_of, received_by
from node.ledger.replica import Replica
from node.ledger.sync import LedgerCalls, other_keepers
from node.usage.history import WEEK_S, UseHistory, epochs_in_week
from p2p.peers import Peers
from wire.checkpoint import ORDER_BUCKETS, Checkpoint, CheckpointHeader
from wire.content import PeerId
from wire.errors import BatonError, Malformed, Refused, Unreachable
from wire.ledger import Genesis

LOOK_EVERY_S = 20.0
LOOK_S_MIN = 1.0
TRIES, AGAIN_S_MAX = 5, 2.0


@dataclass(frozen=True, slots=True)
class FetchedEpoch:
    """How an epoch has ended, and the certificates of its orders, which are known now."""

    checkpoint: Checkpoint
    certificates: list[bytes]
    orders: list[bytes]


async def fetch_epoch(calls: LedgerCalls, member: PeerId, replica: Replica) -> FetchedEpoch | None:
    """The epoch that runs at `replica`, from a member; None if it has not ended there."""
    for left in reversed(range(TRIES)):
        try:
            _, checkpoint = await calls.checkpoint(member, replica.epoch)
            break
        except Refused as error:
            # While a member writes the end of an epoch it says nothing, for a moment.
            if error.retry_after_s is None or not left:
                raise
            await trio.sleep(min(AGAIN_S_MAX, error.retry_after_s))
    if checkpoint is None:
        return None
    header = replica.check_checkpoint(checkpoint)
    listed: list[bytes] = []
    for number in range(ORDER_BUCKETS if header.count else 0):
        listed += await calls.bucket(member, header.epoch, number)
    certificates, orders = [], []
    for raw in await calls.certificates(member, header.epoch, listed):
        orders.append(replica.learn(raw))
        certificates.append(raw)
        # Each is some signatures to check: others are to have their turn.
        await trio.lowlevel.checkpoint()
    if len(orders) != header.count:
        raise Malformed(f"{len(orders)} of {header.count} orders of epoch {header.epoch}")
    return FetchedEpoch(checkpoint, certificates, orders)


def nearest_first(peers: Peers, committee: Committee) -> list[PeerId]:
    """Whom to ask: the members, this peer first if it is one, then others that keep the ledger."""
    members = sorted(committee.index, key=lambda it: it != peers.me)
    return members + other_keepers(peers, committee)


@dataclass(slots=True)
class LedgerFollower:
    """A peer's own copy of the ledger as of the last checkpoint; `run` keeps it so."""

    peers: Peers
    genesis: Genesis
    # The last header that this peer has checked, in this life or an earlier one.
    pinned: Callable[[], CheckpointHeader | None] = lambda: None
    replica: Replica = field(init=False)
    history: UseHistory = field(init=False)
    # What this peer's account was paid.
    received: ReceivedPayments = field(init=False)
    # Why it is not up to date, in words.
    problem: str = "the ledger is being read"
    # When members last said that nothing is missing here.
    current_at_s: float = float("-inf")
    # What the accounts that the last epoch changed had before it.
    _before: Mapping[bytes, int] = field(default_factory=dict)
    _busy: trio.Lock = field(default_factory=trio.Lock)

    def __post_init__(self) -> None:
        self._begin_again()

    def _begin_again(self) -> None:
        self.replica, self._before = follower(self.genesis), {}
        self.received = ReceivedPayments()
        self.history = UseHistory(epochs_in_week(WEEK_S, self.genesis.epoch_s))

    async def catch_up(self) -> None:
        """Go on to the last checkpoint; Unreachable if no member gives what is missing."""
        async with self._busy:
            problems = []
            for member in nearest_first(self.peers, self.replica.committee):
                try:
                    await self._from_either(member)
                except BatonError as error:
                    problems.append(f"{member.short}: {error}")
                else:
                    self.problem, self.current_at_s = "", trio.current_time()
                    return
            self.problem = f"no member gave the ledger ({'; '.join(problems)})"
            raise Unreachable(self.problem)

    async def _from_either(self, member: PeerId) -> None:
        """Go on from what others told; from the beginning, if that leads elsewhere."""
        try:
            await self._from(member)
        except Malformed:
            if not self._is_below_pin():
                raise
            self._begin_again()
            await self._from(member)

    async def _from(self, member: PeerId) -> None:
        calls, replica = LedgerCalls(self.peers), self.replica
        while (found := await fetch_epoch(calls, member, replica)) is not None:
            header = CheckpointHeader.from_bytes(found.checkpoint.header)
            outcome = replica.outcome(found.orders, DrawnBy.of(header))
            self._check_pinned(header)
            epoch = replica.epoch
            orders = [replica.orders[it] for it in found.orders]
            received = received_by(self.peers.me, orders)
            rows = replica.books.motions.rows
            income = income_of(self.peers.me, epoch, outcome.lines, rows)
            before = {
                account: replica.books.balance(account)
                for account in outcome.draft.changes().accounts
            }
            replica.turn(found.checkpoint, found.orders)
            self._before = before
            self.history.add(epoch, outcome.lines, outcome.moved, outcome.matched)
            self.received.add(received)
            self.received.add_income(income)
        if self._is_below_pin():
            raise Unreachable("its ledger ends before what this peer has checked of it already")

    def _check_pinned(self, header: CheckpointHeader) -> None:
        """Malformed for a chain other than the one that this peer has followed before.

        Former members' keys may sign another end of an epoch for ever.
        """
        pinned = self.pinned()
        if pinned is not None and pinned.epoch == header.epoch and pinned.id != header.id:
            raise Malformed(
                f"its ledger ends epoch {header.epoch} otherwise than the one that this peer has"
                " followed: one of the two is forged by keys of members"
            )

    def _is_below_pin(self) -> bool:
        pinned, tip = self.pinned(), self.replica.tip
        return pinned is not None and (tip is None or tip.epoch < pinned.epoch)

    def held(self, account: PeerId) -> int | None:
        """The least that an account had at the last two checkpoints, in millionths.

        None while there are no two.
        """
        tip = self.replica.tip
        if tip is None or tip.epoch < 1:
            return None
        now = self.replica.books.balance(account)
        return min(now, self._before.get(account, now))

    async def run(self) -> None:
        """Follow for ever."""
        every_s = max(LOOK_S_MIN, min(LOOK_EVERY_S, self.genesis.epoch_s / 2))
        while True:
            try:
                await self.catch_up()
            except BatonError as error:
                self.peers.note_problem("ledger", error.message)
            await trio.sleep(every_s)
