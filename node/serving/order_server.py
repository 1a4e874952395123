"""Serving standing orders: many tasks of one asker in one conversation, each done as a leg is.

An order that breaks gives up its legs as conversations do: what began is finished and kept. A task
that cannot be read or taken is refused by itself, and the others go on.
"""

from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from node.dispatch.handoff import Handoff, LegResult, Relay
from node.dispatch.orders import version_for
from node.engines.interface import Part
from node.serving.done_legs import DoneLeg
from node.serving.infer_role import InferRole
from node.serving.lease import Holder, LegLease
from node.serving.leg_bundle import LegBundle, may_share
from node.serving.leg_server import LegServer, result_of
from node.serving.order_outbox import EndedLeg, OrderOutbox
from node.serving.served_order import ServedOrder, ServedOrders
from node.task.units import streamed_max
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.chain import open_receipts
from wire.compact import opened
from wire.content import PeerId
from wire.counting import count_down, count_up
from wire.errors import (
    BatonError,
    EngineError,
    Malformed,
    Refused,
    RemoteProtocolError,
    StoreError,
    TaskFailed,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode
from wire.message import Message
from wire.order import Bundle, Open, OrderItem
from wire.signed import Signed
from wire.task import Task

# A task that takes longer than this is said to be taken.
TAKEN_AFTER_S = 0.05


@dataclass(slots=True, eq=False)
class _Leg:
    """One task of an order that was taken and has not ended."""

    handoff: Handoff
    deadline_at_s: float
    holder: Holder
    # Whether the asker heard that it was taken.
    told: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class _ServedTasks(ServedOrder):
    """One order of tasks."""

    server: "OrderServer"
    # The version that its asker says it speaks; 0 if it said none.
    speaks: int
    _out: OrderOutbox
    # Tasks that were taken and have not ended, by tag.
    _legs: dict[int, _Leg] = field(default_factory=dict)
    # Set while there are legs of which the asker has not heard.
    _quiet: trio.Event = field(default_factory=trio.Event)

    @property
    def in_use(self) -> int:
        """Its tasks that were taken and have not ended."""
        return len(self._legs)

    def _abandon(self, tag: int) -> None:
        if (leg := self._legs.get(tag)) is not None:
            leg.holder.abandon()

    def _abandon_all(self) -> None:
        for leg in list(self._legs.values()):
            leg.holder.abandon()

    # Taking

    def _take(self, message: Message, nursery: trio.Nursery) -> None:
        if not isinstance(message, Bundle):
            raise RemoteProtocolError("not what an asker says in an order")
        self._take_bundle(message, nursery)

    def _take_bundle(self, bundle: Bundle, nursery: trio.Nursery) -> None:
        self._use_places(len(bundle.items))
        self.server.tasks += len(bundle.items)
        self.server.bundles += 1
        found = opened(bundle.roots, bundle.travelling, Task, self.call.peer)
        now_at_s = trio.current_time()
        given: list[tuple[int, Handoff, float]] = []
        for item, task in zip(bundle.items, found, strict=True):
            if item.tag in self._legs:
                raise RemoteProtocolError("a task has the tag of another one")
            try:
                handoff = _handoff_of(item, task, self.call.peer, self.speaks)
            except (Refused, WireError) as error:
                self._refuse(item.tag, error)
            else:
                given.append((item.tag, handoff, now_at_s + item.deadline_ms / 1000))
        self._begin(given, nursery)

    def _begin(self, given: Sequence[tuple[int, Handoff, float]], nursery: trio.Nursery) -> None:
        """Have tasks done, each by its tag, with its deadline."""
        legs = self.server.legs
        # By role: those that can be done together.
        together: dict[int, LegBundle] = {}
        taken = legs.take_each([(handoff, at_s) for _, handoff, at_s in given], self.call.peer)
        for (tag, handoff, deadline_at_s), lease in zip(given, taken, strict=True):
            if isinstance(lease, Refused):
                self._refuse(tag, lease)
                continue
            self._legs[tag] = leg = _Leg(handoff, deadline_at_s, Holder(self.call.peer))
            leg.holder.waits_for(lease.abandon)
            role = lease.role
            if isinstance(role, InferRole) and may_share(legs, handoff, lease):
                some = together.get(id(role))
                if some is None:
                    some = together[id(role)] = LegBundle(legs, self.call.peer, role)
                some.add(handoff, lease, deadline_at_s, partial(self._done, nursery, tag, leg))
            else:
                nursery.start_soon(self._do, tag, leg, lease)
        for some in together.values():
            nursery.start_soon(some.run)
        self._quiet.set()

    def _done(
        self, nursery: trio.Nursery, tag: int, leg: _Leg, found: DoneLeg | BatonError
    ) -> None:
        """Take in what came of a leg that was done with others."""
        if isinstance(found, BatonError):
            self._end_task(tag, leg, found)
        elif leg.handoff.is_last:
            self._end_task(tag, leg, result_of(leg.handoff, found))
        else:
            nursery.start_soon(self._go_on, tag, leg, found)

    def _end_task(self, tag: int, leg: _Leg, found: LegResult | BatonError) -> None:
        del self._legs[tag]
        if isinstance(found, BatonError):
            self._refuse(tag, found)
            return
        receipt, *later = found.receipts[leg.handoff.stage :]
        self._tell(EndedLeg(tag, receipt, found.output, None, tuple(later), found.source))

    # Doing

    async def _do(self, tag: int, leg: _Leg, lease: LegLease) -> None:
        """Do a leg by itself, and have those after it done."""
        legs, relay = self.server.legs, self._relay_of(tag, leg)
        try:
            await self._ended_by(
                tag, leg, legs.serve(leg.handoff, lease, leg.holder, relay, leg.deadline_at_s)
            )
        finally:
            lease.release()

    async def _go_on(self, tag: int, leg: _Leg, done: DoneLeg) -> None:
        """Have the legs done that come after one that is done."""
        legs, relay = self.server.legs, self._relay_of(tag, leg)
        await self._ended_by(
            tag, leg, legs.go_on(leg.handoff, done, leg.holder, relay, leg.deadline_at_s)
        )

    async def _ended_by(self, tag: int, leg: _Leg, work: Awaitable[LegResult]) -> None:
        holders, peer = self.server.legs.holders, self.call.peer
        count_up(holders, peer)
        try:
            found = await work
        except (
            *(Refused, EngineError, StoreError, TaskFailed),
            *(TransportError, WireError, RemoteProtocolError),
        ) as error:
            self._end_task(tag, leg, error)
        else:
            self._end_task(tag, leg, found)
        finally:
            count_down(holders, peer)

    def _relay_of(self, tag: int, leg: _Leg) -> Relay:
        units_max = streamed_max(leg.handoff.task.record.stages[-1])

        async def relay(part: Part) -> None:
            if part.position + part.units == units_max:
                # The last piece is not told: the outcome has it, and follows at once.
                return
            while self._out.is_full and not self._ended:
                await self._room.wait()
            if not self._ended:
                leg.told = True
                self._out.add_piece(tag, part)
                self.to_write.set()

        return relay

    def _refuse(self, tag: int, error: BatonError) -> None:
        self._tell(EndedLeg(tag, None, None, self._refusal_of(error)))

    def _tell(self, outcome: EndedLeg) -> None:
        if not self._ended:
            self._out.ended(outcome)
            self.to_write.set()

    # Writing

    def _untold(self) -> int:
        return len(self._out)

    def _drain(self, places: int) -> Iterator[Message]:
        return self._out.drain(places)

    async def _beside(self) -> None:
        """Say of tasks that are not done at once that they were taken."""
        while True:
            await self._quiet.wait()
            self._quiet = trio.Event()
            await trio.sleep(TAKEN_AFTER_S)
            for tag, leg in self._legs.items():
                if not leg.told:
                    leg.told = True
                    self._out.took(tag)
                    self.to_write.set()


@dataclass(slots=True, kw_only=True)
class OrderServer(ServedOrders[_ServedTasks]):
    """The standing orders of others at this peer. `on_open` answers an Open."""

    legs: LegServer

    async def on_open(self, call: TypedCall, message: Message) -> None:
        """Serve one order until its asker closes it."""
        assert isinstance(message, Open)
        peers = self.legs.dispatcher.directory.peers
        try:
            if not self.legs.taking:
                raise Refused("this peer is leaving", code=RefusalCode.LEAVING)
            self._check_room(call.peer, peers.view.origins)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        # Receipts may travel under one signature if the asker says that it reads them so.
        signer = self.legs.key.peer if message.speaks >= limits.BUNDLES_VERSION else None
        order = _ServedTasks(
            call=call,
            places=self.places_each,
            offended=peers.offended,
            standing=peers.standing,
            server=self,
            speaks=message.speaks,
            _out=OrderOutbox(signer),
        )
        await self._serve(order)


def _handoff_of(
    item: OrderItem, task: Signed[Task] | WireError, giver: PeerId, speaks: int
) -> Handoff:
    """A task that came by an order of `giver`; Refused or WireError if it may not."""
    if isinstance(task, WireError):
        raise task
    before = open_receipts(task, item.receipts) if item.receipts else ()
    if (before[-1] if before else task).signer != giver:
        raise Refused(
            "a standing order takes the tasks of who opened it, and those of which it did the leg"
            " before",
            code=RefusalCode.NOT_WILLING,
        )
    stages = task.record.stages
    if len(before) == len(stages):
        raise Malformed("a task of which every leg is done")
    if speaks < limits.LEGS_VERSION <= version_for(stages):
        raise Refused(
            "a standing order takes tasks of one leg that runs a model, unless who opened it"
            f" speaks version {limits.LEGS_VERSION}",
            code=RefusalCode.UNSUPPORTED,
        )
    return Handoff(
        task=task,
        receipts=tuple(before),
        input=item.input,
        units=item.units,
        lane=item.lane,
    )
