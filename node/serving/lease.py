"""A leg that was taken: the role that does it, its place there, and whether it is still wanted."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import trio

from node.dispatch.handoff import Handoff
from node.paying.till import Seat
from node.serving.admission import LONG_S
from node.serving.queue_slot import GivenUp, QueueSlot, SlotStage
from node.serving.role import LegRole, LegWork
from node.task.units import units_of
from p2p.typed_call import TypedCall
from wire.content import PeerId
from wire.errors import BatonError, Refused, RemoteProtocolError, TransportError
from wire.kinds import RefusalCode
from wire.operations import GENERATE

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Holder:
    """Who offered a task. The end of `call` gives the leg up that is under way.

    None for a task of a standing order, which has many: who serves it calls `abandon`.
    """

    peer: PeerId
    call: TypedCall | None = None
    # Whether it waits no more, and what is told then.
    gone: bool = False
    _give_up: Callable[[], None] | None = None

    def waits_for(self, give_up: Callable[[], None]) -> None:
        """Note what is under way for it now: `give_up` is called if it waits no more."""
        self._give_up = give_up
        if self.gone:
            give_up()

    def abandon(self) -> None:
        """The holder waits for its task no more."""
        self.gone = True
        if self._give_up is not None:
            self._give_up()


@dataclass(slots=True)
class LegLease:
    """A leg that was taken: the role that does it, and its place in the role's queue."""

    role: LegRole
    # Under which it, and its output, are found again.
    leg_key: bytes
    job_key: bytes
    place: QueueSlot | None = None
    # Whether nothing can have been done of it since it was taken: it begins in the same moment.
    fresh: bool = False
    # What is held for it, where it is paid for.
    seat: Seat | None = None
    _stop: Callable[[], None] | None = None
    _generates: bool = False
    # How many others wait for it, and whether the one for whom it is done waits no more.
    _followers: int = 0
    _forsaken: bool = False

    @property
    def expected_s(self) -> float:
        return self.place.expected_s if self.place is not None else 0.0

    def admit(self, handoff: Handoff, by: PeerId, deadline_at_s: float) -> None:
        """Refused if it cannot be done in time."""
        work = LegWork(
            stage=handoff.leg,
            asker=handoff.task.signer,
            by=by,
            # The whole leg counts: progress of another peer has not been checked yet.
            units=units_of(handoff.leg, handoff.input, handoff.units),
            left_s=deadline_at_s - trio.current_time(),
            lane=handoff.lane,
        )
        self._generates = handoff.leg.operation == GENERATE
        self.place = self.role.admit(work)
        self.place.on_refusal = self._stop

    def watched_by(self, stop: Callable[[], None]) -> None:
        """Have `stop` called once when its place is given up, by whomever."""
        assert self.place is not None
        self._stop = self.place.on_refusal = stop
        if self.place.refusal is not None:
            stop()

    async def unless_abandoned(
        self, holder: Holder, deadline_at_s: float, work: Callable[[], Awaitable[T]]
    ) -> T:
        """What `work` gives; it is cancelled, with Refused, when the place is given up or too late.

        The place is given up if the holder disconnects before the leg began. A leg that began is
        finished, in case the holder returns, unless it would keep the engine from others for long.
        A generation ends at once: others need its slot, and another peer can continue its stream.
        """
        found: T | BatonError | None = None
        with trio.CancelScope(deadline=deadline_at_s) as scope:
            self._stop = scope.cancel
            if self.place is not None:
                self.place.on_refusal = self._stop
                if self.place.refusal is not None:
                    self._stop()
            if holder.call is None:
                found = await self._done(work)
            else:
                async with self._watched(holder.call):
                    found = await self._done(work)
        self._stop = None
        if isinstance(found, BatonError):
            raise found
        if self.place is not None and self.place.refusal is not None:
            raise self.place.refusal
        if found is None:
            raise Refused("the deadline passed while the leg was under way", code=RefusalCode.LATE)
        return found

    async def _done(self, work: Callable[[], Awaitable[T]]) -> T | BatonError:
        try:
            found = await work()
        except BatonError as error:
            return error
        if self.place is not None:
            # The leg is done: a later disconnect does not matter.
            self.place.stage = SlotStage.DONE
        return found

    @asynccontextmanager
    async def _watched(self, call: TypedCall) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, call)
            yield
            nursery.cancel_scope.cancel()

    async def _watch(self, call: TypedCall) -> None:
        """Give the leg up if the holder disconnects; it sends nothing until it is answered."""
        try:
            await call.channel.receive()
        except (TransportError, RemoteProtocolError):
            self.abandon()

    def abandon(self) -> None:
        """Give the leg up, as `unless_abandoned` says: its holder waits for it no more."""
        self._forsaken = True
        if self._followers:
            return
        place = self.place
        if place is None or place.stage is SlotStage.DONE or place.refusal is not None:
            return
        if self.seat is not None and place.stage is SlotStage.BEGUN:
            self.seat.abandoned = True
        if self._generates or place.cost_s > LONG_S or place.stage is not SlotStage.BEGUN:
            gone = Refused("given up: the peer that offered it disconnected", retry_after_s=1.0)
            place.stage = GivenUp(gone)
            if self._stop is not None:
                self._stop()

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """Within this block somebody else waits for the leg too: it is not given up."""
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1
            if self._forsaken:
                self.abandon()

    def release(self) -> None:
        """It has ended: its place is another's."""
        if self.seat is not None:
            self.seat.close()
        # What would have stopped it knows the leg, which knows this lease: all of a task would
        # lie there until the collector comes, after hundreds of others.
        self._stop = None
        if self.place is not None:
            self.place.on_refusal = None
            self.role.dequeue(self.place)


@asynccontextmanager
async def followed(
    lease: LegLease | None, holder: Holder, scope: trio.CancelScope
) -> AsyncIterator[None]:
    """Within this block `holder` waits for a leg of another; `scope` ends when it does no more."""

    async def watch(call: TypedCall) -> None:
        try:
            await call.channel.receive()
        except (TransportError, RemoteProtocolError):
            scope.cancel()

    with nullcontext() if lease is None else lease.wanted():
        async with trio.open_nursery() as nursery:
            if holder.call is not None:
                nursery.start_soon(watch, holder.call)
            yield
            nursery.cancel_scope.cancel()
