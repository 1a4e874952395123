"""What all standing orders of others have here: room for so many, places as credit, and an end.

What is done for one is in `node.serving.order_server` (tasks) and `node.serving.check_server`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from node.dispatch.order_tags import OrderFigures
from node.task.flushing import Gathering
from p2p.quotas import Origins
from p2p.score import Offence, Standing
from p2p.typed_call import TypedCall, refusal_of
from wire import limits
from wire.content import PeerId
from wire.errors import BatonError, Refused, RemoteProtocolError, TransportError, WireError
from wire.kinds import RefusalCode
from wire.message import Message
from wire.order import Close, Opened, OrderRefusal, Withdraw

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
# And of askers of one address prefix: keys cost nothing.
ORDERS_PER_PREFIX = 32
# An order without an item for so long is ended. Askers end theirs sooner.
IDLE_S = 30.0
# One without an item for so long makes room where somebody else needs it.
MAKES_ROOM_S = 10.0


@dataclass(slots=True, eq=False, kw_only=True)
class ServedOrder:
    """One order, from its Open to its end."""

    call: TypedCall
    # How many places it may have now.
    places: Callable[[], int]
    offended: Callable[[PeerId, Offence], None]
    standing: Callable[[PeerId], Standing]
    # Set when there is something to tell.
    to_write: trio.Event = field(default_factory=trio.Event)
    # Places that the asker has, of those that it was given so far.
    credit: int = 0
    given: int = 0
    # Set when told things have made room for others.
    _room: trio.Event = field(default_factory=trio.Event)
    # Set when nothing may be said any more.
    _closed: bool = False
    _ended: bool = False
    _error: BatonError | None = None
    _gathering: Gathering = field(default_factory=Gathering)
    # When the last item came, or was seen under way.
    used_at_s: float = field(default_factory=trio.current_time)
    _waiting: trio.CancelScope = field(default_factory=trio.CancelScope)
    _makes_room: bool = False

    # What is done for it

    @property
    @abstractmethod
    def in_use(self) -> int:
        """Its items that were taken and have not ended."""

    @property
    def occupied(self) -> int:
        """How many of its places they take."""
        return self.in_use

    @abstractmethod
    def _take(self, message: Message, nursery: trio.Nursery) -> None:
        """Take in what an asker gives; RemoteProtocolError for anything else."""

    @abstractmethod
    def _abandon(self, tag: int) -> None:
        """The asker waits for an item no longer, if it did."""

    @abstractmethod
    def _abandon_all(self) -> None:
        """Nobody hears any more of what becomes of its items."""

    @abstractmethod
    def _untold(self) -> int:
        """How much there is to tell."""

    @abstractmethod
    def _drain(self, places: int) -> Iterator[Message]:
        """The messages that tell all of it, and give `places` back."""

    @abstractmethod
    async def _beside(self) -> None:
        """What else is done while it stands."""

    # Life

    async def run(self) -> None:
        """Take items and tell outcomes; what began is finished before it returns."""
        self.credit = self.places()
        await self.call.send(Opened(places=self.credit))
        talking = trio.CancelScope()
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                with talking:
                    async with trio.open_nursery() as talkers:
                        talkers.start_soon(self._write)
                        talkers.start_soon(self._beside)
                        await self._read(nursery)
                        talkers.cancel_scope.cancel()
                self._ended = True
                self._room.set()
                self._abandon_all()

            nursery.start_soon(talk)
        if self._error is not None:
            raise self._error

    async def _read(self, nursery: trio.Nursery) -> None:
        try:
            while (message := await self._next()) is not None:
                match message:
                    case Withdraw():
                        for tag in message.unwanted:
                            # The outcome may be on its way to an asker that no longer waits.
                            self._abandon(tag)
                    case Close():
                        self._closed = True
                        if message.tasks != self.given or self.in_use:
                            raise RemoteProtocolError("an order was closed before its tasks ended")
                        return
                    case _:
                        self._take(message, nursery)
        except (TransportError, WireError, RemoteProtocolError) as error:
            self._error = error

    async def _next(self) -> Message | None:
        """The asker's next message; None if the order is over, which the asker was told."""
        message = None
        while message is None:
            # What brings no item does not keep an order open.
            with trio.move_on_at(self.used_at_s + IDLE_S) as self._waiting:
                message = await self.call.receive()
            if message is None and self.in_use:
                self.used_at_s = trio.current_time()
            elif message is None:
                why = "no task came for a while"
                if self._makes_room:
                    why += ", and others want an order here"
                await self._finish(Refused(why, retry_after_s=0.0))
                return None
        if self.standing(self.call.peer) is Standing.BANNED:
            why = "you are banned here for what you did"
            await self._finish(Refused(why, code=RefusalCode.BANNED))
            return None
        return message

    async def _finish(self, why: Refused) -> None:
        self._closed = True
        await self.call.send(refusal_of(why))

    def _use_places(self, count: int) -> None:
        """Note that so many items were sent; RemoteProtocolError for more than had a place."""
        if count > self.credit:
            raise RemoteProtocolError("more tasks were sent than there were places")
        self.credit -= count
        self.given += count
        self.used_at_s = trio.current_time()

    def make_room(self) -> None:
        """End it: nothing is under way, and others want its place."""
        self._makes_room, self.used_at_s = True, -math.inf
        self._waiting.cancel()

    def _refusal_of(self, error: BatonError) -> OrderRefusal:
        """How an item is refused; what is malformed counts against the asker."""
        if isinstance(error, WireError | RemoteProtocolError):
            # Its task or its input is not what it says: that is the asker's own.
            self.offended(self.call.peer, Offence.MALFORMED)
        said = refusal_of(error)
        return OrderRefusal(code=said.code, reason=said.reason, retry_after_ms=said.retry_after_ms)

    # Writing

    async def _write(self) -> None:
        """Tell what there is, as much at once as comes together."""
        try:
            while True:
                await self.to_write.wait()
                await self._gathering.grown(self._untold, limits.BUNDLE_ITEMS_MAX)
                self.to_write = trio.Event()
                for message in self._drain(self._places_back()):
                    if self._closed:
                        return
                    await self.call.send(message)
                self._room.set()
                self._room = trio.Event()
        except TransportError as error:
            # Whoever reads hears of it too, and ends the order.
            self._error = self._error or error

    def _places_back(self) -> int:
        free = self.places() - self.credit - self.occupied
        self.credit += max(0, free)
        return max(0, free)


O = TypeVar("O", bound=ServedOrder)  # noqa: E741


@dataclass(slots=True)
class ServedOrders(Generic[O]):
    """The standing orders of one kind that others have at this peer."""

    # Items that came by orders, in how many bundles.
    tasks: int = 0
    bundles: int = 0
    _orders: list[O] = field(default_factory=list)

    @property
    def standing(self) -> int:
        """Orders that stand now."""
        return len(self._orders)

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

    def _check_room(self, asker: PeerId, origins: Origins) -> None:
        """Refused if this peer takes no further order of an asker. It may end an idle one."""
        prefix = origins.of(asker, asker)
        own = sum(it.call.peer == asker for it in self._orders)
        alike = sum(origins.of(it.call.peer, it.call.peer) == prefix for it in self._orders)
        if own >= ORDERS_PER_ASKER or (prefix and alike >= ORDERS_PER_PREFIX):
            raise Refused("too many standing orders here", retry_after_s=1.0)
        if len(self._orders) < ORDERS_MAX:
            return
        idle_at_s = trio.current_time() - MAKES_ROOM_S
        idle = [it for it in self._orders if not it.in_use and it.used_at_s <= idle_at_s]
        if not idle:
            raise Refused("too many standing orders here", retry_after_s=1.0)
        oldest = min(idle, key=lambda it: it.used_at_s)
        self._orders.remove(oldest)
        oldest.make_room()

    async def _serve(self, order: O) -> None:
        """Serve one order until its asker closes it."""
        self._orders.append(order)
        self._share()
        try:
            await order.run()
        finally:
            if order in self._orders:
                self._orders.remove(order)
            self._share()

    def _share(self) -> None:
        """Have each order look how many places it may have now."""
        for order in self._orders:
            order.to_write.set()
