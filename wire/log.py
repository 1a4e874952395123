"""The log of a peer: a tree over all receipts that it signed, and now and then a signed head of it.

A head names the one before it, so the heads of a log are a chain, and each says how many receipts
there were, and the root over them. Whoever shows one log to some and another to others signs two
heads that contradict each other: those two are enough for anybody to know it, without a word more.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits, merkle
from wire.content import ContentId
from wire.errors import Malformed
from wire.kinds import Kind
from wire.message_base import Message
from wire.receipt import Envelope
from wire.schema import Between, Digest, Int, Record
from wire.signed import Signed, SignedRecord, open_signed

HeadEnvelope = Annotated[bytes, Between(1, limits.LOG_HEAD_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
ForkEnvelope = Annotated[bytes, Between(1, limits.LOG_FORK_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
LogIndex = Annotated[int, Between(0, limits.LOG_RECEIPTS_MAX - 1)]
# What the first head of a log names in place of one before it.
FIRST = bytes(merkle.HASH_BYTES)
_LEVELS_MAX = (limits.LOG_RECEIPTS_MAX - 1).bit_length()
LogPath = Annotated[bytes, Between(0, merkle.HASH_BYTES * _LEVELS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead(SignedRecord):
    """What a peer says of its log: so many receipts, with this root over them.

    Heads are numbered from 1; `previous` is the `digest` of the head before, `FIRST` in the first.
    A peer that lost its disk begins another log, told apart by `began_at_ms` of its own clock.
    """

    KIND: ClassVar[Kind] = Kind.LOG_HEAD
    SIZE_BYTES_MAX: ClassVar[int] = limits.LOG_HEAD_BYTES_MAX

    began_at_ms: Int
    number: Annotated[int, Between(1, limits.LOG_RECEIPTS_MAX)]
    size: Annotated[int, Between(1, limits.LOG_RECEIPTS_MAX)]
    root: Digest
    previous: Digest
    signed_at_ms: Int

    def check(self) -> None:
        """Malformed unless the first head alone has none before it."""
        if (self.number == 1) is not (self.previous == FIRST):
            raise Malformed("every head of a log but the first names the one before it")

    @property
    def digest(self) -> bytes:
        """What the next head names this one by: 32 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()


def contradiction(one: Signed[LogHead], other: Signed[LogHead]) -> str | None:
    """Why two heads prove that their signer showed two logs, in words; None if they do not.

    Heads of different signers, or of two logs of which one was begun after the other was lost,
    prove nothing.
    """
    first, second = sorted((one.record, other.record), key=lambda it: it.number)
    if one.signer != other.signer or first.began_at_ms != second.began_at_ms or first == second:
        return None
    if first.number == second.number:
        return f"it signed two heads with the number {first.number} that differ"
    if second.size < first.size:
        return (
            f"head {second.number} has {second.size} receipts, fewer than head {first.number}"
            f" before it, which has {first.size}"
        )
    if second.size == first.size and second.root != first.root:
        return f"heads {first.number} and {second.number} have {first.size} receipts that differ"
    if second.number == first.number + 1 and second.previous != first.digest:
        return f"head {second.number} does not follow on head {first.number}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFork(SignedRecord):
    """Two heads of one peer's log that contradict each other, signed by whoever found them.

    Nothing in it is a conclusion, and nobody's word is needed: `judge` finds it from the heads.
    """

    KIND: ClassVar[Kind] = Kind.LOG_FORK
    SIZE_BYTES_MAX: ClassVar[int] = limits.LOG_FORK_BYTES_MAX

    first: HeadEnvelope
    second: HeadEnvelope


@dataclass(frozen=True, slots=True)
class JudgedFork:
    """The heads of a fork, which both have a right signature, and why they contradict."""

    first: Signed[LogHead]
    second: Signed[LogHead]
    why: str


def judge(fork: LogFork) -> JudgedFork:
    """Find what a fork proves; WireError if it proves nothing."""
    first, second = open_signed(fork.first, LogHead), open_signed(fork.second, LogHead)
    if first.signer != second.signer:
        raise Malformed("its two heads are of two peers")
    why = contradiction(first, second)
    if why is None:
        raise Malformed("its two heads do not contradict each other")
    return JudgedFork(first, second, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskPlace(Message):
    """Where in your log is this receipt of yours?"""

    KIND: ClassVar[Kind] = Kind.ASK_PLACE
    receipt: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlace(Message):
    """The place of a receipt in its signer's log, under a head: it is enough to be checked alone.

    Kept beside the receipt, these same bytes are the proof that it is in the log.
    """

    KIND: ClassVar[Kind] = Kind.LOG_PLACE
    head: HeadEnvelope
    index: LogIndex
    path: LogPath


@dataclass(frozen=True, slots=True, kw_only=True)
class AskHeads(Message):
    """Your heads from this number on, in order, as many as you tell at once."""

    KIND: ClassVar[Kind] = Kind.ASK_HEADS
    number: Annotated[int, Between(1, limits.LOG_RECEIPTS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNews(Message):
    """The latest heads that a peer knows, its own and others', and forks that it has proof of."""

    KIND: ClassVar[Kind] = Kind.LOG_NEWS
    heads: Annotated[tuple[HeadEnvelope, ...], Between(0, limits.LOG_HEADS_PER_MESSAGE_MAX)]
    forks: Annotated[tuple[ForkEnvelope, ...], Between(0, limits.LOG_FORKS_PER_MESSAGE_MAX)]


def leaf_of(receipt: ContentId) -> bytes:
    """The leaf of a receipt, which is named by its id."""
    return merkle.leaf(receipt)


def check_place(place: LogPlace, receipt: ContentId, head: LogHead) -> None:
    """BadSignature unless the path leads from this receipt, at this index, to the head's root."""
    merkle.check_path(leaf_of(receipt), place.index, head.size, place.path, head.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlaces(Record):
    """What lies beside a receipt file: for each leg, in order, its `LogPlace`; empty for none."""

    SIZE_BYTES_MAX: ClassVar[int] = 16 << 10

    places: Annotated[tuple[Annotated[bytes, Between(0, 2304)], ...], Between(1, limits.STAGES_MAX)]
