"""One standing order at one peer: tasks wait here for places, go out in bundles, and end here.

The order is one conversation. If it breaks, every task of it is given back to who put it there,
with Disconnected; what one task comes to is no matter of the others.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trio

from node.dispatch.handoff import Handoff
from node.dispatch.lanes import LaneQueue
from node.dispatch.order_tags import OrderTags
from node.task.flushing import grown
from p2p.peers import Peers
from p2p.score import Offence
from p2p.timeouts import stretched
from p2p.typed_call import TypedCall, refused
from wire import limits
from wire.bundling import cut
from wire.compact import compact, opened
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
from wire.message import Refuse
from wire.order import (
    Bundle,
    Close,
    Open,
    Opened,
    OrderItem,
    OrderPiece,
    OrderRefusal,
    Outcomes,
    Places,
    Taken,
    Withdraw,
)
from wire.receipt import Receipt
from wire.signed import Signed

# A peer that neither takes nor refuses a task within this is passed over.
ACCEPT_DEADLINE_S = 5.0
OPEN_DEADLINE_S = 5.0
# An order without a task for so long is closed; one this old is replaced by another. A task on an
# order may take at most so long, so that no order is older than a peer serves a conversation.
IDLE_S = 5.0
RENEW_AFTER_S = 1200.0
TASK_S_MAX = 900.0
LOOK_EVERY_S = 1.0
WANTED = 256


@dataclass(frozen=True, slots=True)
class OrderOutcome:
    """How a task ended: with its receipt, and the output when small; or refused."""

    receipt: Signed[Receipt] | None
    output: bytes | None
    refusal: OrderRefusal | None


class _TakenNow:
    """What a task hears when the peer says that it took it."""


TAKEN = _TakenNow()
Heard = _TakenNow | OrderPiece | OrderOutcome


@dataclass(slots=True, eq=False)
class OrderedTask:
    """One task on an order, from when it is put there until its outcome."""

    handoff: Handoff
    deadline_at_s: float
    # When it was put there, and later when it was sent.
    since_at_s: float
    # Who hears of it at once; without one it is kept for `hear`.
    sink: "Callable[[Heard | BatonError], None] | None" = None
    tag: int | None = None
    taken: bool = False
    _heard: deque[Heard] = field(default_factory=deque)
    _error: BatonError | None = None
    _changed: trio.Event = field(default_factory=trio.Event)

    async def hear(self) -> Heard:
        """What the peer says next of this task; Refused or Disconnected if it is given back."""
        while not self._heard:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
            self._changed = trio.Event()
        return self._heard.popleft()

    def told(self, heard: Heard) -> None:
        """Note what the peer said of it."""
        self.taken = True
        if self.sink is not None:
            self.sink(heard)
            return
        self._heard.append(heard)
        self._changed.set()

    def give_back(self, error: BatonError) -> None:
        """Nothing more is heard of it here."""
        if self.sink is not None:
            self.sink(error)
            return
        self._error = error
        self._changed.set()


@dataclass(slots=True, eq=False)
class Order:
    """See the head of this file. `run` is its life; tasks are put on it while it stands."""

    peers: Peers
    peer: PeerId
    # The version that the peer speaks: what it reads in a bundle.
    version: int = limits.ORDERS_VERSION
    # Set once it stands, or will not.
    settled: trio.Event = field(default_factory=trio.Event)
    stands: bool = False
    # Whether it takes further tasks.
    closing: bool = False
    bundles: int = 0
    _tags: OrderTags[OrderedTask] = field(default_factory=OrderTags)
    # Tasks that wait for a place.
    _home: LaneQueue[OrderedTask] = field(default_factory=LaneQueue)
    _unwanted: list[int] = field(default_factory=list)
    _to_send: trio.Event = field(default_factory=trio.Event)
    _heard_at_s: float = 0.0
    _busy_at_s: float = 0.0
    _opened_at_s: float = 0.0
    _error: BatonError | None = None

    @property
    def takes(self) -> bool:
        """Whether a task may be put on it now."""
        return self.stands and not self.closing

    @property
    def compact(self) -> bool:
        """Whether records that were signed together travel under one signature."""
        return self.version >= limits.BUNDLES_VERSION

    @property
    def sent(self) -> int:
        """Tasks that were sent on it so far."""
        return self._tags.sent

    @property
    def places(self) -> tuple[int, int]:
        """Its places that have a task now, and those that have none."""
        return self._tags.unended, self._tags.credit

    def put(
        self,
        handoff: Handoff,
        deadline_at_s: float,
        sink: Callable[[Heard | BatonError], None] | None = None,
    ) -> OrderedTask:
        """Have a task done; it is sent as soon as there is a place for it.

        What is heard of it is given to `sink`, which raises nothing, or else kept for `hear`.
        """
        assert self.takes
        task = OrderedTask(handoff, deadline_at_s, trio.current_time(), sink)
        self._home.put(handoff.lane, task)
        if self._tags.credit:
            self._to_send.set()
        return task

    def leave(self, task: OrderedTask) -> None:
        """Wait for a task no longer; the peer is told unless it has ended."""
        self._home.discard(task.handoff.lane, task)
        if task.tag is not None and self._tags.withdraw(task.tag):
            self._unwanted.append(task.tag)
            self._to_send.set()

    # Life

    async def run(self) -> None:
        """Open it, keep it for as long as it is of use, close it."""
        try:
            with trio.move_on_after(stretched(OPEN_DEADLINE_S)) as opening:
                # Every wait after the opening has a limit of its own.
                async with self.peers.call(
                    self.peer, deadline_s=RENEW_AFTER_S + 2 * TASK_S_MAX
                ) as call:
                    speaks = limits.SPOKEN_VERSION if self.compact else 0
                    await call.send(Open(wanted=WANTED, speaks=speaks))
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
                self._error = TooSlow(f"{self.peer.short} did not say how every task ended")
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
            await grown(lambda: min(len(self._home), self._tags.credit), limits.BUNDLE_ITEMS_MAX)
            self._to_send = trio.Event()
            unwanted, self._unwanted = self._unwanted, []
            for some in cut((it, 0) for it in unwanted):
                await call.send(Withdraw(unwanted=tuple(some)))
            for bundle in self._bundles():
                self.bundles += 1
                await call.send(bundle)

    def _bundles(self) -> Iterator[Bundle]:
        now_at_s = trio.current_time()
        tasks = []
        while self._home and self._tags.credit:
            task = self._home.pop()
            task.tag, task.since_at_s = self._tags.give(task), now_at_s
            tasks.append(task)
        # As envelopes they are not smaller.
        sized = ((it, len(it.handoff.task.raw) + len(it.handoff.input or b"")) for it in tasks)
        for some in cut(sized):
            yield self._bundle(some, now_at_s)

    def _bundle(self, tasks: list[OrderedTask], now_at_s: float) -> Bundle:
        signed = [it.handoff.task for it in tasks]
        signer = self.peers.me if self.compact else None
        roots, travelling = compact(signed, signer)
        items = [
            OrderItem(
                tag=task.tag or 0,
                task=one.data,
                input=task.handoff.input,
                deadline_ms=max(1, int((task.deadline_at_s - now_at_s) * 1000)),
                units=task.handoff.units,
                root=one.root,
                leaf=one.leaf,
                lane=task.handoff.lane if self.compact else b"",
            )
            for task, one in zip(tasks, travelling, strict=True)
        ]
        return Bundle(items=tuple(items), roots=roots)

    # Hearing

    async def _receive(self, call: TypedCall) -> None:
        try:
            while True:
                message = await call.receive()
                self._heard_at_s = trio.current_time()
                match message:
                    case Outcomes():
                        self._take(message)
                    case Taken():
                        for tag in message.tags:
                            if (task := self._tags.task_of(tag)) is not None:
                                task.told(TAKEN)
                    case Places():
                        self._credited(message.more)
                    case Refuse():
                        raise refused(message)
                    case _:
                        raise RemoteProtocolError("not what is said in a standing order")
        except (Refused, TransportError, WireError, RemoteProtocolError) as error:
            self._error = error

    def _take(self, message: Outcomes) -> None:
        for piece in message.pieces:
            if (task := self._tags.task_of(piece.tag)) is not None:
                task.told(piece)
        receipts = iter(opened(message.roots, message.travelling, Receipt, self.peer))
        for outcome in message.items:
            receipt = next(receipts) if outcome.receipt is not None else None
            if (task := self._tags.ended(outcome.tag)) is None:
                continue
            if isinstance(receipt, WireError):
                # It is what the peer says of this task that does not fit; others go on.
                self.peers.offended(self.peer, Offence.MALFORMED)
                task.give_back(receipt)
            else:
                task.told(OrderOutcome(receipt, outcome.output, outcome.refusal))
        if message.places:
            self._credited(message.places)

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
