"""`verify --model MODEL.exact`: an integer model is run again, and has to give the same bytes."""

from collections.abc import Callable
from pathlib import Path

from node.checking.audit import Have, Replay
from node.checking.report import AuditReport, ReceiptPart
from node.engines.exact.file import read_file
from node.engines.exact.model import ExactModel
from node.engines.exact.states import first_wrong_row, inputs_of
from node.engines.exact.text_file import is_text
from node.engines.worker.exact_claims import ExactClaims
from wire.content import ContentId
from wire.errors import ModelRefused, WireError
from wire.operations import CALL, GENERATE
from wire.plural import plural
from wire.receipt import Receipt

# A manifest lies beside a receipt or comes in a bundle; of a file it is made, by the file's name.
BUNDLE = (
    "its manifest lies beside the receipt that `ask` wrote (.manifest), and is in a bundle"
    " (receipts export ID --output x.car); or name the file as its model was called"
)
NOT_AT_HAND = "its input or its output is not at hand: --content FILE"


def is_exact(model: str | None) -> bool:
    """Whether what stands for a model is the file of an integer model."""
    return model is not None and model.lower().endswith(".exact") and Path(model).is_file()


def replay_exact(path: Path, have: Have, is_of: Callable[[ContentId], bool]) -> Replay:
    """Runs every call of the receipt again, by the reference, on whatever machine this is.

    `is_of` says whether a model id names the file at `path`: a call of another is not run.
    """

    operation, replay_leg = (GENERATE, _replay_text) if is_text(path) else (CALL, _replay_leg)

    def replay(report: AuditReport) -> None:
        legs = [it.record for it in report.receipts if it.record.operation == operation]
        if not legs:
            why = f"no leg is to {operation} with an integer model"
            report.note(ReceiptPart.REPLAY, None, "the model runs again", why)
        for leg in legs:
            if leg.model is not None and is_of(leg.model):
                replay_leg(report, path, leg, have)
            else:
                what = f"leg {leg.stage + 1} gives the same bytes again, in whole numbers"
                why = f"{path.name} is not known to be the model that it names: {BUNDLE}"
                report.note(ReceiptPart.REPLAY, None, what, why)

    return replay


def _replay_text(report: AuditReport, path: Path, leg: Receipt, have: Have) -> None:
    what = f"leg {leg.stage + 1} says the same tokens again, in whole numbers"
    source = None if leg.input is None else have(leg.input)
    output = have(leg.output)
    if source is None or output is None or report.task is None or leg.model is None:
        report.note(ReceiptPart.REPLAY, None, what, NOT_AT_HAND)
        return
    parameters = report.task.record.stages[leg.stage].parameters
    try:
        claims = ExactClaims.of(path, leg.model)
        difference = claims.difference(source, parameters, output)
    except (ModelRefused, WireError) as error:
        report.note(ReceiptPart.REPLAY, False, what, error.message)
        return
    good = not difference
    report.note(ReceiptPart.REPLAY, good, what, difference or f"all {plural(leg.units, 'token')}")
    if good:
        # Every token was drawn again by the task's own settings.
        what = f"each token of leg {leg.stage + 1} is the one that was to be drawn"
        report.note(ReceiptPart.SAMPLER, True, what)


def _replay_leg(report: AuditReport, path: Path, leg: Receipt, have: Have) -> None:
    what = f"leg {leg.stage + 1} gives the same bytes again, in whole numbers"
    source = None if leg.input is None else have(leg.input)
    output = have(leg.output)
    if source is None or output is None:
        report.note(ReceiptPart.REPLAY, None, what, NOT_AT_HAND)
        return
    try:
        model: ExactModel = read_file(path)
        inputs = inputs_of(model, source)
    except (ModelRefused, WireError) as error:
        report.note(ReceiptPart.REPLAY, False, what, error.message)
        return
    row = first_wrong_row(model, inputs, output)
    rows = len(inputs[0])
    detail = f"all {plural(rows, 'row')}" if row is None else f"row {row} of {rows} is another one"
    report.note(ReceiptPart.REPLAY, row is None, what, detail)
