"""`verify` of a fork: two heads of one peer's log that contradict each other, judged offline."""

from pathlib import Path

from node.commands.output import console, safe, show_json
from node.commands.receipt_file import begins_with, read_file
from wire import limits
from wire.errors import InputError, WireError
from wire.kinds import Kind
from wire.log import JudgedFork, LogFork, judge
from wire.plural import plural
from wire.signed import Signed, open_signed

# A list of four things, and the kind: no receipt begins so.
_HEAD = bytes((0x94, Kind.LOG_FORK))


def is_fork(path: Path) -> bool:
    """Whether a file begins as the record of a fork does; False for what cannot be read."""
    return begins_with(path, _HEAD)


def verify_fork(path: Path, *, as_json: bool) -> None:
    """Say who signed two heads that contradict each other; InputError if they do not."""
    raw = read_file(path, LogFork.SIZE_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)
    try:
        signed = open_signed(raw, LogFork)
        found = judge(signed.record)
    except WireError as error:
        raise InputError(
            f"the record of a fork does not hold: {error.message}",
            todo="do not rely on it; ask whoever gave it to you for another copy",
        ) from error
    if as_json:
        show_json(_document(signed, found))
        return
    console.print(f"[bold]log of[/bold]    {found.first.signer}")
    console.print(f"[bold]found by[/bold]  {signed.signer}")
    for head in (found.first.record, found.second.record):
        console.print(
            f"[bold]head {head.number}[/bold]    {plural(head.size, 'receipt')}, root"
            f" {head.root.hex()}"
        )
    console.print(
        f"\n[bold red]this peer showed two logs[/bold red]: {safe(found.why)}.\nBoth heads have its"
        " signature; nobody's word was needed."
    )


def _document(signed: Signed[LogFork], found: JudgedFork) -> dict[str, object]:
    return {
        "fork": str(signed.id),
        "peer": str(found.first.signer),
        "found_by": str(signed.signer),
        "why": found.why,
        "heads": [
            {
                "number": it.record.number,
                "size": it.record.size,
                "root": it.record.root.hex(),
                "signed_at_ms": it.record.signed_at_ms,
            }
            for it in (found.first, found.second)
        ],
    }
