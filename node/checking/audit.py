"""Checking a receipt offline: what holds, what does not, and what cannot be known.

Pure: the audit reads the signed answer and the content that is at hand, and asks no peer. It judges
these bytes only, speaks of each `ReceiptPart`, and says last what no receipt can prove.
"""

from collections.abc import Callable
from typing import TypeVar

from node.checking.audit_charges import check_charges
from node.checking.audit_log import CheckLog, no_log
from node.checking.audit_verdicts import check_selection_and_verdicts
from node.checking.layer_legs import check_layers
from node.checking.report import AuditReport, ReceiptPart, Status
from node.checking.segments import check_segments
from node.engines.interface import EXACT_FORMATS
from node.task.levels import PROVABLE_FORMAT
from wire import limits
from wire.chain import check_chain, source_of
from wire.content import ContentId
from wire.errors import WireError
from wire.kinds import Kind, Level
from wire.model import Manifest
from wire.operations import CALL, EMBED_PASSAGES, OPERATIONS, by_rows, streams
from wire.payload import Passages, Texts, Vectors
from wire.plural import plural
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Envelope, Signed, SignedRecord
from wire.task import Task
from wire.tensors import Tensors
from wire.tree import name_of

Have = Callable[[ContentId], bytes | None]
Replay = Callable[[AuditReport], None]
R = TypeVar("R", bound=SignedRecord)

# A list of four things, the kind, and the head of a string of bytes.
_HEADS = (b"\x94", bytes([Kind.ANSWER]), b"\xc4\xc5\xc6")


def begins_as_receipt(raw: bytes) -> bool:
    """Whether this may be a receipt, even a damaged one with a wrong byte among the first."""
    right = sum(byte in head for byte, head in zip(raw, _HEADS, strict=False))
    return right >= min(len(raw), len(_HEADS)) - 1


def audit(
    raw: bytes,
    have: Have,
    *,
    now_ms: int | None = None,
    replay: Replay | None = None,
    check_log: CheckLog = no_log,
) -> AuditReport:
    """Check a signed answer; `have` returns content that is at hand, or None.

    `now_ms` is the wall clock of who checks: no receipt is from later. None leaves that out.
    `replay` runs the model again and notes what it finds, in the parts `replay` and `sampler`;
    `check_log` looks at the receipts' places in logs.
    """
    report = AuditReport()
    _read(report, raw)
    answer, task = report.answer, report.task
    if (
        answer is None
        or task is None
        or report.of_part(ReceiptPart.SIGNATURES).status is Status.FAILS
    ):
        # What somebody altered says nothing about what was signed.
        return report
    _check_request(report, answer, task, now_ms)
    _check_clocks(report, answer, task)
    check_selection_and_verdicts(report, answer, task)
    check_charges(report, answer, task, have)
    if report.is_chain:
        _check_models(report, have)
        check_layers(report, report.receipts)
        _check_content(report, task, have)
    (replay or not_replayed("no model was given"))(report)
    if report.is_chain:
        _say_sampler(report, task)
    check_log(report)
    return report


def _read(report: AuditReport, raw: bytes) -> None:
    """Read every signed record. What is inside comes first: the first that fails is the place."""
    opened = _opened(raw, Answer)
    if isinstance(opened, WireError):
        report.note(ReceiptPart.SIGNATURES, False, "the answer can be read", str(opened))
        return
    envelope, answer = opened
    report.answer = answer
    task = _noted(report, answer.record.task, Task, "the task")
    report.task = task
    for number, inside in enumerate(answer.record.receipts, 1):
        receipt = _noted(report, inside, Receipt, f"the receipt of leg {number}")
        if receipt is not None:
            report.receipts.append(receipt)
    for number, inside in enumerate(answer.record.verdicts, 1):
        verdict = _noted(report, inside, Verdict, f"verdict {number}")
        if verdict is not None:
            report.verdicts.append(verdict)
    _note_signature(report, envelope, answer, "the answer")


def _opened(raw: bytes, kind: type[R]) -> tuple[Envelope[R], Signed[R]] | WireError:
    """A record as it stands there, whoever signed it; an error if it is none."""
    try:
        envelope = Envelope.read(raw, kind)
        record = envelope.claimed()
    except WireError as error:
        return error
    return envelope, Signed(record, envelope.signer, envelope.raw, ContentId.of(raw))


def _noted(report: AuditReport, raw: bytes, kind: type[R], what: str) -> Signed[R] | None:
    """Read a record and say whether it is as it was signed; None if it cannot be read."""
    found = _opened(raw, kind)
    if isinstance(found, WireError):
        report.note(ReceiptPart.SIGNATURES, False, f"{what} can be read", str(found))
        return None
    envelope, signed = found
    _note_signature(report, envelope, signed, what)
    return signed


def _note_signature(
    report: AuditReport, envelope: Envelope[R], signed: Signed[R], what: str
) -> None:
    what = f"{what} is as it was signed"
    try:
        envelope.checked(signed.record)
    except WireError as error:
        report.note(ReceiptPart.SIGNATURES, False, what, str(error))
    else:
        report.note(ReceiptPart.SIGNATURES, True, what, f"by {signed.signer}")


def _check_request(
    report: AuditReport, answer: Signed[Answer], task: Signed[Task], now_ms: int | None
) -> None:
    part = ReceiptPart.REQUEST
    report.note(
        ReceiptPart.SIGNATURES,
        answer.signer == task.signer,
        "the answer was put together by the peer that asked",
    )
    theirs, ours = task.record.version, limits.TASK_VERSION
    if theirs != ours:
        detail = f"it is of version {theirs}, this Baton reads {ours}"
        report.note(part, False, "the task is of the protocol version that is read here", detail)
    try:
        check_chain(task, report.receipts)
        report.is_chain = len(report.receipts) == len(task.record.stages)
        report.note(part, report.is_chain, "each leg has its receipt, linked to the one before")
    except WireError as error:
        report.note(part, False, "the receipts belong to the task", str(error))
    issued_ms, ended_ms = task.record.issued_at_ms, answer.record.answered_at_ms
    report.note(
        part,
        issued_ms <= ended_ms <= issued_ms + task.record.deadline_s * 1000 + 300_000,
        "the answer came within the task's deadline",
        f"after {(ended_ms - issued_ms) / 1000:.1f} s of {task.record.deadline_s} s"
        if issued_ms <= ended_ms
        else f"the clock of {answer.signer.short} was set back by at least"
        f" {(issued_ms - ended_ms) / 1000:.1f} s in between",
    )
    if now_ms is not None:
        ahead_s = (max(issued_ms, ended_ms) - now_ms) / 1000
        report.note(
            part,
            ahead_s <= limits.CLOCK_SKEW_S_MAX,
            "it is not from the future",
            f"it says that it is from {ahead_s:.0f} s after now, by this machine's clock"
            if ahead_s > limits.CLOCK_SKEW_S_MAX
            else "",
        )
    report.note_limit(part, "in which network it was asked", "a task names none, only keys")


def _check_clocks(report: AuditReport, answer: Signed[Answer], task: Signed[Task]) -> None:
    """Name clocks that differ from the asker's by more than clocks may, and by how much.

    A time is its signer's word, so a wrong one makes nothing else that was signed untrue.
    """
    from_ms, to_ms = task.record.issued_at_ms, answer.record.answered_at_ms
    said = [
        (f"leg {it.record.stage + 1} was done", it.signer, it.record.started_at_ms)
        for it in report.receipts
    ]
    said += [("a verdict was given", it.signer, it.record.checked_at_ms) for it in report.verdicts]
    # How far each clock was ahead of the asker's, at least; 0 if it may have been right.
    ahead_s = [(min(0, at_ms - from_ms) or max(0, at_ms - to_ms)) / 1000 for _, _, at_ms in said]
    for (what, signer, _), skew_s in zip(said, ahead_s, strict=True):
        if signer == answer.signer or abs(skew_s) <= limits.CLOCK_SKEW_S_MAX:
            continue
        like = sum(abs(it - skew_s) <= limits.CLOCK_SKEW_S_MAX for it in ahead_s)
        odd = "the asker's" if 2 * like > len(said) and like > 1 else f"that of {signer.short}"
        way = "ahead of" if skew_s > 0 else "behind"
        report.note_limit(
            ReceiptPart.REQUEST,
            f"when {what}",
            f"the clock of {signer.short} was {abs(skew_s):.0f} s {way} the asker's, by what both"
            f" signed; of {len(said)} times {like} {'is' if like == 1 else 'are'} like that, so the"
            f" odd one is {odd}",
        )


def _check_models(report: AuditReport, have: Have) -> None:
    """Say what the model ids of the legs stand for, where a manifest is at hand."""
    models = [(it.record.model, it.record) for it in report.receipts if it.record.model is not None]
    if not models:
        report.note(ReceiptPart.MODEL, True, "no leg ran a model")
    for model, leg in models:
        number = leg.stage + 1
        data = have(model)
        if data is None:
            detail = f"its manifest is not at hand, only its id: {model}"
            report.note(ReceiptPart.MODEL, None, f"what the model of leg {number} is", detail)
            continue
        what = f"the model of leg {number} is the one that was asked for, and does {leg.operation}"
        try:
            manifest = Manifest.from_bytes(data)
        except WireError as error:
            report.note(ReceiptPart.MODEL, False, what, str(error))
            continue
        right = ContentId.of(data) == model and _can_do(manifest, leg.operation)
        detail = f"{manifest.name}, {manifest.format}, computed as {manifest.profile}"
        report.note(ReceiptPart.MODEL, right, what, detail)
        if report.level is Level.EXACT:
            what = f"the model of leg {number} computes in whole numbers, as the level exact has it"
            report.note(ReceiptPart.MODEL, manifest.format in EXACT_FORMATS, what, manifest.format)
        if report.level is Level.ZERO_KNOWLEDGE:
            what = f"the model of leg {number} is an ONNX file, as the level zk has it"
            right = manifest.format == PROVABLE_FORMAT
            report.note(ReceiptPart.MODEL, right, what, manifest.format)
    report.note_limit(ReceiptPart.MODEL, "on which device it ran, and who else saw the input")


def _can_do(manifest: Manifest, operation: str) -> bool:
    """Whether a model does it: by itself, or through what its engine is asked for."""
    known = OPERATIONS.get(operation)
    engine = None if known is None else known.engine
    return operation in manifest.operations or engine in manifest.operations


def _check_content(report: AuditReport, task: Signed[Task], have: Have) -> None:
    for stage, receipt in enumerate(report.receipts):
        right: dict[ReceiptPart, bytes] = {}
        for part, content in (
            (ReceiptPart.INPUT, source_of(task, report.receipts, stage)),
            (ReceiptPart.OUTPUT, receipt.record.output),
        ):
            if content is None:
                report.note(part, True, f"leg {stage + 1} has no {part}: it brings data in")
                continue
            data = have(content)
            if data is None:
                report.note(part, None, f"the {part} of leg {stage + 1}", f"not at hand: {content}")
                continue
            if name_of(data) == content:
                right[part] = data
            report.note(
                part,
                part in right,
                f"the {part} of leg {stage + 1} is the one that was signed for",
                f"{len(data)} bytes",
            )
            claimed_bytes = receipt.record.output_size_bytes
            if part is ReceiptPart.OUTPUT and len(data) != claimed_bytes:
                what = f"the output of leg {stage + 1} is as long as was signed for"
                report.note(part, False, what, f"{claimed_bytes} bytes")
        check_segments(report, receipt, right.get(ReceiptPart.OUTPUT))
        _check_rows(report, receipt, right.get(ReceiptPart.INPUT), right.get(ReceiptPart.OUTPUT))
        if report.level is Level.ZERO_KNOWLEDGE and ReceiptPart.OUTPUT in right:
            _check_has_proof(report, receipt.record, right[ReceiptPart.OUTPUT])


def _check_rows(
    report: AuditReport, receipt: Signed[Receipt], source: bytes | None, output: bytes | None
) -> None:
    """Whether the output has a row for each text of the input, and as many as were signed for.

    `source` and `output` are what was signed for, where that is at hand.
    """
    leg = receipt.record
    if not by_rows(leg.operation) or output is None:
        return
    what = f"the output of leg {leg.stage + 1} has a row for each text of its input"
    try:
        rows = Vectors.from_bytes(output).rows
        texts = None
        if source is not None:
            by_name = leg.operation == EMBED_PASSAGES
            texts = len(
                Passages.from_bytes(source).passages if by_name else Texts.from_bytes(source).texts
            )
    except WireError as error:
        report.note(ReceiptPart.OUTPUT, False, what, str(error))
        return
    if rows != leg.units:
        detail = f"{plural(rows, 'row')} where {leg.units} were signed for"
        report.note(ReceiptPart.OUTPUT, False, what, detail)
    elif texts is not None:
        report.note(
            ReceiptPart.OUTPUT,
            rows == texts,
            what,
            f"{plural(rows, 'row')} for {plural(texts, 'text')}",
        )


def _check_has_proof(report: AuditReport, leg: Receipt, output: bytes) -> None:
    """Whether a proof came with the output; whether it holds, only a run of ezkl shows."""
    what = f"the output of leg {leg.stage + 1} comes with a proof"
    try:
        proofs = Tensors.from_bytes(output).proofs if leg.operation == CALL else ()
    except WireError as error:
        report.note(ReceiptPart.OUTPUT, False, what, str(error))
        return
    detail = f"of {proofs[0].system}, {len(proofs[0].proof)} bytes" if proofs else "it has none"
    report.note(ReceiptPart.OUTPUT, bool(proofs), what, detail)


def _say_sampler(report: AuditReport, task: Signed[Task]) -> None:
    """Say what chance had to do with the answer, by what the task asked for."""
    drawing = [it for it in task.record.stages if streams(it.operation)]
    if not drawing:
        report.note(ReceiptPart.SAMPLER, True, "no leg draws words by chance")
    # A replay notes it once for each leg that it repeated.
    drawn = sum(it.part is ReceiptPart.SAMPLER for it in report.points)
    replayed = drawn == len(drawing)
    for stage in drawing:
        temperature, seed = (stage.parameters.get(it, 0) for it in ("temperature", "seed"))
        if not replayed:
            report.note(
                ReceiptPart.SAMPLER,
                None,
                f"whether {stage.operation} drew its words as was asked",
                f"temperature {temperature!r}, seed {seed!r}; only a replay shows it",
            )
        if temperature:
            report.note_limit(
                ReceiptPart.SAMPLER,
                "whether the asker tried other seeds before",
                "the seed is the asker's own: this is what the model says for some seed",
            )


def not_replayed(why: str) -> Replay:
    """What stands for a replay where there is none: it says so, and why."""

    def note(report: AuditReport) -> None:
        is_checked = report.level is not Level.SIGNED
        rest = "it rests on what verifiers say" if is_checked else "nobody looked: level signed"
        what = "whether the model gives this output"
        report.note(ReceiptPart.REPLAY, None, what, f"not replayed here: {why}; {rest}")

    return note
