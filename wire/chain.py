"""Whether receipts belong to a task: each leg of it, in order, each linked to the one before."""

from collections.abc import Sequence

from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.kinds import Role
from wire.operations import streams
from wire.receipt import Receipt
from wire.segment import Segment, end_of, open_segments
from wire.signed import Envelope, Signed, open_signed
from wire.task import Task


def open_receipts(task: Signed[Task], envelopes: Sequence[bytes]) -> list[Signed[Receipt]]:
    """Read receipts and check them as a chain; WireError names the first leg that does not fit."""
    receipts = [open_signed(raw, Receipt) for raw in envelopes]
    check_chain(task, receipts)
    return receipts


def check_chain(task: Signed[Task], receipts: Sequence[Signed[Receipt]]) -> None:
    """Malformed unless `receipts` are those of the task's first legs, in order."""
    if len(receipts) > len(task.record.stages):
        raise Malformed(f"{len(receipts)} receipts for {len(task.record.stages)} legs")
    source, previous = task.record.input, None
    for number, receipt in enumerate(receipts):
        leg = receipt.record
        stage = task.record.stages[number]
        for what, found, due in (
            ("task", leg.task, task.id),
            ("stage", leg.stage, number),
            ("role", leg.role, stage.role),
            ("operation", leg.operation, stage.operation),
            ("model", leg.model, stage.model),
            ("input", leg.input, source),
            ("previous receipt", leg.previous, previous),
        ):
            if found != due:
                raise Malformed(f"the receipt of leg {number + 1} names another {what}")
        segments_of(receipt)
        source, previous = leg.output, receipt.id


def segments_of(receipt: Signed[Receipt]) -> list[Signed[Segment]]:
    """What other peers made of a leg's stream before its signer; WireError if it does not fit."""
    leg = receipt.record
    if not leg.segments:
        return []
    if not streams(leg.operation):
        raise Malformed(f"leg {leg.stage + 1} has segments, but {leg.operation} is no stream")
    found = open_segments(leg.task, leg.stage, leg.segments)
    if end_of(found) > leg.units or found[-1].record.size_bytes > leg.output_size_bytes:
        raise Malformed(f"the segments of leg {leg.stage + 1} are more than its output")
    return found


def doers_of(receipt: Signed[Receipt]) -> tuple[PeerId, ...]:
    """Who made a leg's output, in order; who signed for all of it is the last.

    Segments are only read for their signers: a chain that was checked has fitting ones.
    """
    before = (Envelope.read(raw, Segment).signer for raw in receipt.record.segments)
    return (*before, receipt.signer)


def source_of(
    task: Signed[Task], receipts: Sequence[Signed[Receipt]], stage: int
) -> ContentId | None:
    """The content id of what reaches leg `stage`."""
    return task.record.input if stage == 0 else receipts[stage - 1].record.output


def legs_to_check(receipts: Sequence[Signed[Receipt]]) -> list[int]:
    """The legs that verifiers recompute: those that ran a model."""
    return [it.record.stage for it in receipts if it.record.role is Role.INFER]
