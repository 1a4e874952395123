"""What an answer is charged for once it is accepted: its legs, and the verdicts on them."""

from collections.abc import Mapping

from node.asking.run import TaskState
from node.checking.tally import Tally
from node.dispatch.handoff import LegResult
from node.paying.payer import Payer


def charge(
    payer: Payer | None,
    run: TaskState,
    delivered: LegResult,
    output: bytes | None,
    counted: Mapping[int, Tally],
) -> None:
    """Charge the legs and the verdicts of an accepted answer to its task's bill, if it has one."""
    bill = run.bill
    if bill is None or payer is None:
        return
    stages = run.task.record.stages
    last = len(stages) - 1
    for number, receipt in enumerate(delivered.receipts):
        source = run.inline if number == 0 else delivered.source if number == last else None
        made = output if number == last else None
        bill.leg(receipt.signer, receipt.record, source, made)
    for number, votes in counted.items():
        voted = [it.signer for it in votes.verdicts]
        payer.charge_checks(bill, voted, number, stages[number])


def reject(run: TaskState, delivered: LegResult) -> None:
    """An answer that is not accepted is not paid."""
    if run.bill is not None:
        for receipt in delivered.receipts:
            run.bill.drop(receipt.signer)
