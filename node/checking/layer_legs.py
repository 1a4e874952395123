"""What a receipt says of peers that ran layers of its model: who signed for which. Pure.

A peer that has the first layers does the leg, and others run the rest; each signs which rows
went in and which came out. What came out of one is what went into the next.
"""

from collections.abc import Sequence

from node.checking.report import AuditReport, ReceiptPart
from wire.content import PeerId
from wire.errors import WireError
from wire.plural import plural
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.stage import StageLeg


def layer_legs(receipt: Signed[Receipt]) -> list[Signed[StageLeg]]:
    """What is signed of the layers, in the receipt's order; WireError if one is not as signed."""
    return [open_signed(it, StageLeg) for it in receipt.record.layers]


def check_layers(report: AuditReport, receipts: Sequence[Signed[Receipt]]) -> None:
    """Say for each leg which peer signed for which layers, and whether they fit together."""
    for receipt in receipts:
        if not receipt.record.layers:
            continue
        leg = receipt.record.stage + 1
        try:
            legs = layer_legs(receipt)
        except WireError as error:
            what = f"who ran layers for leg {leg} is as it was signed"
            report.note(ReceiptPart.SIGNATURES, False, what, str(error))
            continue
        for signed in legs:
            record = signed.record
            what = f"layers {record.first}-{record.last} of leg {leg} are signed for"
            detail = f"{plural(record.rows, 'row')}, by {signed.signer}"
            report.note(ReceiptPart.SIGNATURES, True, what, detail)
        wrong = _unfit(receipt, legs)
        what = f"the layers of leg {leg} are those of its model, in order"
        report.note(ReceiptPart.MODEL, not wrong, what, wrong or _who(receipt.signer, legs))


def _unfit(receipt: Signed[Receipt], legs: Sequence[Signed[StageLeg]]) -> str:
    """Why these are not parts of one run of the leg's model; empty if they may be."""
    before: StageLeg | None = None
    for signed in legs:
        record = signed.record
        if record.model != receipt.record.model:
            return f"{signed.signer.short} signed for another model, {record.model.short}"
        if record.asker != receipt.signer:
            return (
                f"{signed.signer.short} ran its layers for {record.asker.short}, who did not sign"
            )
        if record.first == 0:
            return f"{signed.signer.short} signed for the first layers, which the leg's signer has"
        if before is not None and record.first <= before.last:
            return f"layers {before.first}-{before.last} come before {record.first}-{record.last}"
        # Between two that are further apart is a peer that does not sign.
        joined = before is not None and record.first == before.last + 1
        if before is not None and joined and _given(before) != (record.rows, record.input):
            return f"what went into layer {record.first} is not what came out before it"
        before = record
    return ""


def _given(leg: StageLeg) -> tuple[int, bytes]:
    return leg.rows, leg.output


def _who(first: PeerId, legs: Sequence[Signed[StageLeg]]) -> str:
    told = [f"{it.record.first}-{it.record.last} at {it.signer.short}" for it in legs]
    return f"0-{legs[0].record.first - 1} at {first.short}, {', '.join(told)}"
