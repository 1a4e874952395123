"""Serving legs: takes an offered handoff, does its leg once, signs for it, and hands it on.

Every step is idempotent by id: the same leg of the same task asked twice, or by two holders at
once, is done once and gives the same receipt, also after a restart.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import trio

from node.dispatch.dispatcher import Dispatcher
from node.dispatch.handoff import Handoff, Relay
from node.dispatch.progress import StreamProgress
from node.engines.interface import Part
from node.serving.done_legs import DoneLeg, DoneLegs, job_key_of, leg_key_of
from node.serving.finishing import FinishedLeg, Finishing, readable, receipt_of, shares_signature
from node.serving.lease import Holder, LegLease
from node.serving.role import Done, LegInput, LegRole, LegWork, nowhere
from node.task.events import EventSink
from node.task.units import streamed_max, units_of
from p2p.adverts import Environment
from p2p.blobs import Blobs
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refusal_of
from store import Store
from wire import limits
from wire.chain import open_receipts, source_of
from wire.content import ContentId, PeerId
from wire.counting import counted
from wire.errors import (
    EngineError,
    Malformed,
    Refused,
    RemoteProtocolError,
    StoreError,
    TaskFailed,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode, Role
from wire.message import Accept, Message, Offer, Piece, Quote, Quoted, Result
from wire.signed import open_signed
from wire.signing import SigningKey
from wire.task import Stage, Task
from wire.tree import name_of

# Legs under way at once; the engine's own slots bound inference further.
LEGS_AT_ONCE = 128
# A holder in the middle that knows no peer for the next leg gives the handoff back after this.
PATIENCE_S = 3.0
INPUT_BYTES_MAX = 16 << 20
# An owner who came back rarely leaves within 30 s: suggest no earlier retry.
PAUSED_RETRY_S = 30.0
INPUT_DEADLINE_S = 15.0
# The most legs of one holder, so that there is room for other holders.
LEGS_PER_HOLDER = 48


@dataclass(slots=True)
class LegServer:
    """Does legs for others, each by the role that plays it."""

    key: SigningKey
    environment: Environment
    store: Store
    blobs: Blobs
    dispatcher: Dispatcher
    roles: Mapping[Role, LegRole]
    on_event: EventSink
    # In words, whose clock is the odd one: how far theirs is ahead of ours, and what it is called.
    whose_clock: Callable[[float, str], str]
    # False once the peer is leaving: running legs are finished, no new ones are taken.
    taking: bool = True
    # Why no legs are taken for now, in words; empty unless the machine's owner needs it.
    paused: str = ""
    done: int = 0
    # By leg key: legs that are being done, and when that has ended.
    running: dict[bytes, trio.Event] = field(default_factory=dict)
    # Legs under way of each holder.
    holders: Counter[PeerId] = field(default_factory=Counter)
    before: DoneLegs = field(init=False)
    finishing: Finishing = field(init=False)

    def __post_init__(self) -> None:
        self.before = DoneLegs(self.store)
        self.finishing = Finishing(self.key, self.store, self.before)

    @property
    def under_way(self) -> int:
        """Handoffs held: legs that are being done here, or by others for us."""
        return self.holders.total()

    async def on_offer(self, call: TypedCall, message: Message) -> None:
        """Answer an Offer: accept and deliver, or refuse."""
        assert isinstance(message, Offer)
        task = open_signed(message.task, Task)
        receipts = open_receipts(task, message.receipts)
        if len(receipts) != message.stage or message.stage >= len(task.record.stages):
            raise RemoteProtocolError("the offer has not a receipt for each leg before it")
        shown_units = message.resume.units if message.resume is not None else 0
        if shown_units > streamed_max(task.record.stages[-1]):
            raise RemoteProtocolError("more was shown than the last leg has")
        handoff = Handoff(
            task=task,
            receipts=tuple(receipts),
            input=message.input,
            units=message.units,
            resume=message.resume,
            avoid=frozenset(message.avoid),
        )
        deadline_at_s = trio.current_time() + message.deadline_ms / 1000
        try:
            if self.holders[call.peer] >= LEGS_PER_HOLDER:
                raise Refused("too many legs of yours under way", retry_after_s=0.5)
            lease = self.take(handoff, call.peer, deadline_at_s)
        except Refused as error:
            await call.send(refusal_of(error))
            return

        there = True

        async def relay(part: Part) -> None:
            nonlocal there
            try:
                if there:
                    piece = Piece(position=part.position, units=part.units, data=part.data)
                    await call.send(piece)
            except TransportError:
                # The holder disconnected. The leg is still finished, in case the holder returns.
                there = False

        with counted(self.holders, call.peer):
            try:
                await call.send(Accept(expected_ms=int(lease.expected_s * 1000)))
                holder = Holder(call.peer, call)
                result = await self._serve(handoff, lease, holder, relay, deadline_at_s)
            except (Refused, EngineError, StoreError, TaskFailed, TransportError) as error:
                await call.send(refusal_of(error))
                return
            finally:
                lease.release()
        await call.send(result)

    async def on_quote(self, call: TypedCall, message: Message) -> None:
        """Answer a Quote: how long a leg would take if offered now, or the refusal it would get."""
        assert isinstance(message, Quote)
        try:
            role = self._role_of(message.role)
            if self.holders[call.peer] >= LEGS_PER_HOLDER:
                raise Refused("too many legs of yours under way", retry_after_s=0.5)
            stage = _stage_of(message)
            work = LegWork(
                stage=stage,
                asker=call.peer,
                by=call.peer,
                units=max(1, message.units),
                left_s=message.deadline_ms / 1000,
            )
            expected_s = role.quote(work)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        await call.send(Quoted(expected_ms=int(expected_s * 1000)))

    def _role(self, handoff: Handoff) -> LegRole:
        """The role that will do this leg; Refused if none will."""
        issued_s = handoff.task.record.issued_at_ms / 1000
        wall_s = self.environment.wall_s()
        if issued_s > wall_s + limits.CLOCK_SKEW_S_MAX:
            ahead_s = issued_s - wall_s
            raise Refused(
                f"the task was issued {ahead_s:.0f} s in the future:"
                f" {self.whose_clock(ahead_s, 'the clock of whoever signed it')}",
                code=RefusalCode.CLOCK,
            )
        if issued_s + handoff.task.record.deadline_s + limits.CLOCK_SKEW_S_MAX < wall_s:
            over_s = wall_s - issued_s - handoff.task.record.deadline_s
            # It may have been late, or its clock may be slow: the clocks of others tell.
            clocks = self.whose_clock(-over_s, "if it was sent in time, the clock of its signer")
            raise Refused(
                f"the task's deadline passed {over_s:.0f} s ago; {clocks}", code=RefusalCode.LATE
            )
        return self._role_of(handoff.leg.role)

    def _role_of(self, kind: Role) -> LegRole:
        if not self.taking:
            raise Refused("this peer is leaving", code=RefusalCode.LEAVING)
        if self.paused:
            raise Refused(
                f"this peer is paused: {self.paused}",
                retry_after_s=PAUSED_RETRY_S,
                code=RefusalCode.PAUSED,
            )
        role = self.roles.get(kind)
        if role is None:
            raise Refused(
                f"this peer does not play the role {kind.name.lower()}",
                code=RefusalCode.NOT_WILLING,
            )
        if len(self.running) >= LEGS_AT_ONCE:
            raise Refused("too many legs under way", retry_after_s=0.5)
        return role

    def take(self, handoff: Handoff, by: PeerId, deadline_at_s: float) -> LegLease:
        """Take a leg, with a place in its role's queue if there is work to do; Refused if not."""
        leg_key, job_key = leg_key_of(handoff), job_key_of(handoff)
        known = self.before.knows(handoff, leg_key, job_key)
        return self._take(handoff, by, deadline_at_s, (leg_key, job_key, known))

    def take_each(
        self, offers: Sequence[tuple[Handoff, float]], by: PeerId
    ) -> list[LegLease | Refused]:
        """As `take`, of many legs with their deadlines, which begin in the same moment."""
        legs = [(it, leg_key_of(it), job_key_of(it)) for it, _ in offers]
        taken: list[LegLease | Refused] = []
        for (handoff, deadline_at_s), (_, leg_key, job_key), known in zip(
            offers, legs, self.before.know(legs), strict=True
        ):
            try:
                lease = self._take(handoff, by, deadline_at_s, (leg_key, job_key, known))
                lease.fresh = lease.place is not None
                taken.append(lease)
            except Refused as error:
                taken.append(error)
        return taken

    def _take(
        self, handoff: Handoff, by: PeerId, deadline_at_s: float, kept: tuple[bytes, bytes, bool]
    ) -> LegLease:
        """`kept`: the leg's keys, and whether something is kept under one of them."""
        leg_key, job_key, known = kept
        lease = LegLease(self._role(handoff), leg_key, job_key)
        if not known and leg_key not in self.running:
            lease.admit(handoff, by, deadline_at_s)
        return lease

    def _take_own(self, onward: Handoff, by: PeerId, deadline_at_s: float) -> LegLease | None:
        """The next leg, if we can do it ourselves: that saves a hop."""
        if self.key.peer in onward.avoid:
            return None
        try:
            return self.take(onward, by, deadline_at_s)
        except Refused:
            return None

    async def _serve(
        self, handoff: Handoff, lease: LegLease, holder: Holder, relay: Relay, deadline_at_s: float
    ) -> Result:
        leg = await self.do_once(
            handoff, lease, holder, relay if handoff.is_last else nowhere, deadline_at_s
        )
        lease.release()
        receipts = (*handoff.receipts, leg.receipt)
        inline = leg.output if len(leg.output) <= limits.INLINE_BYTES_MAX else None
        if handoff.is_last:
            raws = tuple(it.raw for it in receipts)
            return Result(receipts=raws, output=inline, source=None)
        stages = handoff.task.record.stages
        onward = Handoff(
            task=handoff.task,
            receipts=receipts,
            input=inline,
            units=units_of(stages[handoff.stage + 1], inline, leg.receipt.record.units),
            resume=handoff.resume,
            avoid=handoff.avoid,
        )
        if (own := self._take_own(onward, holder.peer, deadline_at_s)) is not None:
            try:
                result = await self._serve(onward, own, holder, relay, deadline_at_s)
            finally:
                own.release()
            return replace(result, source=result.source or inline)
        delivered = await self.dispatcher.hand_on(
            onward,
            self.on_event,
            relay,
            deadline_at_s=deadline_at_s,
            patience_s=PATIENCE_S,
            shown=StreamProgress.after(handoff.resume),
        )
        return Result(
            receipts=tuple(it.raw for it in delivered.receipts),
            output=delivered.output,
            source=delivered.source or inline,
        )

    async def do_once(
        self, handoff: Handoff, lease: LegLease, holder: Holder, relay: Relay, deadline_at_s: float
    ) -> DoneLeg:
        """Do the leg, or wait for it if it is running, or find it done."""
        leg_key = lease.leg_key
        if leg_key in self.running:
            lease.fresh = False
            with trio.move_on_at(deadline_at_s) as scope:
                while (running := self.running.get(leg_key)) is not None:
                    await running.wait()
            if scope.cancelled_caught:
                raise Refused(
                    "the deadline passed while the leg was under way for another holder",
                    code=RefusalCode.LATE,
                )
        if not lease.fresh and (found := await self.before.found(handoff)) is not None:
            return found
        self.running[leg_key] = trio.Event()
        try:
            return await self._do(handoff, lease, holder, relay, deadline_at_s)
        finally:
            self.running.pop(leg_key).set()

    async def _do(
        self,
        handoff: Handoff,
        lease: LegLease,
        holder: Holder,
        relay: Relay,
        deadline_at_s: float,
    ) -> DoneLeg:
        source_id = source_of(handoff.task, handoff.receipts, handoff.stage)
        started_at_s, started_wall_s = trio.current_time(), self.environment.wall_s()
        left_s = max(0.0, deadline_at_s - started_at_s)
        # The holder is asked last: it may only pass on another's handoff, and not have the input.
        holders = (
            *(it.signer for it in reversed(handoff.receipts)),
            handoff.task.signer,
            holder.peer,
        )
        reused: Done | None = None

        async def work() -> Done:
            nonlocal reused
            data = await self._input(handoff, source_id, holders, left_s)
            if handoff.leg.role is Role.INFER and not lease.fresh:
                reused = await self.before.reusable(lease.job_key)
                if reused is not None:
                    return reused
            if lease.place is None:
                # No place was taken: the leg was thought to be done or running already.
                lease.admit(handoff, holder.peer, deadline_at_s)
            source = LegInput(
                id=source_id,
                data=data,
                holders=holders,
                deadline_s=left_s,
                resume=handoff.resume if handoff.is_last else None,
                place=lease.place,
            )
            return await lease.role.do(handoff.leg, source, relay)

        done = await lease.unless_abandoned(holder, deadline_at_s, work)
        receipt = receipt_of(
            handoff,
            await readable(done, self.dispatcher.directory.peers, holder.peer),
            began_wall_s=started_wall_s,
            took_s=trio.current_time() - started_at_s,
            reused=reused is not None,
        )
        shares = holder.call is None and shares_signature(handoff)
        blobs = (done.data, *done.blobs)
        # A receipt is stored before it is sent: a leg has one receipt.
        signed = await self.finishing.finish(
            FinishedLeg(lease.leg_key, lease.job_key, receipt, blobs, shares=shares)
        )
        self.done += 1
        return DoneLeg(signed, done.data)

    async def _input(
        self,
        handoff: Handoff,
        source_id: ContentId | None,
        holders: tuple[PeerId, ...],
        left_s: float,
    ) -> bytes | None:
        if source_id is None:
            return None
        if handoff.input is not None:
            if name_of(handoff.input) != source_id:
                raise Malformed("the input is not the one that the task or the last receipt names")
            return handoff.input
        try:
            return await self.blobs.get(
                source_id,
                holders,
                deadline_s=min(left_s, stretched(INPUT_DEADLINE_S)),
                size_bytes_max=INPUT_BYTES_MAX,
            )
        except WireError as error:
            # The content is too large or no tree: its signer is at fault, not who passes it on.
            raise Refused(
                f"the input cannot be had: {error.message}", code=RefusalCode.NOT_FOUND
            ) from error


def _stage_of(quote: Quote) -> Stage:
    """The stage that is asked about; RemoteProtocolError if no such stage is legal."""
    try:
        return Stage(role=quote.role, operation=quote.operation, model=quote.model, parameters={})
    except WireError as error:
        raise RemoteProtocolError(f"a quote for no stage: {error.message}") from error
