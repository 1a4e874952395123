"""`verify` of a feed: one entry of it, and two that contradict each other, judged offline."""

from pathlib import Path

from node.commands.output import console, safe, show_json
from node.commands.receipt_file import begins_with, read_file
from node.commands.to_type import hint
from node.workflows.branches import DoubledSlot, is_double, rank
from node.workflows.delivery import told_time
from node.workflows.entry_file import (
    ENTRY_SUFFIX,
    CheckedEntry,
    EntryFile,
    check_entry,
    result_of_file,
)
from wire import limits
from wire.errors import InputError, WireError
from wire.feed import FeedEntry, FeedFork, judge_entries
from wire.kinds import Kind
from wire.signed import Signed, open_signed

_HEAD = bytes((0x94, Kind.FEED_FORK))
_STATUS = {True: "holds", False: "fails", None: "cannot be known"}
_MARK = {True: "[green]✓[/green]", False: "[red]✗[/red]", None: "[yellow]?[/yellow]"}


def is_entry(path: Path) -> bool:
    """Whether a file is called like the entry of a feed."""
    return path.suffix == ENTRY_SUFFIX


def is_feed_fork(path: Path) -> bool:
    """Whether a file begins as two entries that contradict do; False for what cannot be read."""
    return begins_with(path, _HEAD)


def verify_entry(path: Path, *, as_json: bool) -> None:
    """Check an entry and show a page about it; InputError names the first point that fails."""
    data = read_file(path, EntryFile.SIZE_BYTES_MAX)
    found = check_entry(data)
    if as_json:
        show_json(_document(found, data))
    else:
        _show(found, data)
    if (failed := found.failed) is not None:
        raise InputError(
            f"the entry does not hold; what fails is {failed[1]!r} ({failed[2]})",
            todo="do not rely on it",
        )


def _document(found: CheckedEntry, data: bytes) -> dict[str, object]:
    one = found.entry.record
    return {
        "holds": found.failed is None,
        "feed": str(one.feed),
        "name": found.record.name,
        "number": one.number,
        "slot": told_time(one.slot_ms),
        "end": one.end,
        "keeper": str(found.entry.signer),
        "receipt": None if one.answer is None else str(one.answer),
        "fetch_receipts": [str(it) for it in one.fetches],
        "result": result_of_file(data),
        "points": [
            {"status": _STATUS[good], "what": what, "detail": detail}
            for good, what, detail in found.points
        ],
    }


def _show(found: CheckedEntry, data: bytes) -> None:
    one = found.entry.record
    console.print(f"[bold]feed[/bold]    {safe(found.record.name)} {one.feed}")
    console.print(
        f"[bold]entry[/bold]   {one.number}: {safe(one.end)}, slot {told_time(one.slot_ms)}"
    )
    console.print(f"[bold]result[/bold]  {safe(str(result_of_file(data))[:400])}")
    for good, what, detail in found.points:
        console.print(f" {_MARK[good]} {safe(what)}  [dim]{safe(detail)}[/dim]")


def verify_feed_fork(path: Path, *, as_json: bool) -> None:
    """Say who signed two entries that contradict each other; InputError if they do not.

    Of two keepers' results for one slot, say which counts.
    """
    raw = read_file(path, FeedFork.SIZE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)
    try:
        signed = open_signed(raw, FeedFork)
        if (double := _double(signed.record)) is not None:
            _show_double(signed, double, as_json=as_json)
            return
        first, second, why = judge_entries(signed.record)
    except WireError as error:
        raise InputError(
            f"the record of a fork does not hold: {error.message}",
            todo="do not rely on it; ask whoever gave it to you for another copy",
        ) from error
    if as_json:
        show_json(
            {
                "fork": str(signed.id),
                "feed": str(first.record.feed),
                "peer": str(first.signer),
                "found_by": str(signed.signer),
                "why": why,
                "entries": [str(first.id), str(second.id)],
            }
        )
        return
    console.print(f"[bold]feed[/bold]      {first.record.feed}")
    console.print(f"[bold]kept by[/bold]   {first.signer}")
    console.print(f"[bold]found by[/bold]  {signed.signer}")
    console.print(
        f"\n[bold red]this keeper showed two histories[/bold red]: {safe(why)}.\nBoth entries have"
        " its signature; nobody's word was needed."
    )


def _double(fork: FeedFork) -> DoubledSlot | None:
    """Two results of two keepers for one slot; None for anything else. WireError if forged."""
    first, second = open_signed(fork.first, FeedEntry), open_signed(fork.second, FeedEntry)
    if not is_double(first, second):
        return None
    lower, higher = sorted((first, second), key=rank)
    return DoubledSlot(higher, lower)


def _show_double(signed: Signed[FeedFork], double: DoubledSlot, *, as_json: bool) -> None:
    counts, other = double.counts, double.other
    if as_json:
        show_json(
            {
                "double": str(signed.id),
                "feed": str(counts.record.feed),
                "slot": told_time(double.slot_ms),
                "found_by": str(signed.signer),
                "keepers": [str(counts.signer), str(other.signer)],
                "epochs": [counts.record.epoch, other.record.epoch],
                "results": [str(counts.record.result), str(other.record.result)],
                "counts": str(counts.id),
            }
        )
        return
    console.print(f"[bold]feed[/bold]      {counts.record.feed}")
    console.print(f"[bold]slot[/bold]      {told_time(double.slot_ms)}")
    for words, one in (("counts", counts), ("does not count", other)):
        console.print(f"epoch {one.record.epoch}, {words}: {one.record.result} by {one.signer}")
    console.print(
        hint(
            "\n[bold]two keepers ran one slot[/bold], which keepers that cannot reach each other"
            " may do.\nThe later epoch counts, and nobody is convicted. Which of them had the feed,"
            " only its record\nsays: python -m node workflows history"
        )
    )
