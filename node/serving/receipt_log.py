"""The log of the receipts that this peer signed: it grows with each commit of legs that are done.

A leg's receipt is in the log as soon as it is durable. A head is signed only if somebody asks for
one, at most every few seconds, so no task pays for it; it is durable before anybody hears of it,
because two heads that contradict each other would convict this peer.

A state folder that was put back from a copy knows less than this peer once signed, and would sign
what contradicts it. So after a start no head is signed before others were asked which is the latest
that they heard of (`sure`), and if one is later than ours, another log is begun (`heard_own`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from node.serving.log_tree import FAN, LogEdge, edge_of, path_in
from store import Row, Store, Table, Write
from wire import limits, merkle
from wire.content import ContentId
from wire.errors import BatonError, Refused
from wire.kinds import RefusalCode
from wire.log import FIRST, LogHead, LogPlace, leaf_of
from wire.signed import Envelope, Signed, open_signed, sign
from wire.signing import SigningKey

HEAD_EVERY_S = 5.0
# Of the lowest rows so many are kept: places are shown of the last million receipts.
LEAF_ROWS_KEPT = 4096
HEADS_KEPT = 4096
# So many are searched in one step of the loop.
ROWS_AT_ONCE = 32
_ROW, _HEAD, _SIZE, _LATEST = b"row", b"head", b"size", b"latest"


@dataclass(slots=True)
class ReceiptLog:
    """One peer's log. Its rows are written with what they are about, in one commit."""

    key: SigningKey
    store: Store
    wall_s: Callable[[], float]
    _edge: LogEdge = field(init=False)
    _latest: Signed[LogHead] | None = None
    # When it was signed, by trio's clock; None before one was since the start.
    _signed_at_s: float | None = None
    _signing: trio.Lock = field(default_factory=trio.Lock)
    _unsure: bool = False
    # Whether the next receipt begins another log, and what that log is once it was handed out.
    _begins_anew: bool = False
    _anew: LogEdge | None = None
    # When the latest log of ours began of which others told: another begins after it.
    _heard_began_ms: int = 0

    def __post_init__(self) -> None:
        try:
            size = int.from_bytes(self.store.read(Table.LOG, _SIZE) or b"", "big")
            self._edge = edge_of(size, self._read)
            if (raw := self.store.read(Table.LOG, _LATEST)) is not None:
                self._latest = open_signed(raw, LogHead)
                self._unsure = True
        except BatonError:
            # It was damaged on the disk. Another log is begun, and everybody can see that.
            self._edge, self._latest, self._begins_anew = LogEdge(), None, True

    @property
    def size(self) -> int:
        """How many receipts are in it."""
        return self._edge.size

    def grown(self, receipts: Sequence[ContentId]) -> tuple[LogEdge, list[Row]]:
        """The log with these receipts more, and the rows to commit; then call `committed`."""
        before = LogEdge() if self._begins_anew else self._edge
        edge, changed = before.added(map(leaf_of, receipts))
        rows = [
            Row(Table.LOG, _row_key(level, number), row) for (level, number), row in changed.items()
        ]
        rows += [
            Row(Table.LOG, _row_key(0, number - LEAF_ROWS_KEPT), None)
            for level, number in changed
            if level == 0 and number >= LEAF_ROWS_KEPT
        ]
        if self._begins_anew:
            # With the first receipt of the new log, or a restart would go on after the old head.
            self._anew = edge
            rows.append(Row(Table.LOG, _LATEST, None))
        return edge, [*rows, Row(Table.LOG, _SIZE, edge.size.to_bytes(8, "big"))]

    def committed(self, edge: LogEdge) -> None:
        """What `grown` gave is durable."""
        if edge is self._anew:
            self._latest, self._anew, self._begins_anew = None, None, False
        self._edge = edge

    @property
    def is_unsure(self) -> bool:
        """Whether heads may have been signed of which this folder knows nothing."""
        return self._unsure

    def sure(self) -> None:
        """Others were asked for the latest head of this peer, as far as any could be."""
        self._unsure = False

    async def heard_own(self, head: Signed[LogHead]) -> bool:
        """Hear a head that this peer signed; whether its folder knew nothing of it.

        Then the next receipt begins another log: this one's past cannot be continued.
        """
        async with self._signing:
            known = self._latest
            # If our clock was ahead then, that head would else end each log of ours again.
            self._heard_began_ms = max(self._heard_began_ms, head.record.began_at_ms)
            if known is None or self._begins_anew:
                return False
            same_log = head.record.began_at_ms == known.record.began_at_ms
            later = same_log and head.record.number > known.record.number
            if later or head.record.began_at_ms > known.record.began_at_ms:
                self._begins_anew = True
            return self._begins_anew

    async def head(self) -> Signed[LogHead] | None:
        """The latest head, a new one if there are more receipts and the last is not quite new.

        None while there are no receipts. StoreError if it cannot be made durable.
        """
        async with self._signing:
            edge, before, now_at_s = self._edge, self._latest, trio.current_time()
            if not edge.size or (before is not None and before.record.size == edge.size):
                return before
            if self._unsure or self._begins_anew:
                return before
            if self._signed_at_s is not None and now_at_s < self._signed_at_s + HEAD_EVERY_S:
                return before
            head = sign(self._next_head(edge, before), self.key)
            number = head.record.number
            rows = [
                Row(Table.LOG, _head_key(number), head.raw),
                Row(Table.LOG, _LATEST, head.raw),
            ]
            if number > HEADS_KEPT:
                rows.append(Row(Table.LOG, _head_key(number - HEADS_KEPT), None))
            # If this fails or is cancelled, nobody has heard of the head, whether it was written or
            # not: the next one takes its number and its place.
            await self.store.commit(Write(rows=tuple(rows)))
            self._latest, self._signed_at_s = head, now_at_s
            return head

    def _next_head(self, edge: LogEdge, before: Signed[LogHead] | None) -> LogHead:
        now_ms = int(self.wall_s() * 1000)
        began_ms = max(now_ms, self._heard_began_ms + 1)
        return LogHead(
            began_at_ms=began_ms if before is None else before.record.began_at_ms,
            number=1 if before is None else before.record.number + 1,
            size=edge.size,
            root=edge.root,
            previous=FIRST if before is None else before.record.digest,
            signed_at_ms=now_ms,
        )

    def heads(self, number: int) -> list[Signed[LogHead]]:
        """Heads from this number on, in order, as many as one message has."""
        start = _head_key(number)
        found = self.store.scan(
            Table.LOG, start=start, prefix=_HEAD, limit=limits.LOG_HEADS_PER_MESSAGE_MAX
        )
        latest = 0 if self._latest is None else self._latest.record.number
        # They are this peer's own, and whoever asks may ask often: no signature is looked at.
        heads = [_own(raw) for _, raw in found]
        return [it for it in heads if it.record.number <= latest]

    async def place(self, receipt: ContentId) -> LogPlace:
        """Where a receipt is under the latest head; Refused if it is not there, or not yet."""
        head = await self.head()
        size = self._edge.size
        index = await self._find(leaf_of(receipt), size)
        if head is None or index is None:
            raise Refused(
                f"the receipt {receipt.short} is not among the last"
                f" {min(size, LEAF_ROWS_KEPT * FAN)} of this log",
                code=RefusalCode.NOT_FOUND,
            )
        if index >= head.record.size:
            raise Refused("no head was signed since this receipt", retry_after_s=HEAD_EVERY_S)
        path = path_in(index, head.record.size, self._read)
        return LogPlace(head=head.raw, index=index, path=path)

    async def _find(self, leaf: bytes, size: int) -> int | None:
        """The index of a leaf, sought from the newest row back; others run in between."""
        newest = (size - 1) // FAN if size else -1
        for number in range(newest, max(-1, newest - LEAF_ROWS_KEPT), -1):
            row = self.store.read(Table.LOG, _row_key(0, number)) or b""
            at = row.find(leaf)
            while at >= 0 and at % merkle.HASH_BYTES:
                at = row.find(leaf, at + 1)
            if at >= 0:
                return number * FAN + at // merkle.HASH_BYTES
            if number % ROWS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return None

    def _read(self, level: int, number: int) -> bytes:
        row = self.store.read(Table.LOG, _row_key(level, number))
        if row is None:
            raise Refused("that part of the log is not kept any more", code=RefusalCode.NOT_FOUND)
        return row


def _own(raw: bytes) -> Signed[LogHead]:
    envelope = Envelope.read(raw, LogHead)
    return Signed(envelope.claimed(), envelope.signer, raw, ContentId.of(raw))


def _row_key(level: int, number: int) -> bytes:
    return _ROW + bytes((level,)) + number.to_bytes(8, "big")


def _head_key(number: int) -> bytes:
    return _HEAD + number.to_bytes(8, "big")
