"""A standing order of checks at one verifier: they go out in bundles, and verdicts come back.

What it has as every order is in `node.dispatch.standing_order`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import trio

from node.checking.commitments import Shown
from node.dispatch.orders import OrderBook
from node.dispatch.standing_order import WANTED, StandingOrder
from p2p.connect import is_its_fault
from p2p.score import Offence
from p2p.typed_call import refused
from wire import limits
from wire.bundling import cut
from wire.check_message import Check
from wire.checks import CheckOutcome, Checks, OpenChecks, OrderedCheck, Verdicts
from wire.commitment import Commitments, OrderedTelling, TellVerdicts
from wire.content import PeerId
from wire.errors import BatonError, Malformed, RemoteProtocolError, TooSlow, WireError
from wire.lottery import Share
from wire.message import Message
from wire.receipt import Verdict
from wire.signed import Signed, open_signed


@dataclass(slots=True, eq=False)
class CheckOnOrder:
    """One check on an order, from when it is put there until it ends."""

    check: Check
    since_at_s: float
    # Hears once what came of it, and raises nothing.
    sink: Callable[[Signed[Verdict] | BatonError], None]
    # Hears the commitment to its verdict, where it has one.
    committed: Callable[["CheckOnOrder", bytes], None]
    has_committed: bool = False
    has_told: bool = False
    tag: int | None = None
    # How long a check may take is for who asks: nothing is expected before its end.
    taken: bool = True
    # Checks have no lanes: which task is checked next is the lottery's matter, not a client's.
    lane: bytes = b""

    @property
    def size_bytes(self) -> int:
        """What it takes in a message, but for a few fields."""
        check = self.check
        payloads = len(check.input or b"") + len(check.output or b"")
        return len(check.task) + sum(map(len, check.receipts)) + payloads

    def give_back(self, error: BatonError) -> None:
        """Nothing more is heard of it here."""
        self.sink(error)


@dataclass(slots=True, eq=False)
class CheckOrder(StandingOrder[CheckOnOrder]):
    """See the head of this file."""

    BUNDLE_MAX: ClassVar[int] = limits.CHECKS_PER_MESSAGE_MAX

    _to_tell: list[OrderedTelling] = field(default_factory=list)

    def put(
        self,
        check: Check,
        sink: Callable[[Signed[Verdict] | BatonError], None],
        committed: Callable[[CheckOnOrder, bytes], None],
    ) -> CheckOnOrder:
        """Have a leg checked. `sink` hears the verdict, as the verifier gives it; or Refused, or
        one of TROUBLES. `committed` hears the commitment to it, if the check asks for one; then
        `tell` asks for the verdict. One that takes too long is ended with `give_up`, by who put it
        here.
        """
        one = CheckOnOrder(check, trio.current_time(), sink, committed)
        self._put(one)
        return one

    def tell(self, one: CheckOnOrder, shown: Shown) -> None:
        """Ask for a verdict that was committed to."""
        assert one.tag is not None
        one.has_told = True
        self._to_tell.append(OrderedTelling(tag=one.tag, shown=shown.hash, count=shown.count))
        self._to_send.set()

    def give_up(self, one: CheckOnOrder) -> TooSlow:
        """Wait no longer for a check that took too long; what is to be said of that."""
        self.leave(one)
        error = TooSlow(f"{self.peer.short} did not answer a check in time")
        waited_s = trio.current_time() - one.since_at_s
        if one.tag is not None and is_its_fault(error, waited_s, heard=False):
            self.peers.offended(self.peer, Offence.UNANSWERED)
        return error

    # What travels

    def _opening(self) -> Message:
        return OpenChecks(checks=WANTED)

    def _bundle(self, items: list[CheckOnOrder], now_at_s: float) -> Message:
        return Checks(items=tuple(OrderedCheck(tag=it.tag or 0, asked=it.check) for it in items))

    def _besides(self) -> Iterator[Message]:
        to_tell, self._to_tell = self._to_tell, []
        for some in cut((it, 0) for it in to_tell):
            yield TellVerdicts(items=tuple(some))

    def _hear(self, message: Message) -> None:
        match message:
            case Commitments():
                for item in message.items:
                    self._hear_commitment(item.tag, item.commitment)
            case Verdicts():
                for outcome in message.items:
                    if (one := self._tags.ended(outcome.tag)) is not None:
                        self._hear_outcome(one, outcome)
                if message.places:
                    self._credited(message.places)
            case _:
                raise RemoteProtocolError("not what is said in an order of checks")

    def _hear_commitment(self, tag: int, commitment: bytes) -> None:
        one = self._tags.task_of(tag)
        if one is None:
            return
        if not one.check.commit or one.has_committed:
            raise RemoteProtocolError("it committed to a verdict twice, or unasked")
        one.has_committed = True
        one.committed(one, commitment)

    def _hear_outcome(self, one: CheckOnOrder, outcome: CheckOutcome) -> None:
        if outcome.refusal is not None:
            one.give_back(refused(outcome.refusal))
            return
        assert outcome.verdict is not None
        try:
            verdict = open_signed(outcome.verdict, Verdict)
            if one.check.commit and not one.has_told:
                raise Malformed("it told its verdict before it was asked to")
        except WireError as error:
            # It is what the peer says of this check that does not fit; others go on.
            self.peers.offended(self.peer, Offence.MALFORMED)
            one.give_back(error)
        else:
            one.sink(verdict)


@dataclass(frozen=True, slots=True)
class PlacedCheck:
    """A check that a verifier has on an order, until when it may take, and what it is about."""

    order: CheckOrder
    ordered: CheckOnOrder
    late_at_s: float
    share: Share


@dataclass(slots=True)
class CheckOrders(OrderBook[CheckOrder]):
    """The orders of checks of this peer at others."""

    SINCE: ClassVar[int] = limits.CHECKS_VERSION

    async def at(self, verifier: PeerId, left_s: float, at_once: int) -> CheckOrder | None:
        """The order at a verifier that takes a check; None if it has to go by itself.

        `at_once` is how many checks are under way there with this one.
        """
        return await self._settled_at(verifier, left_s, at_once)

    def _made(self, peer: PeerId) -> CheckOrder:
        return CheckOrder(self.peers, peer)
