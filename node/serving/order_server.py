"""Serving standing orders: many tasks of one asker in one conversation, each done as a leg is.

An order that breaks gives up its legs as conversations do: what began is finished and kept. A task
that cannot be read or taken is refused by itself, and the others go on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from node.dispatch.handoff import Handoff
from node.engines.interface import Part
from node.serving.done_legs import DoneLeg
from node.serving.infer_role import InferRole
from node.serving.lease import Holder, LegLease
from node.serving.leg_bundle import LegBundle, may_share
from node.serving.leg_server import LegServer
from node.serving.order_outbox import EndedLeg, OrderOutbox
from node.serving.served_order import ServedOrder, ServedOrders
from node.task.units import streamed_max
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.compact import opened
from wire.content import PeerId
from wire.counting import count_down, count_up
from wire.errors import (
    BatonError,
    EngineError,
    Refused,
    RemoteProtocolError,
    StoreError,
    TaskFailed,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode, Role
from wire.message import Message
from wire.order import (
    Bundle,
    Open,
)
from wire.signed import Signed
from wire.task import Task

# A task that takes longer than this is said to be taken.
TAKEN_AFTER_S = 0.05


@dataclass(slots=True, eq=False)
class _Leg:
    """One task of an order that was taken and has not ended."""

    lease: LegLease
    # Whether the asker heard that it was taken.
    told: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class _ServedTasks(ServedOrder):
    """One order of tasks."""

    server: "OrderServer"
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
            leg.lease.abandon()

    def _abandon_all(self) -> None:
        for leg in list(self._legs.values()):
            leg.lease.abandon()

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
                handoff = Handoff(
                    task=_checked(task, self.call.peer),
                    input=item.input,
                    units=item.units,
                    lane=item.lane,
                )
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
            self._legs[tag] = leg = _Leg(lease)
            role = lease.role
            if isinstance(role, InferRole) and may_share(legs, handoff, lease):
                some = together.get(id(role))
                if some is None:
                    some = together[id(role)] = LegBundle(legs, self.call.peer, role)
                some.add(handoff, lease, deadline_at_s, partial(self._ended_leg, tag))
            else:
                nursery.start_soon(self._do, tag, leg, handoff, deadline_at_s)
        for some in together.values():
            nursery.start_soon(some.run)
        self._quiet.set()

    def _ended_leg(self, tag: int, found: DoneLeg | BatonError) -> None:
        del self._legs[tag]
        if isinstance(found, BatonError):
            self._refuse(tag, found)
        else:
            self._tell(_outcome_of(tag, found))

    # Doing

    async def _do(self, tag: int, leg: _Leg, handoff: Handoff, deadline_at_s: float) -> None:
        legs, peer = self.server.legs, self.call.peer
        units_max = streamed_max(handoff.leg)

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

        count_up(legs.holders, peer)
        try:
            done = await legs.do_once(handoff, leg.lease, Holder(peer), relay, deadline_at_s)
        except (
            *(Refused, EngineError, StoreError, TaskFailed),
            *(TransportError, WireError, RemoteProtocolError),
        ) as error:
            self._ended_leg(tag, error)
        else:
            self._ended_leg(tag, done)
        finally:
            count_down(legs.holders, peer)
            leg.lease.release()

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
        try:
            if not self.legs.taking:
                raise Refused("this peer is leaving", code=RefusalCode.LEAVING)
            self._check_room(call.peer)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        # Receipts may travel under one signature if the asker says that it reads them so.
        signer = self.legs.key.peer if message.speaks >= limits.BUNDLES_VERSION else None
        peers = self.legs.dispatcher.directory.peers
        order = _ServedTasks(
            call=call,
            places=self.places_each,
            offended=peers.offended,
            standing=peers.standing,
            server=self,
            _out=OrderOutbox(signer),
        )
        await self._serve(order)


def _outcome_of(tag: int, done: DoneLeg) -> EndedLeg:
    inline = done.output if len(done.output) <= limits.INLINE_BYTES_MAX else None
    return EndedLeg(tag, done.receipt, inline, None)


def _checked(task: Signed[Task] | WireError, asker: PeerId) -> Signed[Task]:
    """A task that may go by an order of `asker`; Refused or WireError for another."""
    if isinstance(task, WireError):
        raise task
    if task.signer != asker:
        raise Refused(
            "a standing order takes the tasks of its own asker", code=RefusalCode.NOT_WILLING
        )
    stages = task.record.stages
    if len(stages) != 1 or stages[0].role is not Role.INFER:
        raise Refused(
            "a standing order takes tasks of one leg that runs a model",
            code=RefusalCode.UNSUPPORTED,
        )
    return task
