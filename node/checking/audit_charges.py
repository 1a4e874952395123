"""What an answer cost, computed again from the tariffs and the receipts that it carries. Pure."""

from collections.abc import Callable

from node.checking.report import AuditReport, ReceiptPart
from node.paying.pricing import charge_by
from wire.amount import show_credits
from wire.chain import segments_of, source_of
from wire.content import ContentId, PeerId
from wire.errors import WireError
from wire.plural import plural
from wire.receipt import Answer, Receipt
from wire.segment import end_of
from wire.signed import Signed, open_signed
from wire.tariff import Charge, ChargeKind, Tariff
from wire.task import Task

Have = Callable[[ContentId], bytes | None]
WORDS = {
    ChargeKind.LEG: "leg {leg}",
    ChargeKind.CHECK: "a verdict on leg {leg}",
    ChargeKind.PART: "what was shown of leg {leg}",
    ChargeKind.REJECTED: "a verdict on a rejected answer's leg {leg}",
}


def check_charges(
    report: AuditReport, answer: Signed[Answer], task: Signed[Task], have: Have
) -> None:
    """Note of each charge whether it is what its tariff says, and of all whether they fit."""
    charges = answer.record.charges
    if not charges:
        report.note(ReceiptPart.COST, True, "it cost nothing")
        return
    total, most = sum(it.amount for it in charges), task.record.price_max
    right = total <= most
    detail = f"{show_credits(total)} of at most {show_credits(most)} credits"
    report.note(ReceiptPart.COST, right, "it cost no more than was to be paid", detail)
    for charge in charges:
        _check_charge(report, charge, task, have, is_capped=total == most)


def _check_charge(
    report: AuditReport,
    charge: Charge,
    task: Signed[Task],
    have: Have,
    *,
    is_capped: bool,
) -> None:
    what = WORDS[charge.kind].format(leg=charge.stage + 1)
    says = f"the charge for {what} is what its peer's tariff says"
    try:
        tariff = open_signed(charge.tariff, Tariff)
    except WireError as error:
        report.note(ReceiptPart.COST, False, says, str(error))
        return
    if charge.stage >= len(report.receipts):
        report.note(ReceiptPart.COST, False, says, "there is no such leg")
        return
    if not _did_it(report, charge, tariff.signer):
        report.note(ReceiptPart.COST, False, says, f"{tariff.signer} did not do it")
        return
    stage, receipt = task.record.stages[charge.stage], report.receipts[charge.stage]
    if charge.kind is ChargeKind.REJECTED:
        report.note_limit(
            ReceiptPart.COST,
            f"whether {tariff.signer.short} gave the verdict that it is paid for",
            "it was on an answer that was not accepted, which is not told",
        )
    if receipt.record.segments and charge.kind in (ChargeKind.LEG, ChargeKind.PART):
        _check_own_tokens(report, charge, receipt, tariff.signer, what)
    source = source_of(task, report.receipts, charge.stage)
    found = charge_by(
        charge,
        tariff.record,
        stage,
        receipt.record,
        None if source is None else have(source),
        have(receipt.record.output),
    )
    right = charge.amount == found or (is_capped and charge.amount < found)
    detail = f"{show_credits(charge.amount)} credits to {tariff.signer.short}"
    if not right:
        detail += f", and by the tariff it is {show_credits(found)}"
    report.note(ReceiptPart.COST, right, says, detail)


def _check_own_tokens(
    report: AuditReport, charge: Charge, receipt: Signed[Receipt], payee: PeerId, what: str
) -> None:
    """Whether a peer is paid for the tokens alone that it signed for, of a stream of several.

    A leg's charge names where its signer's own tokens begin, and a part's how many they are.
    """
    before = segments_of(receipt)
    own = sum(it.record.units for it in before if it.signer == payee)
    says = f"the charge for {what} is for tokens that {payee.short} signed for"
    if charge.kind is ChargeKind.LEG:
        begin = end_of(before)
        right, detail = charge.units == begin, f"from token {charge.units} on, where {begin} is due"
    elif own:
        right, detail = charge.units <= own, f"{plural(charge.units, 'token')} of {own}"
    else:
        report.note_limit(
            ReceiptPart.COST,
            f"whether {payee.short} showed the {plural(charge.units, 'token')} that it is paid for",
            "it signed for none of them: others did, who went on",
        )
        return
    report.note(ReceiptPart.COST, right, says, detail)


def _did_it(report: AuditReport, charge: Charge, peer: PeerId) -> bool:
    receipt = report.receipts[charge.stage]
    match charge.kind:
        case ChargeKind.LEG:
            return receipt.signer == peer
        case ChargeKind.CHECK:
            verdicts = report.verdicts
            return any((it.signer, it.record.receipt) == (peer, receipt.id) for it in verdicts)
        case ChargeKind.PART | ChargeKind.REJECTED:
            # Nobody signs for a leg that it did not finish, and what was rejected is not told.
            return True
