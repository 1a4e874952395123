"""Serving standing orders of checks: many legs of one asker to be checked in one conversation.

Each is a check as one that comes alone, with a deadline and an end of its own. One that cannot be
read or done is refused by itself, and the others go on.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from node.serving.asked_check import Asked, read_check
from node.serving.check_bundle import CheckEnd, SmallCheck, check_together, small_check
from node.serving.held_verdicts import NOT_ASKED_FOR, HeldVerdict
from node.serving.served_order import ServedOrder, ServedOrders
from node.serving.verify_role import VerifyRole
from node.task.flushing import Flushing
from p2p.peers import Peers
from p2p.typed_call import TypedCall, refusal_of
from wire.bundling import cut
from wire.checks import CheckOutcome, Checks, OpenChecks, OrderedCheck, Verdicts
from wire.commitment import Commitments, OrderedCommitment, OrderedTelling, TellVerdicts
from wire.errors import BatonError, Refused, RemoteProtocolError, WireError
from wire.kinds import RefusalCode
from wire.message import Message
from wire.order import OrderRefusal, Places
from wire.receipt import Verdict
from wire.signed import sign, sign_many

# A flush takes what there is; `check_together` cuts it.
CHECKS_MAX = 256
_GIVEN_UP = "given up: nobody waits for it"
LOOK_EVERY_S = 1.0
# Verdicts of one order that were committed to and wait to be told; more of them take places.
HELD_PER_ORDER_MAX = 512


@dataclass(slots=True, eq=False, kw_only=True)
class _ServedChecks(ServedOrder):
    """One order of checks."""

    server: "CheckServer"
    # Checks that have not ended, by tag: those that are done alone, and small ones.
    _alone: dict[int, trio.CancelScope] = field(default_factory=dict)
    _small: dict[int, SmallCheck] = field(default_factory=dict)
    # Verdicts that were committed to and are not told yet.
    _held: dict[int, HeldVerdict] = field(default_factory=dict)
    _commitments: list[OrderedCommitment] = field(default_factory=list)
    _flushing: Flushing[SmallCheck] | None = None
    _out: deque[CheckOutcome] = field(default_factory=deque)

    @property
    def in_use(self) -> int:
        """Its checks that have not ended."""
        return len(self._alone) + len(self._small) + len(self._held)

    @property
    def occupied(self) -> int:
        """Its checks that are under way. Up to a bound what waits to be told takes no place: else
        checks that wait for each other's verifiers would all wait in vain.
        """
        return len(self._alone) + len(self._small) + max(0, len(self._held) - HELD_PER_ORDER_MAX)

    def _abandon(self, tag: int) -> None:
        if (scope := self._alone.get(tag)) is not None:
            scope.cancel()
        if (small := self._small.get(tag)) is not None:
            small.unwanted = True
        if self._held.pop(tag, None) is not None:
            self._refuse(tag, Refused(_GIVEN_UP, retry_after_s=1.0))

    def _abandon_all(self) -> None:
        for tag in [*self._alone, *self._small, *self._held]:
            self._abandon(tag)

    async def _beside(self) -> None:
        """Let verdicts go that nobody asks for."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            now_at_s = trio.current_time()
            for tag in [it for it, held in self._held.items() if held.until_at_s <= now_at_s]:
                del self._held[tag]
                self._refuse(tag, Refused(NOT_ASKED_FOR, code=RefusalCode.LATE))

    # Taking

    def _take(self, message: Message, nursery: trio.Nursery) -> None:
        if isinstance(message, TellVerdicts):
            self._tell_held(message.items)
            return
        if not isinstance(message, Checks):
            raise RemoteProtocolError("not what an asker says in an order of checks")
        self._use_places(len(message.items))
        self.server.tasks += len(message.items)
        self.server.bundles += 1
        if self._flushing is None:
            self._flushing = Flushing(nursery, self._do, CHECKS_MAX, self._dropped)
        for item in message.items:
            if item.tag in self._alone or item.tag in self._small or item.tag in self._held:
                raise RemoteProtocolError("a check has the tag of another one")
            self._begin(item, nursery, self._flushing)

    def _begin(
        self, item: OrderedCheck, nursery: trio.Nursery, flushing: Flushing[SmallCheck]
    ) -> None:
        role, tag, asker = self.server.verify_role, item.tag, self.call.peer
        try:
            asked = read_check(item.asked)
            role.check_willing(asked, asker)
        except (Refused, WireError) as error:
            self._tell(tag, None, self._refusal_of(error))
            return
        until_at_s = trio.current_time() + role.deadline_s(asked)
        small = small_check(role, asked, asker, partial(self._ended_small, tag, until_at_s))
        if small is None:
            self._alone[tag] = scope = trio.CancelScope()
            nursery.start_soon(self._do_alone, tag, asked, until_at_s, scope)
        else:
            self._small[tag] = small
            flushing.add(small)

    # Doing

    async def _do(self, checks: list[SmallCheck]) -> None:
        await check_together(self.server.verify_role, checks, self.call.peer)

    def _dropped(self, small: SmallCheck) -> None:
        """This peer ends: nobody is told."""

    def _ended_small(self, tag: int, until_at_s: float, found: CheckEnd) -> None:
        unwanted = self._small.pop(tag).unwanted
        self._ended_check(tag, found, until_at_s, unwanted=unwanted)

    async def _do_alone(
        self, tag: int, asked: Asked, until_at_s: float, scope: trio.CancelScope
    ) -> None:
        role = self.server.verify_role
        found: CheckEnd = Refused(_GIVEN_UP, retry_after_s=1.0)
        try:
            with scope:
                verdict = await role.verdict_on(asked, self.call.peer)
                role.checked += 1
                found = verdict if asked.check.commit else sign(verdict, role.key)
        except BatonError as error:
            # A failure of this peer is refused: it must not become a verdict against another.
            found = error
        del self._alone[tag]
        self._ended_check(tag, found, until_at_s, unwanted=scope.cancel_called)

    # Telling

    def _ended_check(self, tag: int, found: CheckEnd, until_at_s: float, *, unwanted: bool) -> None:
        if isinstance(found, BatonError):
            self._refuse(tag, found)
        elif not isinstance(found, Verdict):
            self._tell(tag, found.raw, None)
        elif unwanted or self._ended:
            # Nobody will ask for it.
            self._refuse(tag, Refused(_GIVEN_UP, retry_after_s=1.0))
        else:
            role = self.server.verify_role
            held = self._held[tag] = role.held(found, until_at_s)
            self._commitments.append(
                OrderedCommitment(tag=tag, commitment=held.commitment(role.key.peer))
            )
            self.to_write.set()

    def _tell_held(self, items: Sequence[OrderedTelling]) -> None:
        """Tell verdicts that were committed to, under one signature."""
        if any(it.tag in self._alone or it.tag in self._small for it in items):
            raise RemoteProtocolError("a verdict was asked for before its commitment")
        # Of others it was told meanwhile that there is none.
        asked = [it for it in items if it.tag in self._held]
        verdicts = [self._held.pop(it.tag).told(it.shown, it.count) for it in asked]
        signed = sign_many(verdicts, self.server.verify_role.key) if verdicts else ()
        for item, verdict in zip(asked, signed, strict=True):
            self._tell(item.tag, verdict.raw, None)

    def _refuse(self, tag: int, error: BatonError) -> None:
        said = refusal_of(error)
        refusal = OrderRefusal(
            code=said.code, reason=said.reason, retry_after_ms=said.retry_after_ms
        )
        self._tell(tag, None, refusal)

    def _tell(self, tag: int, verdict: bytes | None, refusal: OrderRefusal | None) -> None:
        if not self._ended:
            self._out.append(CheckOutcome(tag=tag, verdict=verdict, refusal=refusal))
            self.to_write.set()

    def _untold(self) -> int:
        return len(self._out) + len(self._commitments)

    def _drain(self, places: int) -> Iterator[Message]:
        commitments, self._commitments = self._commitments, []
        for each in cut((it, 0) for it in commitments):
            yield Commitments(items=tuple(each))
        outcomes = list(self._out)
        self._out.clear()
        for some in cut((it, len(it.verdict or b"")) for it in outcomes):
            yield Verdicts(items=tuple(some), places=places)
            places = 0
        if places:
            yield Places(more=places)


@dataclass(slots=True, kw_only=True)
class CheckServer(ServedOrders[_ServedChecks]):
    """The standing orders of checks that others have here. `on_open` answers an OpenChecks."""

    verify_role: VerifyRole
    peers: Peers

    async def on_open(self, call: TypedCall, message: Message) -> None:
        """Serve one order until its asker closes it."""
        assert isinstance(message, OpenChecks)
        try:
            if not self.verify_role.willing:
                raise Refused("this peer does not verify", code=RefusalCode.NOT_WILLING)
            self._check_room(call.peer, self.peers.view.origins)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        await self._serve(
            _ServedChecks(
                call=call,
                places=self.places_each,
                offended=self.peers.offended,
                standing=self.peers.standing,
                server=self,
            )
        )
