"""What all standing orders of this peer have: one long call, places as credit, tags, and an end.

What travels on one is for `node.dispatch.order` (tasks) and `node.checking.check_order` (checks).
If an order breaks, every item of it is given back to who put it there, with Disconnected; what one
comes to is no matter of the others.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar

import trio

from node.dispatch.lanes import LaneQueue
from node.dispatch.order_tags import OrderTags
from node.task.flushing import Gathering
from p2p.peers import Peers
from p2p.score import Offence
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refused
from wire import limits
from wire.bundling import cut
from wire.content import PeerId
from wire.errors import (
    BatonError,
    Disconnected,
    Refused,
    RemoteProtocolError,
    TooSlow,
    TransportError,
    WireError,
)
from wire.kinds import RefusalCode
from wire.message import Message, Refuse
from wire.order import Close, Opened, Places, Withdraw

# A peer that neither takes nor refuses an item within this is passed over.
ACCEPT_DEADLINE_S = 5.0
OPEN_DEADLINE_S = 5.0
# An order without an item for so long is closed; one this old is replaced by another. An item of an
# order may take at most so long, so that no order is older than a peer serves a conversation.
IDLE_S = 5.0
RENEW_AFTER_S = 1200.0
TASK_S_MAX = 900.0
LOOK_EVERY_S = 1.0
WANTED = 256


class OnOrder(Protocol):
    """One item of an order, from when it is put there until its end is heard."""

    # None until it is sent.
    tag: int | None
    # Whether nothing is expected of the peer before the end.
    taken: bool
    # When it was put there, and later when it was sent.
    since_at_s: float

    @property
    def lane(self) -> bytes:
        """Items of one lane take turns with those of other lanes."""

    @property
    def size_bytes(self) -> int:
        """What it takes in a message, but for a few fields."""

    def give_back(self, error: BatonError) -> None:
        """Nothing more is heard of it here."""


T = TypeVar("T", bound=OnOrder)


@dataclass(slots=True, eq=False)
class StandingOrder(Generic[T]):
    """See the head of this file. `run` is its life; items are put on it while it stands."""

    # Items in one message, at most.
    BUNDLE_MAX: ClassVar[int] = limits.BUNDLE_ITEMS_MAX

    peers: Peers
    peer: PeerId
    # The version that the peer speaks: what it reads in a bundle.
    version: int = limits.ORDERS_VERSION
    # Set once it stands, or will not.
    settled: trio.Event = field(default_factory=trio.Event)
    stands: bool = False
    # Whether it takes further items.
    closing: bool = False
    bundles: int = 0
    _tags: OrderTags[T] = field(default_factory=OrderTags)
    # Items that wait for a place.
    _home: LaneQueue[T] = field(default_factory=LaneQueue)
    _unwanted: list[int] = field(default_factory=list)
    _to_send: trio.Event = field(default_factory=trio.Event)
    _heard_at_s: float = 0.0
    _busy_at_s: float = 0.0
    _opened_at_s: float = 0.0
    _error: BatonError | None = None
    _gathering: Gathering = field(default_factory=Gathering)

    @property
    def takes(self) -> bool:
        """Whether an item may be put on it now."""
        return self.stands and not self.closing

    @property
    def sent(self) -> int:
        """Items that were sent on it so far."""
        return self._tags.sent

    @property
    def places(self) -> tuple[int, int]:
        """Its places that have an item now, and those that have none."""
        return self._tags.unended, self._tags.credit

    def _put(self, item: T) -> None:
        assert self.takes
        self._busy_at_s = trio.current_time()
        self._home.put(item.lane, item)
        if self._tags.credit:
            self._to_send.set()

    def leave(self, item: T) -> None:
        """Wait for an item no longer; the peer is told unless it has ended."""
        self._home.discard(item.lane, item)
        if item.tag is not None and self._tags.withdraw(item.tag):
            self._unwanted.append(item.tag)
            self._to_send.set()

    # What travels

    @abstractmethod
    def _opening(self) -> Message:
        """What opens it."""

    @abstractmethod
    def _bundle(self, items: list[T], now_at_s: float) -> Message:
        """The message that gives these items, which have their tags."""

    def _besides(self) -> Iterator[Message]:
        """What else there is to say of items that were sent."""
        return iter(())

    @abstractmethod
    def _hear(self, message: Message) -> None:
        """Take in what the peer says of items; RemoteProtocolError for anything else."""

    # Life

    async def run(self) -> None:
        """Open it, keep it for as long as it is of use, close it."""
        try:
            with trio.move_on_after(stretched(OPEN_DEADLINE_S)) as opening:
                # Every wait after the opening has a limit of its own.
                async with self.peers.call(
                    self.peer, deadline_s=RENEW_AFTER_S + 2 * TASK_S_MAX
                ) as call:
                    await call.send(self._opening())
                    places = (await call.expect(Opened)).places
                    opening.deadline = float("inf")
                    self._tags.credited(places)
                    self._begin()
                    await self._converse(call)
            if opening.cancelled_caught:
                self._error = TooSlow(f"{self.peer.short} opened no standing order in time")
        except (Refused, TransportError, WireError, RemoteProtocolError) as error:
            self._error = error
        finally:
            self._end()

    def _begin(self) -> None:
        self._opened_at_s = self._heard_at_s = self._busy_at_s = trio.current_time()
        self.stands = True
        self.settled.set()

    def _end(self) -> None:
        self.stands, self.closing = False, True
        self.settled.set()
        error = self._error or Disconnected(f"the standing order at {self.peer.short} ended")
        for task in [*self._tags.waited_for, *self._home]:
            task.give_back(_for_one(error))

    async def _converse(self, call: TypedCall) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guarded_send, call)
            nursery.start_soon(self._look_forever, nursery.cancel_scope)
            await self._receive(call)
            nursery.cancel_scope.cancel()
        if self._error is not None:
            raise self._error
        await call.send(Close(tasks=self._tags.sent))

    async def _look_forever(self, converse: trio.CancelScope) -> None:
        """See whether it is still of use, and whether the peer does what it promised."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            now_at_s = trio.current_time()
            if self._home or self._tags.waited_for:
                self._busy_at_s = now_at_s
                self._look(now_at_s)
            if now_at_s - self._busy_at_s >= IDLE_S or now_at_s - self._opened_at_s > RENEW_AFTER_S:
                self.closing = True
            if not self.closing or self._home or self._tags.waited_for:
                continue
            if not self._tags.unended:
                break
            if now_at_s - max(self._busy_at_s, self._heard_at_s) > 2 * IDLE_S:
                self._error = TooSlow(f"{self.peer.short} did not say how every item ended")
                break
        converse.cancel()

    def _look(self, now_at_s: float) -> None:
        """Give tasks back of which the peer says nothing."""
        patience_s = stretched(ACCEPT_DEADLINE_S)
        ignored = [
            it
            for it in self._tags.waited_for
            if not it.taken and now_at_s - it.since_at_s > patience_s
        ]
        for task in ignored:
            task.give_back(
                Refused(
                    f"no answer to the offer within {ACCEPT_DEADLINE_S:.0f} s",
                    code=RefusalCode.FAILED,
                )
            )
        if ignored:
            self.peers.offended(self.peer, Offence.SLOW)
        if now_at_s - self._heard_at_s > patience_s:
            # The peer may be busy with what it has: what waits for a place may find another peer.
            for task in list(self._home):
                if now_at_s - task.since_at_s > patience_s:
                    why = f"no place came free within {ACCEPT_DEADLINE_S:.0f} s"
                    task.give_back(Refused(why, retry_after_s=1.0))

    # Sending

    async def _guarded_send(self, call: TypedCall) -> None:
        try:
            await self._send_forever(call)
        except TransportError as error:
            # Whoever receives hears of it too, and ends the order.
            self._error = self._error or error

    async def _send_forever(self, call: TypedCall) -> None:
        while True:
            await self._to_send.wait()
            await self._gathering.grown(
                lambda: min(len(self._home), self._tags.credit), limits.BUNDLE_ITEMS_MAX
            )
            self._to_send = trio.Event()
            unwanted, self._unwanted = self._unwanted, []
            for some in cut((it, 0) for it in unwanted):
                await call.send(Withdraw(unwanted=tuple(some)))
            for message in self._besides():
                await call.send(message)
            for bundle in self._bundles():
                self.bundles += 1
                await call.send(bundle)

    def _bundles(self) -> Iterator[Message]:
        now_at_s = trio.current_time()
        items = []
        while self._home and self._tags.credit:
            item = self._home.pop()
            item.tag, item.since_at_s = self._tags.give(item), now_at_s
            items.append(item)
        for some in cut(((it, it.size_bytes) for it in items), self.BUNDLE_MAX):
            yield self._bundle(some, now_at_s)

    # Hearing

    async def _receive(self, call: TypedCall) -> None:
        try:
            while True:
                message = await call.receive()
                self._heard_at_s = trio.current_time()
                match message:
                    case Places():
                        self._credited(message.more)
                    case Refuse():
                        raise refused(message)
                    case _:
                        self._hear(message)
        except (Refused, TransportError, WireError, RemoteProtocolError) as error:
            self._error = error

    def _credited(self, places: int) -> None:
        self._tags.credited(places)
        if self._home:
            self._to_send.set()


def _for_one(error: BatonError) -> BatonError:
    """An error of the whole order as one task hears it: each has an error of its own."""
    if isinstance(error, Refused):
        return Refused(error.message, code=error.code, retry_after_s=error.retry_after_s)
    # Whose fault it was is counted once, where the order ended.
    return Disconnected(f"the standing order broke: {error.message}")
