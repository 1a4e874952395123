"""Serving standing orders: many tasks of one asker in one conversation, each done as a leg is.

An order that breaks gives up its legs as conversations do: what began is finished and kept. A task
that cannot be read or taken is refused by itself, and the others go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from node.dispatch.handoff import Handoff
from node.dispatch.order_tags import OrderFigures
from node.engines.interface import Part
from node.serving.done_legs import DoneLeg
from node.serving.infer_role import InferRole
from node.serving.lease import Holder, LegLease
from node.serving.leg_bundle import LegBundle, may_share
from node.serving.leg_server import LegServer
from node.serving.order_outbox import EndedLeg, OrderOutbox
from node.task.flushing import grown
from node.task.units import streamed_max
from p2p.score import Offence, Standing
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
    Close,
    Open,
    Opened,
    OrderRefusal,
    Withdraw,
)
from wire.signed import Signed
from wire.task import Task

# Places of all orders together, and of one order: below the bound on the waiting jobs of one asker,
# so that no task of an order is refused for being one too many.
PLACES = 64
PLACES_PER_ORDER = 40
# The least of an order, and the most while there are others: below a holder's share of the queue.
PLACES_MIN = 4
PLACES_BESIDE_OTHERS = 12
# Orders at once, and of one asker: one that stands, and one whose asker reconnected or renews it.
ORDERS_MAX = 64
ORDERS_PER_ASKER = 2
# A task that takes longer than this is said to be taken.
TAKEN_AFTER_S = 0.05
# An order without a task for so long is ended. Askers end theirs sooner.
IDLE_S = 30.0


@dataclass(slots=True, eq=False)
class _Leg:
    """One task of an order that was taken and has not ended."""

    lease: LegLease
    # Whether the asker heard that it was taken.
    told: bool = False


@dataclass(slots=True)
class OrderServer:
    """The standing orders of others at this peer. `on_open` answers an Open."""

    legs: LegServer
    # Tasks that came by orders, in how many bundles.
    tasks: int = 0
    bundles: int = 0
    _orders: list["_ServedOrder"] = field(default_factory=list)

    @property
    def standing(self) -> int:
        """Orders that stand now."""
        return len(self._orders)

    @property
    def places_each(self) -> int:
        """The places that one order may have now."""
        count = len(self._orders)
        if count <= 1:
            return PLACES_PER_ORDER
        return max(PLACES_MIN, min(PLACES_BESIDE_OTHERS, PLACES // count))

    def figures(self) -> OrderFigures:
        """What the orders of others here are, and were."""
        return OrderFigures(
            open=self.standing,
            tasks=self.tasks,
            bundles=self.bundles,
            in_use=sum(it.in_use for it in self._orders),
            free=sum(it.credit for it in self._orders),
        )

    async def on_open(self, call: TypedCall, message: Message) -> None:
        """Serve one order until its asker closes it."""
        assert isinstance(message, Open)
        try:
            self._check_room(call.peer)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        # Receipts may travel under one signature if the asker says that it reads them so.
        signer = self.legs.key.peer if message.speaks >= limits.BUNDLES_VERSION else None
        order = _ServedOrder(self, call, OrderOutbox(signer))
        self._orders.append(order)
        self._share()
        try:
            await order.run()
        finally:
            self._orders.remove(order)
            self._share()

    def _check_room(self, asker: PeerId) -> None:
        if not self.legs.taking:
            raise Refused("this peer is leaving", code=RefusalCode.LEAVING)
        own = sum(it.call.peer == asker for it in self._orders)
        if own >= ORDERS_PER_ASKER or len(self._orders) >= ORDERS_MAX:
            raise Refused("too many standing orders here", retry_after_s=1.0)

    def _share(self) -> None:
        """Have each order look how many places it may have now."""
        for order in self._orders:
            order.to_write.set()


@dataclass(slots=True, eq=False)
class _ServedOrder:
    """One order, from its Open to its end."""

    server: OrderServer
    call: TypedCall
    _out: OrderOutbox
    to_write: trio.Event = field(default_factory=trio.Event)
    _legs: dict[int, _Leg] = field(default_factory=dict)
    # Tasks that the asker may still send, and how many it sent so far.
    credit: int = 0
    _tasks: int = 0
    # Set while there are legs of which the asker has not heard.
    _untold: trio.Event = field(default_factory=trio.Event)
    _room: trio.Event = field(default_factory=trio.Event)
    # Set when nothing may be said any more.
    _closed: bool = False
    _ended: bool = False
    _error: BatonError | None = None

    @property
    def in_use(self) -> int:
        """Its tasks that were taken and have not ended."""
        return len(self._legs)

    async def run(self) -> None:
        """Take tasks and tell outcomes; legs that began are finished before it returns."""
        self.credit = self.server.places_each
        await self.call.send(Opened(places=self.credit))
        talking = trio.CancelScope()
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                with talking:
                    async with trio.open_nursery() as talkers:
                        talkers.start_soon(self._write)
                        talkers.start_soon(self._acknowledge)
                        await self._read(nursery)
                        talkers.cancel_scope.cancel()
                self._end()

            nursery.start_soon(talk)
        if self._error is not None:
            raise self._error

    def _end(self) -> None:
        """Nobody hears of what becomes of the legs any more."""
        self._ended = True
        self._room.set()
        for leg in list(self._legs.values()):
            leg.lease.abandon()

    # Reading

    async def _read(self, nursery: trio.Nursery) -> None:
        try:
            while (message := await self._next()) is not None:
                match message:
                    case Bundle():
                        self._take(message, nursery)
                    case Withdraw():
                        for tag in message.unwanted:
                            # The outcome may be on its way to an asker that no longer waits.
                            if (leg := self._legs.get(tag)) is not None:
                                leg.lease.abandon()
                    case Close():
                        self._closed = True
                        if message.tasks != self._tasks or self._legs:
                            raise RemoteProtocolError("an order was closed before its tasks ended")
                        return
                    case _:
                        raise RemoteProtocolError("not what an asker says in an order")
        except (TransportError, WireError, RemoteProtocolError) as error:
            self._error = error

    async def _next(self) -> Message | None:
        """The asker's next message; None if the order is over, which the asker was told."""
        message = None
        while message is None:
            with trio.move_on_after(IDLE_S):
                message = await self.call.receive()
            if message is None and not self._legs:
                await self._finish(Refused("no task came for a while", retry_after_s=0.0))
                return None
        peers = self.server.legs.dispatcher.directory.peers
        if peers.standing(self.call.peer) is Standing.BANNED:
            why = "you are banned here for what you did"
            await self._finish(Refused(why, code=RefusalCode.BANNED))
            return None
        return message

    async def _finish(self, why: Refused) -> None:
        self._closed = True
        await self.call.send(refusal_of(why))

    def _take(self, bundle: Bundle, nursery: trio.Nursery) -> None:
        if len(bundle.items) > self.credit:
            raise RemoteProtocolError("more tasks were sent than there were places")
        self.credit -= len(bundle.items)
        self._tasks += len(bundle.items)
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
        self._untold.set()

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
        if isinstance(error, WireError | RemoteProtocolError):
            # Its task or its input is not what it says: that is the asker's own.
            self.server.legs.dispatcher.directory.peers.offended(self.call.peer, Offence.MALFORMED)
        said = refusal_of(error)
        refusal = OrderRefusal(
            code=said.code, reason=said.reason, retry_after_ms=said.retry_after_ms
        )
        self._tell(EndedLeg(tag, None, None, refusal))

    def _tell(self, outcome: EndedLeg) -> None:
        if not self._ended:
            self._out.ended(outcome)
            self.to_write.set()

    # Writing

    async def _write(self) -> None:
        """Tell what there is, as much at once as comes together."""
        try:
            while True:
                await self.to_write.wait()
                await grown(lambda: len(self._out), limits.BUNDLE_ITEMS_MAX)
                self.to_write = trio.Event()
                for message in self._out.drain(self._places_back()):
                    if self._closed:
                        return
                    await self.call.send(message)
                self._room.set()
                self._room = trio.Event()
        except TransportError as error:
            # Whoever reads hears of it too, and ends the order.
            self._error = self._error or error

    def _places_back(self) -> int:
        free = self.server.places_each - self.credit - len(self._legs)
        self.credit += max(0, free)
        return max(0, free)

    async def _acknowledge(self) -> None:
        """Say of tasks that are not done at once that they were taken."""
        while True:
            await self._untold.wait()
            self._untold = trio.Event()
            await trio.sleep(TAKEN_AFTER_S)
            for tag, leg in self._legs.items():
                if not leg.told:
                    leg.told = True
                    self._out.took(tag)
                    self.to_write.set()


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
