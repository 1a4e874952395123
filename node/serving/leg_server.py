"""Serving legs: takes an offered handoff, does its leg once, signs for it, and hands it on.

Every step is idempotent by id: the same leg of the same task asked twice, or by two holders at
once, is done once and gives the same receipt, also after a restart.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from node.dispatch.dispatcher import Dispatcher
from node.dispatch.handoff import Handoff, LegResult, Relay
from node.dispatch.progress import StreamProgress
from node.dispatch.resuming import reads_segments
from node.paying.till import GivenBy, Till
from node.serving.done_legs import DoneLeg, DoneLegs, job_key_of, leg_key_of
from node.serving.finishing import FinishedLeg, Finishing, readable, receipt_of, shares_signature
from node.serving.infer_role import InferRole
from node.serving.lease import Holder, LegLease, followed
from node.serving.leg_input import input_of
from node.serving.role import Done, LegInput, LegRole, nowhere
from node.serving.running_leg import RunningLeg
from node.serving.segment_signing import SegmentSigning
from node.task.events import EventSink
from node.task.units import streamed_max, units_of
from p2p.adverts import Environment
from p2p.blobs import Blobs
from store import Store
from wire import limits
from wire.chain import source_of
from wire.content import PeerId
from wire.errors import BatonError, Refused
from wire.kinds import RefusalCode, Role
from wire.signing import SigningKey

# Legs under way at once; the engine's own slots bound inference further.
LEGS_AT_ONCE = 128
# A holder in the middle that knows no peer for the next leg gives the handoff back after this.
PATIENCE_S = 3.0
# A leg that ended while it was waited for is offered again after this.
FAILED_RETRY_S = 0.25
# An owner who came back rarely leaves within 30 s: suggest no earlier retry.
PAUSED_RETRY_S = 30.0


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
    # What this peer asks for legs; None where they are free.
    till: Till | None = None
    # False once the peer is leaving: running legs are finished, no new ones are taken.
    taking: bool = True
    # Why no legs are taken for now, in words; empty unless the machine's owner needs it.
    paused: str = ""
    done: int = 0
    # By leg key: legs that are being done.
    running: dict[bytes, RunningLeg] = field(default_factory=dict)
    # Legs under way of each holder.
    holders: Counter[PeerId] = field(default_factory=Counter)
    before: DoneLegs = field(init=False)
    finishing: Finishing = field(init=False)

    def __post_init__(self) -> None:
        self.before = DoneLegs(self.store)
        self.finishing = Finishing(self.key, self.store, self.before, self.environment.wall_s)

    @property
    def under_way(self) -> int:
        """Handoffs held: legs that are being done here, or by others for us."""
        return self.holders.total()

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
        return self.role_of(handoff.leg.role)

    def role_of(self, kind: Role) -> LegRole:
        """The role of this kind; Refused if none takes legs now."""
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
        if self.till is not None:
            begun = handoff.begun_units
            task, leg, data = handoff.task, handoff.leg, handoff.input
            done = [it.signer for it in handoff.receipts]
            given_by = GivenBy.of(by, self.key.peer, task.signer, done)
            lease.seat = self.till.seat(task, leg, data, handoff.units, begun, given_by=given_by)
        if not known and leg_key not in self.running:
            try:
                lease.admit(handoff, by, deadline_at_s)
            except Refused:
                lease.release()
                raise
        return lease

    def _take_own(self, onward: Handoff, by: PeerId, deadline_at_s: float) -> LegLease | None:
        """The next leg, if we can do it ourselves: that saves a hop."""
        if self.key.peer in onward.avoid:
            return None
        try:
            return self.take(onward, by, deadline_at_s)
        except Refused:
            return None

    async def serve(
        self, handoff: Handoff, lease: LegLease, holder: Holder, relay: Relay, deadline_at_s: float
    ) -> LegResult:
        """Do the leg, and have the legs after it done."""
        holder.waits_for(lease.abandon)
        leg = await self.do_once(
            handoff, lease, holder, relay if handoff.is_last else nowhere, deadline_at_s
        )
        lease.release()
        return await self.go_on(handoff, leg, holder, relay, deadline_at_s)

    async def go_on(
        self, handoff: Handoff, leg: DoneLeg, holder: Holder, relay: Relay, deadline_at_s: float
    ) -> LegResult:
        """What a task comes to after a leg that was done here: the legs after it are had done."""
        here = result_of(handoff, leg)
        if handoff.is_last:
            return here
        inline, stages = here.output, handoff.task.record.stages
        onward = Handoff(
            task=handoff.task,
            receipts=here.receipts,
            input=inline,
            units=units_of(stages[handoff.stage + 1], inline, leg.receipt.record.units),
            resume=handoff.resume,
            avoid=handoff.avoid,
        )
        if (own := self._take_own(onward, holder.peer, deadline_at_s)) is not None:
            try:
                found = await self.serve(onward, own, holder, relay, deadline_at_s)
            finally:
                own.release()
        else:
            found = await self._handed_on(onward, holder, relay, deadline_at_s)
        return replace(found, source=inline) if onward.is_last else found

    async def _handed_on(
        self, onward: Handoff, holder: Holder, relay: Relay, deadline_at_s: float
    ) -> LegResult:
        with trio.CancelScope() as scope:
            holder.waits_for(scope.cancel)
            return await self.dispatcher.hand_on(
                onward,
                self.on_event,
                relay,
                deadline_at_s=deadline_at_s,
                patience_s=PATIENCE_S,
                shown=StreamProgress.after(onward.resume),
            )
        raise Refused("given up: nobody waits for it any more", retry_after_s=1.0)

    async def do_once(
        self, handoff: Handoff, lease: LegLease, holder: Holder, relay: Relay, deadline_at_s: float
    ) -> DoneLeg:
        """Do the leg, or wait for it if it is running, or find it done."""
        leg_key = lease.leg_key
        begun = False
        if leg_key in self.running:
            lease.fresh = False
            told = self._told(handoff, lease, holder, relay)
            while (running := self.running.get(leg_key)) is not None:
                begun |= await self._follow(running, handoff, lease, holder, told, deadline_at_s)
        if not lease.fresh and (found := await self.before.found(handoff)) is not None:
            return found
        if begun and await self.before.reusable(lease.job_key) is None:
            # It goes on best from what was shown meanwhile, which only its holder knows.
            raise Refused("the leg ended before it was done", retry_after_s=FAILED_RETRY_S)
        running = self.running[leg_key] = RunningLeg(lease, handoff.resume)
        try:
            return await self._do(handoff, lease, holder, relay, deadline_at_s)
        finally:
            del self.running[leg_key]
            running.end()

    async def _follow(
        self,
        running: RunningLeg,
        handoff: Handoff,
        lease: LegLease,
        holder: Holder,
        told: Relay,
        deadline_at_s: float,
    ) -> bool:
        """Wait for the end of a leg that is under way; whether something of it was passed on.

        It is not given up while somebody waits here, whoever offered it first.
        """
        done = running.lease
        same = handoff.is_last and done is not None and done.job_key == lease.job_key
        found: bool | BatonError | None = None
        with trio.CancelScope(deadline=deadline_at_s) as scope:
            holder.waits_for(scope.cancel)
            async with followed(done, holder, scope):
                try:
                    found = same and await running.follow(handoff.resume, told)
                    await running.ended.wait()
                except BatonError as error:
                    found = error
        holder.waits_for(lease.abandon)
        if isinstance(found, BatonError):
            raise found
        if running.ended.is_set():
            return bool(found)
        if trio.current_time() < deadline_at_s:
            raise Refused("given up: nobody waits for it any more", retry_after_s=1.0)
        raise Refused(
            "the deadline passed while the leg was under way for another holder",
            code=RefusalCode.LATE,
        )

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
            data = await input_of(self.blobs, handoff, source_id, holders, left_s)
            if lease.seat is not None:
                lease.seat.cover(data)
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
            told = self._told(handoff, lease, holder, relay)
            if handoff.is_last and streamed_max(handoff.leg) > 1:
                told = self.running[lease.leg_key].heard_by(told)
            return await lease.role.do(handoff.leg, source, told)

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
        if lease.seat is not None:
            lease.seat.charge(receipt, handoff.input, done.data)
        return DoneLeg(signed, done.data)

    def _told(self, handoff: Handoff, lease: LegLease, holder: Holder, relay: Relay) -> Relay:
        """A relay that signs, and that waits for what is paid."""
        told = self._signed(handoff, lease, holder, relay)
        return told if lease.seat is None else lease.seat.paced(told)

    def _signed(self, handoff: Handoff, lease: LegLease, holder: Holder, relay: Relay) -> Relay:
        """A relay that has a stream signed as it goes, where its asker hears it from here."""
        role, model = lease.role, handoff.leg.model
        is_heard = handoff.is_alone and holder.peer == handoff.task.signer
        if not is_heard or model is None or not isinstance(role, InferRole):
            return relay
        if streamed_max(handoff.leg) <= 1 or (loaded := role.engine.ready(model)) is None:
            return relay
        peers, wall_s = self.dispatcher.directory.peers, self.environment.wall_s
        reads = partial(reads_segments, peers, holder.peer)
        return SegmentSigning(self.key, handoff, loaded.profile, wall_s, reads).signing(relay)


def result_of(handoff: Handoff, leg: DoneLeg) -> LegResult:
    """What a task came to so far with a leg that was done here; a large output is not in it."""
    inline = leg.output if len(leg.output) <= limits.INLINE_BYTES_MAX else None
    return LegResult(receipts=(*handoff.receipts, leg.receipt), output=inline, source=None)
