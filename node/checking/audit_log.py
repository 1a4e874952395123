"""The part of an audit about logs: whether each receipt is in the log of its signer. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime

from node.checking.report import AuditReport, ReceiptPart
from wire import limits
from wire.errors import Malformed, WireError
from wire.log import LogHead, LogPlace, LogPlaces, check_place
from wire.message import decode
from wire.plural import plural
from wire.receipt import Receipt
from wire.signed import Signed, open_signed

CheckLog = Callable[[AuditReport], None]


def no_log(report: AuditReport) -> None:
    """What stands for a look at the logs where no places are at hand."""
    report.note(
        ReceiptPart.LOG,
        None,
        "whether the receipts are in their signers' logs",
        "no place in a log is at hand: export the receipt while your peer runs, which asks for it",
    )


def log_of(raw: bytes | None) -> CheckLog:
    """Check the places that lie beside a receipt; `raw` is a `LogPlaces`, None if there is none."""
    if raw is None:
        return no_log

    def check(report: AuditReport) -> None:
        try:
            places = LogPlaces.from_bytes(raw).places
        except WireError as error:
            report.note(ReceiptPart.LOG, False, "the places in logs can be read", str(error))
            return
        if len(places) != len(report.receipts):
            detail = f"{plural(len(places), 'place')} for {plural(len(report.receipts), 'receipt')}"
            report.note(ReceiptPart.LOG, False, "each receipt has its place in a log", detail)
            return
        for number, (receipt, place) in enumerate(zip(report.receipts, places, strict=True), 1):
            _check(report, number, receipt, place)
        report.note_limit(
            ReceiptPart.LOG,
            "whether a signer shows others another log",
            "two heads of one log that contradict each other would prove it",
        )

    return check


def _check(report: AuditReport, number: int, receipt: Signed[Receipt], raw: bytes) -> None:
    what = f"the receipt of leg {number} is in the log of {receipt.signer.short}"
    if not raw:
        report.note(ReceiptPart.LOG, None, what, "its signer showed no place of it")
        return
    try:
        place, head = read_place(raw, receipt)
    except WireError as error:
        report.note(ReceiptPart.LOG, False, what, error.message)
        return
    late_ms = receipt.record.started_at_ms - head.signed_at_ms
    if late_ms > limits.CLOCK_SKEW_S_MAX * 1000:
        detail = "its head is older than the receipt, by its signer's own clock"
        report.note(ReceiptPart.LOG, False, what, detail)
        return
    when = datetime.fromtimestamp(head.signed_at_ms / 1000, UTC)
    detail = f"as number {place.index + 1} of {head.size}, under head {head.number} of"
    report.note(ReceiptPart.LOG, True, what, f"{detail} {when:%Y-%m-%d %H:%M} UTC")


def read_place(raw: bytes, receipt: Signed[Receipt]) -> tuple[LogPlace, LogHead]:
    """A place of this receipt and its head; WireError unless it is one, signed by its signer."""
    place = decode(raw)
    if not isinstance(place, LogPlace):
        raise Malformed("it is no place in a log")
    head = open_signed(place.head, LogHead)
    if head.signer != receipt.signer:
        raise Malformed("its head is of another peer's log")
    check_place(place, receipt.id, head.record)
    return place, head.record
