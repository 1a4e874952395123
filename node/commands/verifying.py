"""`verify`: a receipt checked offline; the same points as text or as JSON."""

from pathlib import Path

from node.audit import Report, Status, audit
from node.commands.showing import console, safe, show_json
from wire import limits
from wire.content import ContentId
from wire.errors import InputError
from wire.tree import name_of

PAYLOAD_BYTES_MAX = 256 << 20
_MARK = {
    Status.HOLDS: "[green]✓[/green]",
    Status.FAILS: "[red]✗[/red]",
    Status.UNKNOWN: "[yellow]?[/yellow]",
}


def verify(receipt: Path, content: tuple[Path, ...], *, as_json: bool) -> bool:
    """Check a receipt file; whether everything that can be checked holds."""
    raw = _read(receipt, limits.FRAME_BYTES_MAX)
    beside = [receipt.with_suffix(it) for it in (".input", ".output")]
    at_hand: dict[ContentId, bytes] = {}
    for path in (*content, *(it for it in beside if it.exists())):
        data = _read(path, PAYLOAD_BYTES_MAX)
        at_hand[name_of(data)] = data
    report = audit(raw, at_hand.get)
    if as_json:
        show_json(_document(report))
    else:
        _show(report)
    return report.holds


def _read(path: Path, size_bytes_max: int) -> bytes:
    try:
        if path.stat().st_size > size_bytes_max:
            raise InputError(f"{path} is larger than {size_bytes_max} bytes: it is no receipt")
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}",
            todo="receipts lie in the state folder's receipts/; see python -m node receipts",
        ) from error


def _document(report: Report) -> dict[str, object]:
    return {
        "holds": report.holds,
        "receipt": None if report.answer is None else str(report.answer.id),
        "points": [
            {"status": it.status.value, "what": it.what, "detail": it.detail}
            for it in report.points
        ],
    }


def _show(report: Report) -> None:
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
