"""`verify`: a receipt checked offline, as a page for people or as JSON."""

from datetime import UTC, datetime
from pathlib import Path

from node.checking.audit import AuditReport, Status, audit
from node.checking.summary import Summary, summary_of
from node.commands.output import console, safe, show_json
from node.commands.receipt_file import read_receipt
from node.models.pinned import PINNED
from wire.chain import source_of
from wire.content import ContentId
from wire.errors import InputError

# Of a question or an answer so much is shown.
SHOWN_CHARS = 400
_TITLES = {
    Status.FAILS: "What is wrong",
    Status.DISPUTED: "What is disputed",
    Status.HOLDS: "What is proved",
    Status.UNKNOWN: "What nobody can know from this",
}
_MARK = {
    Status.HOLDS: "[green]✓[/green]",
    Status.FAILS: "[red]✗[/red]",
    Status.DISPUTED: "[red]![/red]",
    Status.UNKNOWN: "[yellow]?[/yellow]",
}


def verify(state: Path, receipt: str, content: tuple[Path, ...], *, as_json: bool) -> None:
    """Check a receipt and show a page about it; InputError names the first point that fails.

    `receipt` is a file, a bundle, or the id of an answer that is kept in the state folder.
    """
    found = read_receipt(state, receipt)
    for path in content:
        found.add_file(path)
    report = audit(found.answer, found.have)
    if found.wanted is not None and report.answer is not None:
        right = report.answer.id == found.wanted
        report.note(right, "it is the receipt that was named", f"{found.wanted}")
    signed_for = _signed_for(report)
    for called, name in found.files.items():
        if report.answer is not None and name not in signed_for:
            report.note(False, f"{called} is an input or an output of this task", str(name))
    summary = None
    if report.answer is not None and report.task is not None and report.receipts:
        summary = summary_of(report.answer, report.task, report.receipts, found.have)
    if as_json:
        show_json(_document(report, summary))
    else:
        show_page(report, summary)
    bad = [it for it in report.points if it.status in (Status.FAILS, Status.DISPUTED)]
    failed = min(bad, key=lambda it: it.status is Status.DISPUTED, default=None)
    if failed is not None and failed.status is Status.DISPUTED:
        raise InputError(
            f"the receipt is disputed: {failed.what} ({failed.detail})",
            todo="do not rely on it; have the task done again: python -m node ask … --fresh",
        )
    if failed is not None:
        detail = f" ({failed.detail})" if failed.detail else ""
        raise InputError(
            f"the receipt does not hold; what fails is {failed.what!r}{detail}",
            todo="do not rely on it; have the task done again: python -m node ask … --fresh",
        )


def _signed_for(report: AuditReport) -> set[ContentId | None]:
    """Every input and output that the receipt names."""
    if report.task is None:
        return set()
    stages = range(len(report.receipts))
    inputs = {source_of(report.task, report.receipts, stage) for stage in stages}
    return inputs | {it.record.output for it in report.receipts}


def _document(report: AuditReport, summary: Summary | None) -> dict[str, object]:
    return {
        "holds": report.holds,
        "disputed": report.disputed,
        "checked": summary is not None and summary.needed > 0 and report.holds,
        "receipt": None if report.answer is None else str(report.answer.id),
        **({} if summary is None else {"summary": _summary_document(summary)}),
        "points": [
            {"status": it.status.value, "what": it.what, "detail": it.detail}
            for it in report.points
        ],
    }


def _summary_document(summary: Summary) -> dict[str, object]:
    return {
        "question": summary.question,
        "model": None if summary.model is None else str(summary.model),
        "operation": summary.operation,
        "asked_at_ms": summary.asked_at_ms,
        "answered_at_ms": summary.answered_at_ms,
        "asked_by": str(summary.asked_by),
        "answered_by": [str(it) for it in summary.answered_by],
        "answer": summary.answer,
    }


def show_page(report: AuditReport, summary: Summary | None) -> None:
    """What the receipt is about, what it proves, what is wrong with it, what nobody can know."""
    if summary is not None:
        _show_summary(summary)
    for status, title in _TITLES.items():
        points = [it for it in report.points if it.status is status]
        if points:
            console.print(f"\n[bold]{title}[/bold]")
        for point in points:
            detail = f"  [dim]{safe(point.detail)}[/dim]" if point.detail else ""
            console.print(f" {_MARK[status]} {safe(point.what)}{detail}")
    console.print("\n" + _conclusion(report, summary))


def _show_summary(summary: Summary) -> None:
    at, took_s = summary.asked_at_ms / 1000, summary.answered_at_ms - summary.asked_at_ms
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    doers = ", ".join(f"…{str(it)[-6:]}" for it in summary.answered_by)
    settings = f" ({summary.settings})" if summary.settings else ""
    rows = (
        ("asked", _beginning(summary.question, "input")),
        ("of", f"{_model(summary.model)}: {summary.operation}{settings}"),
        ("when", f"{when}, answered {took_s / 1000:.1f} s later"),
        ("by whom", f"asked by …{str(summary.asked_by)[-6:]}, answered by {doers}"),
        ("answer", _beginning(summary.answer, "output")),
    )
    for name, text in rows:
        lines = safe(text).splitlines() or [""]
        console.print(f"[bold]{name:<9}[/bold]" + f"\n{'':9}".join(lines))


def _model(model: ContentId | None) -> str:
    """A model by the name that this project pins, and by its id."""
    if model is None:
        return "a data peer"
    name = next((it for it, make in PINNED.items() if make().id == model), "the model")
    return f"{name} {model}"


def _beginning(text: str | None, what: str) -> str:
    if text is None:
        return f"(the {what} is not at hand; give it with --content)"
    short = text.strip()
    return short if len(short) <= SHOWN_CHARS else short[:SHOWN_CHARS].rstrip() + " …"


def _conclusion(report: AuditReport, summary: Summary | None) -> str:
    """One sentence to take away. An answer that nobody checked is never just said to hold."""
    if report.disputed:
        return (
            "[bold red]this answer is disputed[/bold red]: a verifier proved a row wrong, and too"
            " few of those\nthat agree looked at that row. Do not rely on it."
        )
    if not report.holds:
        return "[bold red]the receipt does not hold: do not rely on this answer[/bold red]"
    if summary is None or not summary.needed:
        return (
            "[bold yellow]nobody checked this answer[/bold yellow]: it is proved who gave it, and"
            " that nothing was\nchanged since; not that it is what the model says."
            " To have one checked: ask --verdicts 2/3"
        )
    return (
        f"[bold green]the receipt holds[/bold green]: verifiers, {summary.needed} drawn by lot,"
        " recomputed parts\nof this answer and found the same. Whether it is true is for you to"
        " judge: models can be wrong."
    )
