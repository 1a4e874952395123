"""A standing order of checks at one verifier: they go out in bundles, and verdicts come back.

What it has as every order is in `node.dispatch.standing_order`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import trio

from node.dispatch.orders import OrderBook
from node.dispatch.standing_order import WANTED, StandingOrder
from p2p.connect import is_its_fault
from p2p.score import Offence
from p2p.typed_call import refused
from wire import limits
from wire.check_message import Check
from wire.checks import Checks, OpenChecks, OrderedCheck, Verdicts
from wire.content import PeerId
from wire.errors import BatonError, RemoteProtocolError, TooSlow, WireError
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

    def put(
        self, check: Check, sink: Callable[[Signed[Verdict] | BatonError], None]
    ) -> CheckOnOrder:
        """Have a leg checked. `sink` hears the verdict, as the verifier gives it; or Refused, or
        one of TROUBLES. A check that takes too long is ended with `give_up`, by who put it here.
        """
        one = CheckOnOrder(check, trio.current_time(), sink)
        self._put(one)
        return one

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

    def _hear(self, message: Message) -> None:
        if not isinstance(message, Verdicts):
            raise RemoteProtocolError("not what is said in an order of checks")
        for outcome in message.items:
            if (one := self._tags.ended(outcome.tag)) is None:
                continue
            if outcome.refusal is not None:
                one.give_back(refused(outcome.refusal))
                continue
            assert outcome.verdict is not None
            try:
                verdict = open_signed(outcome.verdict, Verdict)
            except WireError as error:
                # It is what the peer says of this check that does not fit; others go on.
                self.peers.offended(self.peer, Offence.MALFORMED)
                one.give_back(error)
            else:
                one.sink(verdict)
        if message.places:
            self._credited(message.places)


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
