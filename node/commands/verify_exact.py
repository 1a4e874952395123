"""`verify --model MODEL.exact`: an integer model is run again, and has to give the same bytes."""

from collections.abc import Callable
from pathlib import Path

from node.checking.audit import Have, Replay
from node.checking.report import AuditReport, ReceiptPart
from node.engines.exact.file import read_file
from node.engines.exact.model import ExactModel
from node.engines.exact.states import first_wrong_row, inputs_of
from wire.content import ContentId
from wire.errors import ModelRefused, WireError
from wire.operations import CALL
from wire.receipt import Receipt


def is_exact(model: str | None) -> bool:
    """Whether what stands for a model is the file of an integer model."""
    return model is not None and model.lower().endswith(".exact") and Path(model).is_file()


def replay_exact(path: Path, have: Have, is_of: Callable[[ContentId], bool]) -> Replay:
    """Runs every call of the receipt again, by the reference, on whatever machine this is.

    `is_of` says whether a model id names the file at `path`: a call of another is not run.
    """

    def replay(report: AuditReport) -> None:
        legs = [it.record for it in report.receipts if it.record.operation == CALL]
        if not legs:
            why = "no leg calls an integer model"
            report.note(ReceiptPart.REPLAY, None, "the model runs again", why)
        for leg in legs:
            if leg.model is not None and is_of(leg.model):
                _replay_leg(report, path, leg, have)
            else:
                what = f"leg {leg.stage + 1} gives the same bytes again, in whole numbers"
                why = f"{path.name} is not known to be the model that it names"
                report.note(ReceiptPart.REPLAY, None, what, why)

    return replay


def _replay_leg(report: AuditReport, path: Path, leg: Receipt, have: Have) -> None:
    what = f"leg {leg.stage + 1} gives the same bytes again, in whole numbers"
    source = None if leg.input is None else have(leg.input)
    output = have(leg.output)
    if source is None or output is None:
        why = "its input or its output is not at hand: --content FILE"
        report.note(ReceiptPart.REPLAY, None, what, why)
        return
    try:
        model: ExactModel = read_file(path)
        inputs = inputs_of(model, source)
    except (ModelRefused, WireError) as error:
        report.note(ReceiptPart.REPLAY, False, what, error.message)
        return
    row = first_wrong_row(model, inputs, output)
    rows = len(inputs[0])
    detail = f"all {rows} rows" if row is None else f"row {row} of {rows} is another one"
    report.note(ReceiptPart.REPLAY, row is None, what, detail)
