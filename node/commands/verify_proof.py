"""`verify --model MODEL.onnx --srs FILE`: the proof of an answer is checked with our own key."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from node.checking.audit import Have, Replay, not_replayed
from node.checking.report import AuditReport, ReceiptPart
from node.commands.command import run
from node.commands.verify_exact import BUNDLE
from node.engines.proving.circuit import SCALE_BITS
from node.engines.proving.interface import ProvableModel
from node.engines.proving.prover import open_proofs
from node.engines.proving.srs import trust_words
from store import id_of_file
from wire.content import ContentId
from wire.errors import BatonError, WireError
from wire.kinds import Level
from wire.limits import PROOF_MODEL_BYTES_MAX
from wire.operations import CALL
from wire.receipt import Receipt
from wire.tensors import Tensors

# Making the key of a model takes longest.
CHECK_S_MAX = 1800.0


def is_onnx(model: str | None) -> bool:
    """Whether what stands for a model is an ONNX file."""
    return model is not None and model.lower().endswith(".onnx") and Path(model).is_file()


def replay_proof(
    path: Path, srs: Path | None, state: Path, have: Have, is_of: Callable[[ContentId], bool]
) -> Replay:
    """Checks the proof of every call of the receipt, at the level zk; nothing is run again.

    The key is made of the file at `path`, and kept in the state folder. `is_of` says whether a
    model id names that file.
    """

    def replay(report: AuditReport) -> None:
        if report.level is not Level.ZERO_KNOWLEDGE:
            not_replayed("only answers at the level zk have proofs, and no ONNX model is run")(
                report
            )
            return
        for leg in (it.record for it in report.receipts if it.record.operation == CALL):
            what = f"the proof of leg {leg.stage + 1} shows that the model gives this output"
            if leg.model is None or not is_of(leg.model):
                why = f"{path.name} is not known to be the model that it names: {BUNDLE}"
                report.note(ReceiptPart.REPLAY, None, what, why)
            elif srs is None:
                why = "not checked: give the SRS that it was made with, --srs FILE"
                report.note(ReceiptPart.REPLAY, None, what, why)
            else:
                _check_leg(report, what, path, srs, state, leg, have)

    return replay


def _check_leg(
    report: AuditReport, what: str, path: Path, srs: Path, state: Path, leg: Receipt, have: Have
) -> None:
    source = None if leg.input is None else have(leg.input)
    output = have(leg.output)
    if source is None or output is None:
        why = "its input or its output is not at hand: --content FILE"
        report.note(ReceiptPart.REPLAY, None, what, why)
        return
    if path.stat().st_size > PROOF_MODEL_BYTES_MAX:
        why = f"{path.name} is larger than any model that is proved"
        report.note(ReceiptPart.REPLAY, False, what, why)
        return
    model = ProvableModel(path.name, id_of_file(path), path.read_bytes())
    try:
        rejected = run(partial(_rejected, state, srs, model, source, output))
    except BatonError as error:
        report.note(ReceiptPart.REPLAY, None, what, f"not checked: {error}")
        return
    detail = rejected or f"its key was made here of {path.name}, and no number was taken on trust"
    report.note(ReceiptPart.REPLAY, not rejected, what, detail)
    _say_limits(report, output)


async def _rejected(
    state: Path, srs: Path, model: ProvableModel, source: bytes, output: bytes
) -> str:
    failed: BatonError | None = None
    async with open_proofs(state, srs, proves=False, sweeps=False) as proofs:
        assert proofs is not None, "there is an SRS"
        # Within the block: what leaves it comes in a group.
        try:
            return await proofs.rejected(model, source, output, CHECK_S_MAX)
        except BatonError as error:
            failed = error
    raise failed


def _say_limits(report: AuditReport, output: bytes) -> None:
    """What a proof does not show, and on whose word it rests."""
    part = ReceiptPart.REPLAY
    try:
        proofs = Tensors.from_bytes(output).proofs
    except WireError:
        return
    if proofs:
        report.note_limit(part, "whether the proof was forged", trust_words(proofs[0].srs))
    report.note_limit(
        part,
        "whether ezkl itself is sound",
        "its makers call it unaudited: a mistake in it may let false proofs through",
    )
    report.note_limit(
        part,
        "what the model gives in floating point",
        f"the proof is of a circuit in fixed point, for the input rounded to 1/{1 << SCALE_BITS}",
    )
