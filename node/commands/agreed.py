"""An agreement checked offline: each receipt and fetch by itself, and then the count again."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from node.checking.audit import audit
from node.checking.report import AuditReport, Status
from node.commands.command import run
from node.commands.fetch_origin import Extract
from node.commands.fetched import check_fetches
from node.commands.output import console, safe, show_json
from node.commands.receipt_file import FoundReceipt, read_file, read_receipt
from node.ingest.agreement import AgreementTerms, agree
from node.ingest.extractor import REPEATING_PATIENCE, Extractor
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError, WireError
from wire.fetch import AttestedFetch, FetchAgreement
from wire.operations import FETCH
from wire.payload import Passages
from wire.tree import name_of

AGREEMENT_SUFFIX = ".agreement"
RECORD_BYTES_MAX = 64 << 10
_STATUS = {True: "holds", False: "fails", None: "cannot be known"}


@dataclass(slots=True)
class _Recount:
    """The points about one agreement: what was looked at, whether it holds, and details."""

    points: list[tuple[bool | None, str, str]] = field(default_factory=list)

    def note(self, good: bool | None, what: str, detail: str = "") -> None:
        self.points.append((good, what, detail))

    @property
    def failed(self) -> tuple[bool | None, str, str] | None:
        return next((it for it in self.points if it[0] is False), None)


def verify_agreement(
    state: Path, path: Path, extract: Extract | None = None, *, as_json: bool
) -> None:
    """Recount the agreement in a file from the receipts beside it, and show a page about it.

    InputError names the first point that fails. `extract` makes an output of a body.
    """
    try:
        record = FetchAgreement.from_bytes(read_file(path, RECORD_BYTES_MAX))
    except WireError as error:
        raise InputError(f"{path} is not an agreement: {error.message}") from error
    report = _Recount()
    beside = _Beside(
        state, path, Extractor(patience=REPEATING_PATIENCE).extract if extract is None else extract
    )
    fetches = [_one(report, beside, answer, record) for answer in record.answers]
    found = [it for it in fetches if it is not None]
    if len(found) == len(record.answers):
        _recount(report, record, found)
    report.note(
        None,
        "whether those that agree belong to one owner, or had agreed what to say",
        f"{len(record.agreeing)} of {record.quorum} keys agree",
    )
    if as_json:
        show_json(_document(report, record))
    else:
        _show(report, record)
    if report.failed is not None:
        _, what, detail = report.failed
        raise InputError(
            f"the agreement does not hold; what fails is {what!r}" + f" ({detail})" * bool(detail),
            todo="do not rely on it; have it fetched again: python -m node sources fetch",
        )


def _document(report: _Recount, record: FetchAgreement) -> dict[str, Any]:
    return {
        "holds": report.failed is None,
        "agreement": str(ContentId.of(record.to_bytes())),
        "source": str(record.source),
        "agreeing": [str(it) for it in record.agreeing],
        "outliers": [str(it) for it in record.outliers],
        "output": str(record.output),
        "points": [
            {"status": _STATUS[good], "what": what, "detail": detail}
            for good, what, detail in report.points
        ],
    }


def _show(report: _Recount, record: FetchAgreement) -> None:
    console.print(f"[bold]agreed[/bold]   {record.agree}, of {record.quorum} data peers")
    console.print(f"[bold]source[/bold]   {record.source}")
    for good, what, detail in report.points:
        mark = {True: "[green]✓[/green]", False: "[red]✗[/red]", None: "[yellow]?[/yellow]"}[good]
        console.print(f" {mark} {safe(what)}  [dim]{safe(detail)}[/dim]")
    if report.failed is None:
        console.print(
            f"\n[bold green]the agreement holds[/bold green]: {len(record.agreeing)} of"
            f" {record.quorum} data peers say the same"
        )


_Fetch = tuple[PeerId, int, bytes]


@dataclass(frozen=True, slots=True)
class _Beside:
    """Where the receipts of an agreement lie, and what repeats their extractions."""

    state: Path
    path: Path
    extract: Extract


def _one(
    report: _Recount, beside: _Beside, answer: ContentId, agreement: FetchAgreement
) -> _Fetch | None:
    """Who fetched, when, and the output, of one receipt; None, and a point, if it is not sound."""
    file = beside.path.with_name(f"{answer}.receipt")
    what = f"the fetch of receipt {answer.short} holds"
    try:
        found = read_receipt(beside.state, str(file))
    except InputError as error:
        report.note(False, what, error.message)
        return None
    one = audit(found.answer, found.have)
    if one.is_chain:
        run(partial(check_fetches, one, found.have, beside.extract))
    bad = next((it for it in one.points if it.status is Status.FAILS), None)
    if bad is not None or one.answer is None or one.answer.id != answer:
        report.note(False, what, bad.what if bad is not None else "it is another receipt")
        return None
    fetched = _fetch_of(one, found)
    if fetched is None:
        report.note(False, what, "its record, or what was made of its body, is not beside it")
        return None
    report.note(True, what, f"by {fetched[0]}")
    _check_terms(report, one, agreement, answer)
    return fetched


def _fetch_of(one: AuditReport, found: FoundReceipt) -> _Fetch | None:
    receipt = one.receipts[0]
    data = found.have(receipt.record.output)
    if receipt.record.operation != FETCH or data is None:
        return None
    try:
        (record_id,) = Passages.from_bytes(data).attested
        raw = found.have(record_id)
        if raw is None:
            return None
        record = AttestedFetch.from_bytes(raw)
    except (BatonError, ValueError):
        return None
    output = found.have(record.output)
    if output is None or name_of(output) != record.output or found.have(record.body) is None:
        return None
    return (receipt.signer, record.fetched_at_ms, output)


def _check_terms(
    report: _Recount, one: AuditReport, agreement: FetchAgreement, answer: ContentId
) -> None:
    """Whether the task was signed for this agreement: its source, its terms and its round."""
    assert one.task is not None
    task = one.task.record
    asked = dict(task.stages[0].parameters)
    signed = (task.input, asked.get("quorum"), asked.get("agree"), asked.get("round"))
    meant = (agreement.source, agreement.quorum, agreement.agree, agreement.round)
    report.note(signed == meant, f"the task of {answer.short} was signed with these terms")


def _recount(report: _Recount, record: FetchAgreement, found: list[_Fetch]) -> None:
    peers = [it[0] for it in found]
    report.note(len(set(peers)) == record.quorum, "each fetch is another data peer's")
    what = "the count, repeated, gives the same peers and the same output"
    try:
        terms = AgreementTerms.read(record.quorum, record.agree)
        counted = agree(terms, [it[2] for it in found], [it[1] for it in found])
    except BatonError as error:
        report.note(False, what, error.message)
        return
    agreeing = tuple(peers[it] for it in counted.agreeing)
    outliers = tuple(it for it in peers if it not in agreeing)
    same = (
        counted.output is not None
        and name_of(counted.output) == record.output
        and (agreeing, outliers) == (record.agreeing, record.outliers)
    )
    names = ", ".join(it.short for it in outliers) or "none"
    report.note(same, what, f"{len(agreeing)} agree; outliers: {names}")
