"""`verify`: a receipt checked offline; the same points as text or as JSON."""

import json
from pathlib import Path

from node.checking.audit import AuditReport, Status, audit, begins_as_receipt
from node.commands.output import console, safe, show_json
from node.gateway_config import HTTP_DEFAULT
from wire import limits
from wire.chain import source_of
from wire.content import ContentId
from wire.errors import InputError, Malformed
from wire.tree import name_of

PAYLOAD_BYTES_MAX = 256 << 20
_WHERE = "receipt files lie in receipts/ of the state folder; see python -m node receipts"
_MARK = {
    Status.HOLDS: "[green]✓[/green]",
    Status.FAILS: "[red]✗[/red]",
    Status.UNKNOWN: "[yellow]?[/yellow]",
}


def verify(receipt: Path, content: tuple[Path, ...], *, as_json: bool) -> None:
    """Check a receipt file and show every point; InputError names the first that fails."""
    raw = _read(receipt, limits.FRAME_BYTES_MAX)
    if not begins_as_receipt(raw):
        raise _no_receipt(receipt, raw)
    beside = [receipt.with_suffix(it) for it in (".input", ".output")]
    at_hand: dict[ContentId, bytes] = {}
    names: dict[Path, ContentId] = {}
    for path in (*content, *(it for it in beside if it.exists())):
        data = _read(path, PAYLOAD_BYTES_MAX)
        names[path] = name_of(data)
        at_hand[names[path]] = data
    report = audit(raw, at_hand.get)
    signed_for = _signed_for(report)
    for path, name in names.items():
        if report.answer is not None and name not in signed_for:
            report.note(False, f"{path.name} is an input or an output of this task", str(name))
    if as_json:
        show_json(_document(report))
    else:
        _show(report)
    failed = next((it for it in report.points if it.status is Status.FAILS), None)
    if failed is not None:
        detail = f" ({failed.detail})" if failed.detail else ""
        raise InputError(
            f"the receipt does not hold; what fails is {failed.what!r}{detail}",
            todo="do not rely on it; have the task done again: python -m node ask … --fresh",
        )


def _no_receipt(path: Path, raw: bytes) -> InputError:
    """What to say of a file that is something else altogether."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    # In words as a gateway gives it (`id`), or as `ask --json` does.
    if isinstance(document, dict) and {"route", "verdicts"} <= document.keys():
        name = _id_of(document.get("id") or document.get("receipt"))
        return InputError(
            f"{path} is not a receipt file: it is the receipt as JSON, which is not signed",
            todo="fetch the file with: curl -H 'accept: application/octet-stream'"
            f" -o {name}.receipt http://{HTTP_DEFAULT}/v1/receipts/{name}",
        )
    return InputError(f"{path} is not a receipt file", todo=_WHERE)


def _id_of(text: object) -> str:
    try:
        return str(ContentId.parse(str(text)))
    except Malformed:
        return "ID"


def _signed_for(report: AuditReport) -> set[ContentId | None]:
    """Every input and output that the receipt names."""
    if report.task is None:
        return set()
    stages = range(len(report.receipts))
    inputs = {source_of(report.task, report.receipts, stage) for stage in stages}
    return inputs | {it.record.output for it in report.receipts}


def _read(path: Path, size_bytes_max: int) -> bytes:
    try:
        if path.stat().st_size > size_bytes_max:
            raise InputError(
                f"{path} is larger than {size_bytes_max} bytes",
                todo="name the .receipt file, and its content with --content",
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}",
            todo=_WHERE,
        ) from error


def _document(report: AuditReport) -> dict[str, object]:
    return {
        "holds": report.holds,
        "receipt": None if report.answer is None else str(report.answer.id),
        "points": [
            {"status": it.status.value, "what": it.what, "detail": it.detail}
            for it in report.points
        ],
    }


def _show(report: AuditReport) -> None:
    for point in report.points:
        detail = f"  [dim]{safe(point.detail)}[/dim]" if point.detail else ""
        console.print(f" {_MARK[point.status]} {safe(point.what)}{detail}")
    unknown = sum(it.status is Status.UNKNOWN for it in report.points)
    if report.holds:
        console.print(
            f"[bold green]the receipt holds[/bold green]; {unknown} points cannot be known"
        )
    else:
        console.print("[bold red]the receipt does not hold[/bold red]")
