"""The feed of a workflow: what became of each of its slots, as a chain of signed entries.

An entry names the one before it, so whoever has an entry can tell whether a later one goes on from
it. Whoever shows one feed to some and another to others signs two entries with one number.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.fetch import QUORUM_MAX
from wire.kinds import Kind
from wire.message_base import Message
from wire.schema import Between, Digest, Int, Name, Reason, Record
from wire.signed import Signed, SignedRecord, open_signed

KEEPERS_MAX = 8
ENTRY_BYTES_MAX = 4096
# So many entries are shown at once.
ENTRIES_PER_PAGE = 32
EntryEnvelope = Annotated[bytes, Between(1, ENTRY_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
# What the first entry of a feed names in place of one before it.
FIRST_ENTRY = bytes(32)
# How a slot ended: with a result; without one, after every try; not begun, because no keeper was
# there at its time; not begun, because the run before it had not ended.
DONE, FAILED, MISSED, SKIPPED = "done", "failed", "missed", "skipped"
ENDS = (DONE, FAILED, MISSED, SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedRecord(Record):
    """A feed, as its content id names it: whose it is, and when its slots are.

    `keepers` may sign its entries, the first before all others. `schedule` is `every 5m` or a cron
    expression, in the time zone `zone`. `definition` is the SHA-256 of the workflow as its owner
    wrote it, which nobody else needs to see.
    """

    SIZE_BYTES_MAX: ClassVar[int] = 4096

    name: Name
    keepers: Annotated[tuple[PeerId, ...], Between(1, KEEPERS_MAX)]
    schedule: Annotated[str, Between(1, 256)]
    zone: Name
    definition: Digest
    begun_at_ms: Int

    @property
    def id(self) -> ContentId:
        """What it is named by everywhere."""
        return ContentId.of(self.to_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSpan(Record):
    """Slots that follow each other: the first, the last, and how many, as moments in ms."""

    first_ms: Int
    last_ms: Int
    slots: Annotated[int, Between(1, 2**40)]

    def check(self) -> None:
        """Malformed unless the three go together."""
        if (self.first_ms > self.last_ms) or (self.slots == 1) is not (
            self.first_ms == self.last_ms
        ):
            raise Malformed("slots that do not follow each other")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEntry(SignedRecord):
    """What became of one slot, or of several that nobody began; numbered from 1.

    `span` is when the slot was due, or several that nobody began. `by_hand` says that somebody
    asked for a run out of turn. `result` is what came of it, as JSON; `answer` the answer of the
    model, `fetches` those of the data peers: the receipts. `why` says what failed.
    """

    KIND: ClassVar[Kind] = Kind.FEED_ENTRY
    SIZE_BYTES_MAX: ClassVar[int] = ENTRY_BYTES_MAX

    feed: ContentId
    number: Annotated[int, Between(1, 2**62)]
    previous: Digest
    epoch: Int
    end: Name
    span: SlotSpan
    by_hand: bool
    began_at_ms: Int
    ended_at_ms: Int
    tries: Annotated[int, Between(0, 255)]
    result: ContentId | None
    answer: ContentId | None
    fetches: Annotated[tuple[ContentId, ...], Between(0, QUORUM_MAX)]
    why: Reason

    def check(self) -> None:
        """Malformed unless what it says goes together."""
        if (self.number == 1) is not (self.previous == FIRST_ENTRY):
            raise Malformed("every entry of a feed but the first names the one before it")
        if self.end not in ENDS:
            raise Malformed(f"a slot that ended as {self.end[:40]!r}")
        if (self.end == DONE) is not (self.result is not None):
            raise Malformed("a slot has a result if it is done, and only then")
        if self.end in (DONE, FAILED) and self.span.slots != 1:
            raise Malformed("a slot that was begun has an entry of its own")

    @property
    def slot_ms(self) -> int:
        """When the slot was due; of several the last."""
        return self.span.last_ms

    @property
    def digest(self) -> bytes:
        """What the next entry names this one by: 32 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()


def contradiction_of_entries(one: Signed[FeedEntry], other: Signed[FeedEntry]) -> str | None:
    """Why two entries prove that their signer showed two feeds, in words; None if they do not.

    Entries of different keepers, or of different epochs, prove nothing against either.
    """
    first, second = sorted((one.record, other.record), key=lambda it: it.number)
    if one.signer != other.signer or (first.feed, first.epoch) != (second.feed, second.epoch):
        return None
    if first.number == second.number and first != second:
        return f"it signed two entries with the number {first.number} that differ"
    if second.number == first.number + 1 and second.previous != first.digest:
        return f"entry {second.number} does not follow on entry {first.number}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFork(SignedRecord):
    """Two entries of one feed that contradict each other, signed by whoever found them.

    Nothing in it is a conclusion, and nobody's word is needed: `judge_entries` finds it.
    """

    KIND: ClassVar[Kind] = Kind.FEED_FORK
    SIZE_BYTES_MAX: ClassVar[int] = 3 * ENTRY_BYTES_MAX

    first: EntryEnvelope
    second: EntryEnvelope


def judge_entries(fork: FeedFork) -> tuple[Signed[FeedEntry], Signed[FeedEntry], str]:
    """The entries of a fork, and why they contradict; WireError if it proves nothing."""
    first, second = open_signed(fork.first, FeedEntry), open_signed(fork.second, FeedEntry)
    why = contradiction_of_entries(first, second)
    if why is None:
        raise Malformed("its two entries do not contradict each other")
    return first, second, why


@dataclass(frozen=True, slots=True, kw_only=True)
class AskFeed(Message):
    """Your entries of this feed from a number on, in order, as many as you tell at once."""

    KIND: ClassVar[Kind] = Kind.ASK_FEED

    feed: ContentId
    number: Annotated[int, Between(1, 2**62)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPage(Message):
    """A `FeedRecord`, the number of its last entry, and entries that follow each other."""

    KIND: ClassVar[Kind] = Kind.FEED_PAGE

    record: Annotated[bytes, Between(1, ENTRY_BYTES_MAX)]
    last: Int
    entries: Annotated[tuple[EntryEnvelope, ...], Between(0, ENTRIES_PER_PAGE)]
