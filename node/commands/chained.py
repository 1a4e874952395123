"""A call whose input was fetched, checked offline from the source to the answer.

The call's own receipt names the receipts of the fetches. Each is checked as any receipt is, what
was made of what came is repeated, and the numbers of that are the numbers of the call.
"""

from collections.abc import Callable

from node.checking.audit import Have, audit
from node.checking.report import AuditReport, ReceiptPart
from node.commands.fetch_origin import Extract
from node.commands.fetched import check_fetches
from node.ingest.model_inputs import read_fetched, same_numbers
from wire import limits
from wire.chain import source_of
from wire.content import ContentId
from wire.errors import WireError
from wire.fetch import AttestedFetch
from wire.operations import CALL
from wire.payload import Passages
from wire.tree import name_of

# Brings whatever lies beside the receipt of this name to hand.
BringReceipt = Callable[[ContentId], None]


async def check_chain(
    report: AuditReport, have: Have, bring: BringReceipt, extract: Extract
) -> None:
    """Add the points about the fetches that the input of a call is from, where it names any."""
    assert report.task is not None
    for receipt in report.receipts:
        leg = receipt.record
        if leg.operation != CALL or leg.stage >= len(report.task.record.stages):
            continue
        try:
            named = read_fetched(report.task.record.stages[leg.stage].parameters)
        except WireError as error:
            report.note(ReceiptPart.INPUT, False, "the fetches of its input are named", str(error))
            continue
        if named:
            outputs = [await _fetched(report, it, have, bring, extract) for it in named]
            source = source_of(report.task, report.receipts, leg.stage)
            given = None if source is None else have(source)
            _check_numbers(report, outputs, given)


async def _fetched(
    report: AuditReport, named: ContentId, have: Have, bring: BringReceipt, extract: Extract
) -> bytes | None:
    """What one fetch gave, after everything about it was looked at; None if it is not at hand."""
    bring(named)
    raw = have(named)
    what = f"the receipt of the fetch {named}"
    if raw is None:
        detail = "it is not at hand; a bundle has it: python -m node receipts export"
        report.note(ReceiptPart.INPUT, None, what, detail)
        return None
    fetch = audit(raw, have)
    bad = fetch.first_bad
    is_it = fetch.is_chain and fetch.answer is not None and fetch.answer.id == named
    detail = "" if bad is None else f"{bad.what} {bad.detail}"
    report.note(ReceiptPart.INPUT, is_it and bad is None, f"{what} holds", detail)
    if not is_it:
        return None
    seen = len(fetch.points)
    await check_fetches(fetch, have, extract)
    report.points += fetch.points[seen:]
    _check_time(report, fetch)
    return _output_of(fetch, have)


def _check_time(report: AuditReport, fetch: AuditReport) -> None:
    assert report.task is not None
    assert fetch.answer is not None
    before_ms = report.task.record.issued_at_ms - fetch.answer.record.answered_at_ms
    report.note(
        ReceiptPart.INPUT,
        before_ms >= -limits.CLOCK_SKEW_S_MAX * 1000,
        "it was fetched before the model was asked",
        f"{max(0, before_ms) / 1000:.1f} s before",
    )


def _output_of(fetch: AuditReport, have: Have) -> bytes | None:
    """What was made of what came, as the receipt of a fetch commits to it."""
    try:
        passages = have(fetch.receipts[-1].record.output)
        if passages is None:
            return None
        attested = Passages.from_bytes(passages).attested
        record = have(attested[0]) if attested else None
        if record is None or name_of(record) != attested[0]:
            return None
        wanted = AttestedFetch.from_bytes(record).output
    except WireError:
        return None
    output = have(wanted)
    return output if output is not None and name_of(output) == wanted else None


def _check_numbers(report: AuditReport, outputs: list[bytes | None], given: bytes | None) -> None:
    what = "the numbers that the model was given are those that were fetched and prepared"
    have = [it for it in outputs if it is not None]
    if given is None or len(have) < len(outputs):
        report.note(ReceiptPart.INPUT, None, what, "they are not all at hand")
        return
    try:
        report.note(ReceiptPart.INPUT, same_numbers(have, given), what)
    except WireError as error:
        report.note(ReceiptPart.INPUT, False, what, str(error))
