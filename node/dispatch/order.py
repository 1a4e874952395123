"""A standing order of tasks at one peer: they go out in bundles, and their outcomes come back.

What it has as every order, and what becomes of it, is in `node.dispatch.standing_order`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from node.dispatch.handoff import Handoff
from node.dispatch.standing_order import WANTED, StandingOrder
from p2p.score import Offence
from wire import limits
from wire.compact import compact, opened
from wire.errors import BatonError, Refused, RemoteProtocolError, WireError
from wire.message import Message
from wire.order import (
    Bundle,
    Open,
    OrderItem,
    OrderPiece,
    OrderRefusal,
    Outcomes,
    Taken,
    TaskOutcome,
)
from wire.receipt import Receipt
from wire.signed import Signed


@dataclass(frozen=True, slots=True)
class OrderOutcome:
    """How a task ended: with its receipt, and the output when small; or refused.

    `later` are the receipts of the legs after it, `source` the last one's input if small.
    """

    receipt: Signed[Receipt] | None
    output: bytes | None
    refusal: OrderRefusal | None
    later: tuple[bytes, ...] = ()
    source: bytes | None = None


class _TakenNow:
    """What a task hears when the peer says that it took it."""


# What a task was told and nobody has heard yet, with so much for each thing that is kept.
UNHEARD_BYTES_MAX = 4 << 20
THING_BYTES = 256
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
    _unheard_bytes: int = 0
    _error: BatonError | None = None
    _changed: trio.Event = field(default_factory=trio.Event)

    @property
    def lane(self) -> bytes:
        """The lane of the client whose task it is."""
        return self.handoff.lane

    @property
    def size_bytes(self) -> int:
        """What it takes in a message, at most: as an envelope it is not smaller."""
        receipts_bytes = sum(len(it.raw) for it in self.handoff.receipts)
        return len(self.handoff.task.raw) + len(self.handoff.input or b"") + receipts_bytes

    async def hear(self) -> Heard:
        """What the peer says next of this task; Refused or Disconnected if it is given back."""
        while not self._heard:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
            self._changed = trio.Event()
        heard = self._heard.popleft()
        self._unheard_bytes -= _size_bytes(heard)
        return heard

    def told(self, heard: Heard) -> None:
        """Note what the peer said of it."""
        was_taken, self.taken = self.taken, True
        if self.sink is not None:
            self.sink(heard)
            return
        if self._error is not None or (was_taken and heard is TAKEN):
            return
        self._unheard_bytes += _size_bytes(heard)
        if self._unheard_bytes > UNHEARD_BYTES_MAX:
            # Whoever hears it passes it on to somebody who reads slowly, or not at all.
            self._heard.clear()
            self.give_back(Refused("more was streamed than could be passed on"))
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


def _size_bytes(heard: Heard) -> int:
    return THING_BYTES + (len(heard.data) if isinstance(heard, OrderPiece) else 0)


@dataclass(slots=True, eq=False)
class Order(StandingOrder[OrderedTask]):
    """See the head of this file. Tasks are put on it while it stands."""

    @property
    def compact(self) -> bool:
        """Whether records that were signed together travel under one signature."""
        return self.version >= limits.BUNDLES_VERSION

    def put(
        self,
        handoff: Handoff,
        deadline_at_s: float,
        sink: Callable[[Heard | BatonError], None] | None = None,
    ) -> OrderedTask:
        """Have a task done; it is sent as soon as there is a place for it.

        What is heard of it is given to `sink`, which raises nothing, or else kept for `hear`.
        """
        task = OrderedTask(handoff, deadline_at_s, trio.current_time(), sink)
        self._put(task)
        return task

    # What travels

    def _opening(self) -> Message:
        return Open(wanted=WANTED, speaks=limits.SPOKEN_VERSION if self.compact else 0)

    def _bundle(self, items: list[OrderedTask], now_at_s: float) -> Bundle:
        signed = [it.handoff.task for it in items]
        signer = self.peers.me if self.compact else None
        roots, travelling = compact(signed, signer)
        tasks = [
            OrderItem(
                tag=task.tag or 0,
                task=one.data,
                input=task.handoff.input,
                deadline_ms=max(1, int((task.deadline_at_s - now_at_s) * 1000)),
                units=task.handoff.units,
                root=one.root,
                leaf=one.leaf,
                lane=task.handoff.lane if self.compact else b"",
                receipts=tuple(it.raw for it in task.handoff.receipts),
            )
            for task, one in zip(items, travelling, strict=True)
        ]
        return Bundle(items=tuple(tasks), roots=roots)

    def _hear(self, message: Message) -> None:
        match message:
            case Outcomes():
                self._take(message)
            case Taken():
                for tag in message.tags:
                    if (task := self._tags.task_of(tag)) is not None:
                        task.told(TAKEN)
            case _:
                raise RemoteProtocolError("not what is said in a standing order")

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
                task.told(_ended(outcome, receipt))
        if message.places:
            self._credited(message.places)


def _ended(outcome: TaskOutcome, receipt: Signed[Receipt] | None) -> OrderOutcome:
    return OrderOutcome(
        receipt,
        outcome.output,
        outcome.refusal,
        later=outcome.later,
        source=outcome.source or None,
    )
