"""One entry of a feed as a file for others: the entry, the record of the feed, the result. Pure.

Nothing else is needed to check it, and no peer.
"""

import json
from dataclasses import dataclass
from typing import Annotated, ClassVar

from node.workflows.branches import check_epoch
from node.workflows.schedule import SlotSchedule
from wire.errors import InputError, Malformed, WireError
from wire.feed import ENTRY_BYTES_MAX, EntryEnvelope, FeedEntry, FeedRecord
from wire.schema import Between, Record
from wire.signed import Signed, open_signed
from wire.tree import name_of

ENTRY_SUFFIX = ".entry"
_RESULT_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFile(Record):
    """What is in the file; `result` is empty where there is none."""

    SIZE_BYTES_MAX: ClassVar[int] = _RESULT_BYTES_MAX + 4 * ENTRY_BYTES_MAX

    record: Annotated[bytes, Between(1, ENTRY_BYTES_MAX)]
    entry: EntryEnvelope
    result: Annotated[bytes, Between(0, _RESULT_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class CheckedEntry:
    """An entry that was checked: point by point, whether it holds (None: nobody can know)."""

    entry: Signed[FeedEntry]
    record: FeedRecord
    points: tuple[tuple[bool | None, str, str], ...]

    @property
    def failed(self) -> tuple[bool | None, str, str] | None:
        return next((it for it in self.points if it[0] is False), None)


def check_entry(data: bytes) -> CheckedEntry:
    """Check a file of an entry; InputError if it is none, or nobody has signed it."""
    try:
        file = EntryFile.from_bytes(data)
        record = FeedRecord.from_bytes(file.record)
        entry = open_signed(file.entry, FeedEntry)
    except WireError as error:
        raise InputError(
            f"the entry of a feed does not hold: {error.message}",
            todo="do not rely on it; ask its keeper for it again: python -m node workflows export",
        ) from error
    return CheckedEntry(entry, record, tuple(_points(file, record, entry)))


def _points(
    file: EntryFile, record: FeedRecord, entry: Signed[FeedEntry]
) -> list[tuple[bool | None, str, str]]:
    one = entry.record
    points: list[tuple[bool | None, str, str]] = [
        (one.feed == record.id, "the record is that of the entry's feed", str(record.id)),
        (entry.signer in record.keepers, "a keeper of the feed has signed it", str(entry.signer)),
        *_epoch_points(record, entry),
        _slot_point(record, one),
    ]
    if one.result is not None:
        same = bool(file.result) and name_of(file.result) == one.result
        points.append((same, "the result is the one that was signed", str(one.result)))
    receipts = [it for it in (one.answer, *one.fetches) if it is not None]
    if receipts:
        names = ", ".join(map(str, receipts))
        points.append((None, "what its receipts show, until each of them is verified", names))
    points.append((None, "whether its keeper showed another entry to somebody else", ""))
    return points


def _epoch_points(
    record: FeedRecord, entry: Signed[FeedEntry]
) -> list[tuple[bool | None, str, str]]:
    """Of a feed with several keepers: whether it was this one's turn."""
    if len(record.keepers) == 1:
        return []
    try:
        check_epoch(record, None, entry)
    except Malformed as error:
        return [(False, "it was this keeper's turn", error.message)]
    return [
        (True, "it was this keeper's turn", f"epoch {entry.record.epoch}"),
        (None, "whether a keeper of a later epoch has another result, which counts then", ""),
    ]


def _slot_point(record: FeedRecord, one: FeedEntry) -> tuple[bool | None, str, str]:
    if one.by_hand:
        return (True, "it is of a run out of turn, and says so", "")
    what = "its slot is one of the schedule"
    try:
        schedule = SlotSchedule(record.schedule, record.zone)
        ends = schedule.has(one.span.first_ms) and schedule.has(one.span.last_ms)
    except InputError as error:
        return (None, what, error.message)
    return (ends, what, f"{record.schedule} {record.zone}")


def result_of_file(data: bytes) -> object:
    """The result in a file that was checked; None where there is none, or it is no JSON."""
    result = EntryFile.from_bytes(data).result
    try:
        return json.loads(result) if result else None
    except (ValueError, RecursionError):
        return None
