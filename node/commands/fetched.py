"""The data leg of a receipt, checked offline: the record of its fetch, and what was made of it.

The extraction is repeated from the body that was kept, in a process of its own: the body is a
stranger's to whoever checks it, too.
"""

from datetime import UTC, datetime

from node.checking.audit import Have
from node.checking.report import AuditReport, ReceiptPart
from node.commands.fetch_origin import Extract, check_dataset, check_pages, is_dataset
from node.ingest.paging import first_page
from node.ingest.tokenise import tables_of
from node.serving.sources import passages_of
from wire import limits
from wire.content import ContentId
from wire.errors import WireError
from wire.fetch import AttestedFetch, SourceRecord
from wire.operations import FETCH
from wire.payload import Passages
from wire.receipt import Receipt
from wire.signed import Signed
from wire.tree import name_of

# Besides what clocks may differ by: a data peer may give what it fetched a moment before.
OLDER_S_MAX = 60


async def check_fetches(report: AuditReport, have: Have, extract: Extract) -> set[ContentId]:
    """Add the points about each fetch; the content that is signed for through its record."""
    signed_for: set[ContentId] = set()
    for receipt in report.receipts:
        if receipt.record.operation == FETCH:
            passages = _read_passages(receipt, have)
            if passages is not None and passages.attested:
                signed_for |= await _check(report, receipt, passages, have, extract)
    return signed_for


def _read_passages(receipt: Signed[Receipt], have: Have) -> Passages | None:
    data = have(receipt.record.output)
    if data is None or name_of(data) != receipt.record.output:
        # The audit says so already.
        return None
    try:
        return Passages.from_bytes(data)
    except WireError:
        return None


async def _check(
    report: AuditReport,
    receipt: Signed[Receipt],
    passages: Passages,
    have: Have,
    extract: Extract,
) -> set[ContentId]:
    leg, record_id = f"leg {receipt.record.stage + 1}", passages.attested[0]
    data = have(record_id)
    if data is None:
        report.note(
            ReceiptPart.INPUT,
            None,
            f"what was fetched for {leg}",
            f"its record is not at hand: {record_id}",
        )
        return {record_id}
    what = f"the record of the fetch for {leg} is the one that was signed for"
    try:
        if name_of(data) != record_id:
            report.note(ReceiptPart.INPUT, False, what, str(record_id))
            return {record_id}
        record = AttestedFetch.from_bytes(data)
    except WireError as error:
        report.note(ReceiptPart.INPUT, False, what, str(error))
        return {record_id}
    when = datetime.fromtimestamp(record.fetched_at_ms / 1000, UTC)
    report.note(ReceiptPart.INPUT, True, what, f"{record.urls[-1]}, {when:%Y-%m-%d %H:%M:%S} UTC")
    _check_time(report, record, leg)
    source = _check_source(report, receipt, record, have)
    body = _body_at_hand(report, record, have)
    if body is not None:
        check_dataset(report, record, body)
        await check_pages(report, record, body, source, extract)
        await _check_output(report, record, passages, body, have, extract)
    _say_limits(report, record)
    try:
        tables = tables_of(record.extraction)
    except WireError:
        # That it could not be repeated is said above.
        tables = ()
    return {record_id, record.body, record.output, *passages.passages, *tables}


def _check_time(report: AuditReport, record: AttestedFetch, leg: str) -> None:
    assert report.task is not None
    assert report.answer is not None
    slack_ms = (limits.CLOCK_SKEW_S_MAX + OLDER_S_MAX) * 1000
    from_ms = report.task.record.issued_at_ms - slack_ms
    to_ms = report.answer.record.answered_at_ms + slack_ms
    report.note(
        ReceiptPart.INPUT,
        from_ms <= record.fetched_at_ms <= to_ms,
        f"{leg} was fetched for this task, or at most {OLDER_S_MAX} s before it",
        "by the data peer's clock",
    )


def _check_source(
    report: AuditReport, receipt: Signed[Receipt], record: AttestedFetch, have: Have
) -> SourceRecord | None:
    """Whether the source that the task was signed with is the one that was fetched; the source."""
    asked = receipt.record.input
    if asked is None:
        report.note(
            ReceiptPart.INPUT,
            None,
            "what the data peer calls by the name that was asked for",
            f"it says: the source {record.source}",
        )
        return None
    report.note(
        ReceiptPart.INPUT,
        record.source == asked,
        "the source that was fetched is the one that was sent",
    )
    data = have(asked)
    if data is None or name_of(data) != asked:
        return None
    try:
        source = SourceRecord.from_bytes(data)
    except WireError as error:
        report.note(ReceiptPart.INPUT, False, "the source that was sent can be read", str(error))
        return None
    right = record.extraction == source.extraction
    if source.paging:
        right = right and record.urls[0] == first_page(source.paging[0], source.place).url
    elif source.kind in ("http", "dataset"):
        right = right and record.urls[0] == source.place
    report.note(
        ReceiptPart.INPUT, right, "it was fetched from where the source says, and read as it says"
    )
    return source


def _body_at_hand(report: AuditReport, record: AttestedFetch, have: Have) -> bytes | None:
    """What came from the source, if it is at hand and is what was signed for."""
    body = have(record.body)
    if body is None:
        report.note(
            ReceiptPart.INPUT,
            None,
            "what came from the source",
            f"the body is not at hand: {record.body}",
        )
        return None
    same = name_of(body) == record.body and len(body) == record.body_size_bytes
    report.note(
        ReceiptPart.INPUT,
        same,
        "the body that is kept is the one that was signed for",
        f"{len(body)} bytes",
    )
    return body if same else None


async def _check_output(
    report: AuditReport,
    record: AttestedFetch,
    passages: Passages,
    body: bytes,
    have: Have,
    extract: Extract,
) -> None:
    """Repeat the extraction and the cutting."""
    what = "the extraction, repeated from the body, gives the same output"
    try:
        tables = {}
        for table in tables_of(record.extraction):
            data = have(table)
            if data is None or name_of(data) != table:
                detail = f"the table of words is not at hand, give it with --content: {table}"
                report.note(ReceiptPart.INPUT, None, what, detail)
                return
            tables[str(table)] = data
        output = await extract(record.extraction, body, tables)
        report.note(
            ReceiptPart.INPUT, name_of(output) == record.output, what, f"{len(output)} bytes"
        )
        for preparation in record.extraction.prepare:
            names = ", ".join(it.name for it in preparation.steps)
            report.note(
                ReceiptPart.INPUT,
                name_of(output) == record.output,
                f"the preparation {preparation.id}, repeated with it",
                names,
            )
        found = passages_of(record.extraction, output)
    except WireError as error:
        report.note(ReceiptPart.INPUT, False, what, error.message)
        return
    first, count = passages.first, len(passages.passages)
    ids = tuple(ContentId.of(it.encode()) for it in found[first : first + count])
    report.note(
        ReceiptPart.INPUT,
        (ids, len(found)) == (passages.passages, passages.total),
        "the passages that were passed on are those of that output",
        f"{count} of {passages.total}, from number {first} on",
    )


def _say_limits(report: AuditReport, record: AttestedFetch) -> None:
    if is_dataset(record):
        # Whoever has its content id gets the same from anybody.
        return
    report.note_limit(
        ReceiptPart.INPUT,
        "whether the server told everybody the same, and told it to this data peer at all",
        "one data peer's word; several that agree say more (quorum)"
        if record.certificates is None
        else f"one data peer's word; the certificates it saw hash to {record.certificates.hex()}",
    )
