"""What an answer is charged for once it is accepted: its legs, and the verdicts on them."""

from collections.abc import Mapping

from node.asking.run import TaskState
from node.checking.tally import Tally
from node.dispatch.directory import PeerDirectory
from node.dispatch.handoff import LegResult
from node.paying.payer import Payer
from node.paying.pricing import legs_at_most, units_at_most
from node.task.units import GUESS_MAX
from wire.content import PeerId


def charge(
    payer: Payer | None,
    run: TaskState,
    delivered: LegResult,
    output: bytes | None,
    counted: Mapping[int, Tally],
    *,
    accepted: bool = True,
) -> None:
    """Charge the legs and the verdicts of an answer to its task's bill, if it has one.

    It was accepted, or nobody found it wrong and too few have looked: whoever did its legs cannot
    know that, and has counted them.
    """
    bill = run.bill
    if bill is None or payer is None:
        return
    stages = run.task.record.stages
    last = len(stages) - 1
    for number, receipt in enumerate(delivered.receipts):
        source = run.inline if number == 0 else delivered.source if number == last else None
        # The output of the leg before the last is the input of that one.
        made = output if number == last else delivered.source if number == last - 1 else None
        if number:
            most = units_at_most(stages[number], source, GUESS_MAX)
            payer.note_done(bill, receipt.signer, number, stages[number], most)
        bill.leg(receipt.signer, receipt.record, source, made)
    _charge_checks(payer, run, counted, accepted=accepted)


def reject(
    payer: Payer | None, run: TaskState, delivered: LegResult, counted: Mapping[int, Tally]
) -> None:
    """An answer that was found wrong is not paid; who looked at it is, whatever it found."""
    if run.bill is None:
        return
    for receipt in delivered.receipts:
        run.bill.drop(receipt.signer)
    if payer is not None:
        _charge_checks(payer, run, counted, accepted=False)


def _charge_checks(
    payer: Payer, run: TaskState, counted: Mapping[int, Tally], *, accepted: bool
) -> None:
    stages = run.task.record.stages
    for number, votes in counted.items():
        voted = [it.signer for it in votes.verdicts]
        assert run.bill is not None
        payer.charge_checks(run.bill, voted, number, stages[number], accepted=accepted)


def unpayable(directory: PeerDirectory, run: TaskState) -> frozenset[PeerId]:
    """The peers that later legs cannot go to; what those legs cost at least is kept back.

    Such a leg is given on by whoever did the one before, at the cost of who signed the task.
    """
    stages, payer = run.task.record.stages, directory.payer
    if payer is None or len(stages) == 1:
        return frozenset()
    later = list(zip(stages, legs_at_most(stages, run.inline), strict=True))[1:]
    able = [directory.playing(stage) for stage, _ in later]
    least = [payer.least(it, *leg) for it, leg in zip(able, later, strict=True)]
    left = 0
    if run.bill is not None:
        run.bill.reserved, left = sum(least), run.bill.left - sum(least)
    found: set[PeerId] = set()
    for adverts, leg, own in zip(able, later, least, strict=True):
        found |= {
            it.signer
            for it in adverts
            if payer.price_at(it.signer, *leg, max(0, left) + own, given_on=True) is None
        }
    return frozenset(found)
