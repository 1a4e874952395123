"""`verify`: a receipt checked offline, as a page for people or as JSON."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from node.checking.audit import audit
from node.checking.audit_log import log_of
from node.checking.report import AuditReport, ReceiptPart, Status
from node.checking.summary import Summary, summary_of
from node.commands.chained import check_chain
from node.commands.command import run
from node.commands.fetched import check_fetches
from node.commands.output import console, safe, show_json
from node.commands.receipt_file import FoundReceipt, read_receipt
from node.commands.verify_model import check_model, replay_with
from node.ingest.extractor import REPEATING_PATIENCE, Extractor
from node.models.pinned import PINNED
from wire.chain import doers_of, source_of
from wire.content import ContentId
from wire.errors import InputError
from wire.kinds import Level
from wire.operations import CALL, FETCH

# Of a question or an answer so much is shown.
SHOWN_CHARS = 400
_TITLES = {
    (Status.FAILS, False): "What is wrong",
    (Status.DISPUTED, False): "What is disputed",
    (Status.HOLDS, False): "What is proved",
    (Status.UNKNOWN, False): "What cannot be known from what is at hand",
    (Status.UNKNOWN, True): "What nobody can know from a receipt",
}
_MARK = {
    Status.HOLDS: "[green]✓[/green]",
    Status.FAILS: "[red]✗[/red]",
    Status.DISPUTED: "[red]![/red]",
    Status.UNKNOWN: "[yellow]?[/yellow]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What whoever checks knows already; a receipt of something else does not pass for it."""

    task: str | None = None
    asked_by: str | None = None
    answered_by: str | None = None
    # A file, a folder, or the name of a packaged model.
    model: str | None = None
    # The structured reference string that proofs were made with.
    srs: Path | None = None
    content: tuple[Path, ...] = ()


def verify(state: Path, receipt: str, expected: Expected, now_ms: int, *, as_json: bool) -> None:
    """Check a receipt and show a page about it; InputError names the first point that fails.

    `receipt` is a file, a bundle, or the id of an answer that is kept in the state folder.
    """
    found = read_receipt(state, receipt)
    for path in expected.content:
        found.add_file(path)
    report = audit(
        found.answer,
        found.have,
        now_ms=now_ms,
        replay=replay_with(expected.model, found.have, expected.srs, state),
        check_log=log_of(found.log),
    )
    check_model(report, expected.model, found.have)
    _check_expected(report, found, expected)
    summary = None
    if report.answer is not None and report.task is not None and report.is_chain:
        summary = summary_of(report.answer, report.task, report.receipts, found.have)
    if as_json:
        show_json(_document(report, summary))
    else:
        show_page(report, summary)
    bad = report.first_bad
    if bad is not None:
        detail = f" ({bad.detail})" if bad.detail else ""
        raise InputError(
            _FAILURES[bad.status].format(part=bad.part, what=bad.what, detail=detail),
            todo="do not rely on it; have the task done again: python -m node ask … --fresh",
        )


_FAILURES = {
    Status.FAILS: "the receipt does not hold; what fails is {part}, {what!r}{detail}",
    Status.DISPUTED: "the receipt is disputed: {what}{detail}",
    Status.UNKNOWN: "the receipt does not show what its level promises; what cannot be known is"
    " {part}, {what!r}{detail}",
}


def _check_expected(report: AuditReport, found: FoundReceipt, expected: Expected) -> None:
    """Compare with what is known beforehand."""
    answer, task = report.answer, report.task
    if answer is None or task is None:
        return
    if found.wanted is not None:
        right = answer.id == found.wanted
        report.note(
            ReceiptPart.REQUEST, right, "it is the receipt that was named", str(found.wanted)
        )
    if expected.task is not None:
        what = "it is of the task that was named"
        report.note(
            ReceiptPart.REQUEST, str(task.id) == expected.task, what, f"its task is {task.id}"
        )
    if expected.asked_by is not None:
        what = "it was asked by the peer that was named"
        right = str(task.signer) == expected.asked_by
        report.note(ReceiptPart.SIGNATURES, right, what, f"by {task.signer}")
    if expected.answered_by is not None:
        doers = [str(it) for leg in report.receipts for it in doers_of(leg)]
        what = "it was answered by the peer that was named"
        right = expected.answered_by in doers
        report.note(ReceiptPart.SIGNATURES, right, what, f"by {', '.join(doers)}")
    if not report.is_chain:
        # It is said above that it does not hold, and what it names is not known.
        return
    signed_for = _signed_for(report) | {it.record.model for it in report.receipts}
    if any(it.record.operation == FETCH for it in report.receipts):
        signed_for |= run(
            partial(
                check_fetches, report, found.have, Extractor(patience=REPEATING_PATIENCE).extract
            )
        )
    if any(it.record.operation == CALL for it in report.receipts):
        extract = Extractor(patience=REPEATING_PATIENCE).extract
        run(partial(check_chain, report, found.have, found.bring_receipt, extract))
    for called, name in found.files.items():
        if name not in signed_for:
            what = f"{called} is an input or an output of this task"
            report.note(ReceiptPart.OUTPUT, False, what, str(name))


def _signed_for(report: AuditReport) -> set[ContentId | None]:
    """Every input and output that the receipt names."""
    assert report.task is not None
    stages = range(len(report.receipts))
    inputs = {source_of(report.task, report.receipts, stage) for stage in stages}
    return inputs | {it.record.output for it in report.receipts}


def _document(report: AuditReport, summary: Summary | None) -> dict[str, object]:
    results = {part: report.of_part(part) for part in ReceiptPart}
    return {
        "holds": report.holds,
        "disputed": report.disputed,
        "checked": summary is not None and summary.needed > 0 and report.holds,
        "level": None if report.level is None else report.level.word,
        "promised": [part.value for part in ReceiptPart if part in report.promised],
        "receipt": None if report.answer is None else str(report.answer.id),
        **({} if summary is None else {"summary": _summary_document(summary)}),
        "segments": [
            {
                "leg": it.leg,
                "first": it.first,
                "end": it.end,
                "signed_by": str(it.signer),
                "status": it.status.value,
                "first_wrong": it.first_wrong,
                "detail": it.detail,
            }
            for it in report.segments
        ],
        "parts": {
            part.value: {"status": it.status.value, "why": it.why} for part, it in results.items()
        },
        "points": [
            {
                "part": it.part.value,
                "status": it.status.value,
                "what": it.what,
                "detail": it.detail,
                "is_limit": it.is_limit,
            }
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
    _show_parts(report)
    _show_segments(report)
    for (status, is_limit), title in _TITLES.items():
        points = [it for it in report.points if (it.status, it.is_limit) == (status, is_limit)]
        if points:
            console.print(f"\n[bold]{title}[/bold]")
        for point in points:
            detail = f"  [dim]{safe(point.detail)}[/dim]" if point.detail else ""
            console.print(f" {_MARK[status]} {safe(point.what)}{detail}")
    console.print("\n" + _conclusion(report, summary))


def _show_parts(report: AuditReport) -> None:
    """Each part with its result, in one line."""
    level = (
        "its level, which cannot be read," if report.level is None else f"level {report.level.word}"
    )
    promised = ", ".join(part for part in ReceiptPart if part in report.promised)
    console.print(f"\n[bold]Part by part[/bold]  ({level} promises: {promised})")
    for part in ReceiptPart:
        result = report.of_part(part)
        words = "holds" if result.status is Status.HOLDS else f"{result.status.value}: {result.why}"
        console.print(f" {_MARK[result.status]} {part:<10} {safe(words)}")


def _show_segments(report: AuditReport) -> None:
    """Who made which part of the answer, if several peers did, and what became of each part."""
    if report.segments:
        console.print("\n[bold]Segment by segment[/bold]  (each peer answers for its own tokens)")
    for one in report.segments:
        last = one.end - 1
        tokens = f"tokens {one.first}-{last}" if last > one.first else f"token {last}"
        tokens = "the ending" if last < one.first else tokens
        place = "" if one.first_wrong is None else f", first at token {one.first_wrong}"
        words = f"{tokens} of leg {one.leg} by …{str(one.signer)[-6:]}: {one.status.value}{place}"
        console.print(f" {_MARK[one.status]} {words}  [dim]{safe(one.detail)}[/dim]")


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
            " few of those that agree looked at that row. Do not rely on it."
        )
    if not report.holds:
        return "[bold red]the receipt does not hold: do not rely on this answer[/bold red]"
    if summary is None or not summary.needed:
        return (
            "[bold yellow]nobody checked this answer[/bold yellow]: it is proved who gave it, and"
            f" that nothing was changed since; not that {_what_is_open(report)}."
            " To have one checked: ask --verdicts 2/3"
        )
    return (
        f"[bold green]the receipt holds[/bold green]: verifiers, {summary.needed} drawn by lot,"
        f" {_what_was_checked(report)}. Whether it is true is for you to"
        " judge: models can be wrong."
    )


def _what_was_checked(report: AuditReport) -> str:
    """What verifiers did, by the level."""
    if report.level is Level.ZERO_KNOWLEDGE:
        return "checked the proof that came with this answer, and computed nothing again"
    return "recomputed parts of this answer and found the same"


def _what_is_open(report: AuditReport) -> str:
    """What nobody checked, in the words of what was done: a fetch has no model."""
    ran_model = any(it.record.model is not None for it in report.receipts)
    return "it is what the model says" if ran_model else "it is what the source says"
