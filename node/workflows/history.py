"""What this peer keeps of its workflows: files, slots that are begun, and what became of each.

A slot ends in one commit: its entry, its result, where the result still has to go, and the place
from which slots are counted on. So after a crash at any moment a slot was not begun, is begun, or
has ended, and it has one entry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import trio

from node.workflows.lost_entries import LostEntries
from store import Pin, Row, Store, Table, Write
from wire.codec import Value, pack, unpack
from wire.content import ContentId
from wire.errors import InputError, StoreError
from wire.feed import FIRST_ENTRY, FeedEntry, FeedRecord
from wire.signed import Envelope, Signed, sign
from wire.signing import SigningKey
from wire.tree import name_of

WORKFLOWS_MAX = 64
# What a run may give: more is no message for anybody.
RESULT_BYTES_MAX = 4 << 20
_FORMAT = 1
_FILE, _HEAD, _BEGUN, _ENTRY, _WAITING = b"file\0", b"head\0", b"begun\0", b"entry\0", b"wait\0"
_COST = b"cost\0"
_ROWS_AT_ONCE = 500
_FORGOTTEN_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptWorkflow:
    """A workflow as it is kept: its TOML, its feed, and whether its owner has paused it."""

    name: str
    text: str
    feed: FeedRecord
    paused: bool

    @property
    def row(self) -> Row:
        value = pack([_FORMAT, self.text, self.feed.to_bytes(), self.paused])
        return Row(Table.WORKFLOWS, _FILE + self.name.encode(), value)


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunSlot:
    """A slot that is begun. `task` is empty until the model was asked."""

    slot_ms: int
    by_hand: bool
    began_at_ms: int
    tries: int = 0
    why: str = ""
    task: bytes = b""
    answers: tuple[ContentId, ...] = ()
    contents: tuple[ContentId, ...] = ()
    # What its tries have cost, in millionths.
    cost: int = 0


@dataclass(frozen=True, slots=True)
class FeedHead:
    """The end of a feed, up to when every slot has ended, and the epoch of the last entry."""

    number: int
    digest: bytes
    cursor_ms: int
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotResult:
    """What is kept of a run besides its entry: the result, contents that it stands on, its cost."""

    data: bytes | None = None
    contents: tuple[ContentId, ...] = ()
    cost: int = 0


@dataclass(slots=True)
class WorkflowHistory:
    """The rows of one workflow."""

    store: Store
    key: SigningKey
    name: str
    keep: int
    lost: LostEntries
    # The numbers of its destinations that results are delivered to.
    destinations: tuple[int, ...] = ()
    head: FeedHead = field(init=False)
    begun: BegunSlot | None = field(init=False)

    def __post_init__(self) -> None:
        raw = self.store.read(Table.WORKFLOWS, _HEAD + self.name.encode())
        self.head = FeedHead(*unpack(raw)) if raw is not None else FeedHead(0, FIRST_ENTRY, 0)
        raw = self.store.read(Table.WORKFLOWS, _BEGUN + self.name.encode())
        self.begun = None if raw is None else _begun_of(raw)

    async def begin(self, begun: BegunSlot) -> None:
        """Note that a slot is begun, or tried again, or that its model was asked."""
        await self._commit(Write(rows=(self._begun_row(begun),)))
        self.begun = begun

    async def append(self, entry: FeedEntry, cursor_ms: int, result: SlotResult) -> None:
        """Keep what became of a slot; nothing is begun any more. StoreError, and nothing is kept.

        The numbers of `entry` are those that `head` gives.
        """
        assert (entry.number, entry.previous) == (self.head.number + 1, self.head.digest)
        signed = sign(entry, self.key)
        pins = [Pin(it, self._why(entry.number)) for it in {*result.contents, *_ids(entry)}]
        waiting = [self._waiting_row(it, entry.number, b"\0") for it in self.destinations]
        if result.cost:
            waiting.append(self._cost_row(entry.number, result.cost))
        blobs = () if result.data is None else (result.data,)
        await self._add(signed, cursor_ms, pins, waiting, blobs)

    async def adopt(self, entry: Signed[FeedEntry]) -> None:
        """Keep an entry that another keeper has signed, which was checked; none is begun here.

        Its result goes where its keeper delivers it: nothing is delivered from here.
        """
        record = entry.record
        pins = [] if record.result is None else [Pin(record.result, self._why(record.number))]
        await self._add(entry, 0 if record.by_hand else record.slot_ms, pins, [], ())

    async def _add(
        self,
        entry: Signed[FeedEntry],
        cursor_ms: int,
        pins: list[Pin],
        waiting: list[Row],
        blobs: tuple[bytes, ...],
    ) -> None:
        one = entry.record
        head = FeedHead(one.number, one.digest, max(cursor_ms, self.head.cursor_ms), one.epoch)
        kept = pack([entry.raw, [bytes(it.id) for it in pins]])
        gone, unpins = self._pruned(one.number - self.keep)
        rows = (
            Row(Table.WORKFLOWS, self._entry_key(one.number), kept),
            self._head_row(head),
            self._begun_row(None),
            *waiting,
            *gone,
        )
        await self._commit(Write(rows=rows, blobs=blobs, pins=tuple(pins), unpins=tuple(unpins)))
        self.head, self.begun = head, None

    async def give_up(self, kept_until: int) -> list[Signed[FeedEntry]]:
        """Give up every entry after this number, from the end; those that are given up, in order.

        Those with a result are named beside the ones that count, and are delivered no more. Slots
        are counted on from before the first of them.
        """
        given_up: list[Signed[FeedEntry]] = []
        while self.head.number > kept_until:
            (key, value), *_ = self.store.scan(
                Table.WORKFLOWS, start=self._entry_key(self.head.number), limit=1
            )
            entry = _own(bytes(unpack(value)[0]))
            before = self.entry_at(entry.record.number - 1)
            cursor_ms = self.head.cursor_ms
            if not entry.record.by_hand:
                cursor_ms = min(cursor_ms, entry.record.span.first_ms - 1)
            head = FeedHead(
                entry.record.number - 1,
                entry.record.previous,
                cursor_ms,
                0 if before is None else before.record.epoch,
            )
            rows = (
                Row(Table.WORKFLOWS, key, None),
                self._head_row(head),
                self._begun_row(None),
                *self.lost.rows([entry]),
                self._cost_row(entry.record.number, 0),
                *(self._waiting_row(it, entry.record.number, None) for it in self.destinations),
            )
            unpins = tuple(_pins_of(self.name, [(key, value)]))
            await self._commit(Write(rows=rows, unpins=unpins))
            self.head, self.begun = head, None
            given_up.insert(0, entry)
        return given_up

    async def forget_all(self) -> None:
        """Forget every entry that is kept, as if there were too many since."""
        while some := self.entries(1, _FORGOTTEN_AT_ONCE):
            rows, unpins = list[Row](), list[Pin]()
            for entry in some:
                gone, pins = self._pruned(entry.record.number)
                rows, unpins = rows + gone, unpins + pins
            await self._commit(Write(rows=tuple(rows), unpins=tuple(unpins)))

    async def drop_begun(self) -> None:
        """Nothing is begun any more: another keeper sees to that slot."""
        if self.begun is not None:
            await self._commit(Write(rows=(self._begun_row(None),)))
            self.begun = None

    async def _commit(self, write: Write) -> None:
        # Whoever is cancelled in between must not leave rows that this object does not know of.
        with trio.CancelScope(shield=True):
            await self.store.commit(write)

    def last_entry(self) -> Signed[FeedEntry] | None:
        """The last entry; None if there is none."""
        return self.entry_at(self.head.number)

    def entry_at(self, number: int) -> Signed[FeedEntry] | None:
        """The entry with this number; None if it is not kept."""
        raw = self.store.read(Table.WORKFLOWS, self._entry_key(number)) if number > 0 else None
        return None if raw is None else _own(bytes(unpack(raw)[0]))

    def entries(self, number: int, limit: int) -> list[Signed[FeedEntry]]:
        """Kept entries from a number on, in order."""
        prefix = self._entry_key()
        start = self._entry_key(max(1, number))
        rows = self.store.scan(Table.WORKFLOWS, start=start, prefix=prefix, limit=limit)
        return [_own(bytes(unpack(value)[0])) for _, value in rows]

    def cost_of(self, number: int) -> int:
        """What the slot of an entry has cost here, in millionths."""
        raw = self.store.read(Table.WORKFLOWS, self._cost_row(number, 0).key)
        return 0 if raw is None else int(unpack(raw)[0])

    # Results that are on their way

    def waiting(self, destination: int, limit: int) -> list[int]:
        """The numbers of entries that this destination did not get yet, in order."""
        prefix = self._waiting_key(destination)
        rows = self.store.scan(Table.WORKFLOWS, prefix=prefix, limit=limit)
        return [int.from_bytes(key[len(prefix) :], "big") for key, _ in rows]

    async def delivered(self, destination: int, number: int) -> None:
        """Note that a destination has got an entry."""
        await self.store.commit(Write(rows=(self._waiting_row(destination, number, None),)))

    async def result_of(self, entry: FeedEntry) -> bytes | None:
        """The result of a slot; None if it has none, or it cannot be read."""
        if entry.result is None:
            return None
        try:
            return await self.store.get(entry.result, size_bytes_max=RESULT_BYTES_MAX)
        except StoreError:
            return None

    # Rows

    def _pruned(self, number: int) -> tuple[list[Row], list[Pin]]:
        """What goes when there are too many entries: the oldest, and what only it keeps."""
        raw = self.store.read(Table.WORKFLOWS, self._entry_key(number)) if number > 0 else None
        if raw is None:
            return [], []
        pins = [Pin(ContentId(it), self._why(number)) for it in unpack(raw)[1]]
        rows = [Row(Table.WORKFLOWS, self._entry_key(number), None), self._cost_row(number, 0)]
        rows += self.lost.until(_own(bytes(unpack(raw)[0])).record.slot_ms)
        return rows + [self._waiting_row(it, number, None) for it in self.destinations], pins

    def _why(self, number: int) -> str:
        return f"workflow:{self.name}:{number}"

    def _entry_key(self, number: int | None = None) -> bytes:
        tail = b"" if number is None else number.to_bytes(8, "big")
        return _ENTRY + self.name.encode() + b"\0" + tail

    def _cost_row(self, number: int, cost: int) -> Row:
        key = _COST + self.name.encode() + b"\0" + number.to_bytes(8, "big")
        return Row(Table.WORKFLOWS, key, pack([cost]) if cost else None)

    def _waiting_key(self, destination: int) -> bytes:
        return _WAITING + self.name.encode() + b"\0" + bytes((destination,))

    def _waiting_row(self, destination: int, number: int, value: bytes | None) -> Row:
        key = self._waiting_key(destination) + number.to_bytes(8, "big")
        return Row(Table.WORKFLOWS, key, value)

    def _head_row(self, head: FeedHead) -> Row:
        value = pack([head.number, head.digest, head.cursor_ms, head.epoch])
        return Row(Table.WORKFLOWS, _HEAD + self.name.encode(), value)

    def _begun_row(self, begun: BegunSlot | None) -> Row:
        value = None if begun is None else _begun_bytes(begun)
        return Row(Table.WORKFLOWS, _BEGUN + self.name.encode(), value)


def kept_workflows(store: Store) -> list[KeptWorkflow]:
    """Every workflow of this peer, by name."""
    rows = store.scan(Table.WORKFLOWS, prefix=_FILE, limit=WORKFLOWS_MAX)
    found = []
    for key, value in rows:
        _, text, feed, paused = unpack(value)
        name = key.removeprefix(_FILE).decode()
        found.append(
            KeptWorkflow(name=name, text=text, feed=FeedRecord.from_bytes(feed), paused=paused)
        )
    return found


async def add_workflow(store: Store, kept: KeptWorkflow, from_ms: int) -> None:
    """Keep a new workflow; its slots count from then on. InputError if there are too many."""
    if len(kept_workflows(store)) >= WORKFLOWS_MAX:
        raise InputError(f"there are {WORKFLOWS_MAX} workflows already")
    head = pack([0, FIRST_ENTRY, from_ms, 0])
    row = Row(Table.WORKFLOWS, _HEAD + kept.name.encode(), head)
    await store.commit(Write(rows=(kept.row, row)))


async def remove_workflow(store: Store, name: str) -> None:
    """Forget a workflow and all that was kept of it, itself first."""
    tail = name.encode()
    first = [Row(Table.WORKFLOWS, kind + tail, None) for kind in (_FILE, _HEAD, _BEGUN)]
    await store.commit(Write(rows=tuple(first)))
    for prefix in (_ENTRY + tail + b"\0", _WAITING + tail + b"\0"):
        while rows := store.scan(Table.WORKFLOWS, prefix=prefix, limit=_ROWS_AT_ONCE):
            pins = list(_pins_of(name, rows)) if prefix.startswith(_ENTRY) else []
            gone = tuple(Row(Table.WORKFLOWS, key, None) for key, _ in rows)
            await store.commit(Write(rows=gone, unpins=tuple(pins)))


def _pins_of(name: str, rows: Sequence[tuple[bytes, bytes]]) -> Iterable[Pin]:
    for key, value in rows:
        number = int.from_bytes(key[-8:], "big")
        for content in unpack(value)[1]:
            yield Pin(ContentId(content), f"workflow:{name}:{number}")


def document_size_bytes(data: bytes) -> int:
    """The size of a result; InputError if it is larger than what is kept of one run."""
    if len(data) > RESULT_BYTES_MAX:
        raise InputError(
            f"the result has {len(data)} bytes, at most {RESULT_BYTES_MAX} are kept",
            todo="select less of the source, or ask the model for less",
        )
    return len(data)


def result_id(data: bytes) -> ContentId:
    """What a result is named by in its entry."""
    return name_of(data)


def _ids(entry: FeedEntry) -> list[ContentId]:
    return [it for it in (entry.result, entry.answer, *entry.fetches) if it is not None]


def _own(raw: bytes) -> Signed[FeedEntry]:
    """An entry that was checked when it was kept, or that this peer has signed itself."""
    envelope = Envelope.read(raw, FeedEntry)
    return Signed(envelope.claimed(), envelope.signer, raw, ContentId.of(raw))


def _begun_bytes(it: BegunSlot) -> bytes:
    answers, contents = [bytes(one) for one in it.answers], [bytes(one) for one in it.contents]
    row: list[Value] = [it.slot_ms, it.by_hand, it.began_at_ms, it.tries, it.why, it.task]
    row += [answers, contents]
    return pack([*row, it.cost] if it.cost else row)


def _begun_of(raw: bytes) -> BegunSlot:
    slot_ms, by_hand, began_at_ms, tries, why, task, answers, contents, *cost = unpack(raw)
    return BegunSlot(
        slot_ms=slot_ms,
        by_hand=by_hand,
        began_at_ms=began_at_ms,
        tries=tries,
        why=why,
        task=task,
        answers=tuple(map(ContentId, answers)),
        contents=tuple(map(ContentId, contents)),
        cost=cost[0] if cost else 0,
    )
