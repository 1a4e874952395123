"""What an accuser asks a jury to look at, and what a jury's finding proves, offline. Pure.

Of most models nobody can say by a rule alone what an honest peer would have answered: engines of
different machines differ. So a jury recomputes, and what it found convicts, not what it was shown.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from node.engines.exact import model as exact
from node.evidence.recomputing import HASH
from wire import limits
from wire.chain import open_receipts
from wire.checkpoint import Checkpoint, CheckpointHeader
from wire.content import PeerId
from wire.errors import Malformed
from wire.evidence import Evidence, OffenceKind
from wire.jury import AGREEING, DrawnJury, evidence_digest, juries_digest
from wire.kinds import Role
from wire.ledger import AccountOrder
from wire.model import Manifest
from wire.operations import OPERATIONS
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.task import Task
from wire.tree import name_of

# Of a case: the heads of its parts.
ROOM_BYTES = 64


@dataclass(frozen=True, slots=True)
class AccusedWork:
    """A leg that a jury is to look at, the last of `receipts`; what is here of its content fits.

    Input and output are None where jurors fetch them: they are named by the receipts.
    """

    task: Signed[Task]
    receipts: tuple[Signed[Receipt], ...]
    manifest: Manifest
    source: bytes | None
    output: bytes | None

    @property
    def receipt(self) -> Signed[Receipt]:
        """That of the accused leg."""
        return self.receipts[-1]

    @property
    def culprit(self) -> PeerId:
        """Whose answer it is."""
        return self.receipt.signer


def charged(evidence: Evidence) -> AccusedWork:
    """What is laid before a jury; WireError unless jurors have all that they need to look."""
    if evidence.offence is not OffenceKind.DISPUTED_WORK:
        raise Malformed("this is nothing that a jury is asked about")
    records, parts = len(evidence.records), len(evidence.content)
    if not 2 <= records <= limits.STAGES_MAX + 1 or parts not in (1, 3):
        raise Malformed(
            "a jury is shown a task and its receipts up to the accused leg; a manifest, an input"
            " and an output"
        )
    task = open_signed(evidence.records[0], Task)
    receipts = open_receipts(task, evidence.records[1:])
    leg, manifest = receipts[-1].record, Manifest.from_bytes(evidence.content[0])
    source, output = evidence.content[1:] or (None, None)
    shown = source is None or output is None or (name_of(source), name_of(output))
    if leg.model != manifest.id or shown not in (True, (leg.input, leg.output)):
        raise Malformed("the model, the input or the output is not the one that was signed for")
    if leg.role is not Role.INFER:
        raise Malformed("no model was run in this leg")
    if leg.layers or leg.segments:
        raise Malformed("the leg was not computed by its signer alone")
    operation = OPERATIONS.get(leg.operation)
    if operation is None or operation.comparison is None:
        raise Malformed("nobody can compute such a leg again")
    if output is not None and manifest.format in (HASH, exact.FORMAT):
        raise Malformed("everybody computes this to the same bits: show it as a wrong answer")
    return AccusedWork(task, tuple(receipts), manifest, source, output)


@dataclass(frozen=True, slots=True)
class ShownFinding:
    """What a jury's finding shows: the case, the seats that agree, and the checkpoint behind it.

    That `checkpoint` is the network's is for others to check: by its committee.
    """

    charge: AccusedWork
    jury: DrawnJury
    seats: int
    checkpoint: Checkpoint
    header: CheckpointHeader


def shown_finding(evidence: Evidence) -> ShownFinding:
    """What a finding shows; WireError unless enough seats of the jury signed that it is wrong."""
    if len(evidence.records) < 3 or len(evidence.content) != 2:
        raise Malformed("a finding has a checkpoint, a case, orders of jurors; a jury, and digests")
    checkpoint = Checkpoint.from_bytes(evidence.records[0])
    header = CheckpointHeader.from_bytes(checkpoint.header)
    case = evidence.records[1]
    charge = charged(Evidence.from_bytes(case))
    jury, joined = DrawnJury.from_bytes(evidence.content[0]), evidence.content[1]
    digests = [joined[at : at + 32] for at in range(0, len(joined), 32)]
    named = header.jury_draw.juries
    if not named or juries_digest(digests) != named or jury.digest not in digests:
        raise Malformed("the checkpoint does not name this jury")
    if (jury.culprit, jury.evidence) != (charge.culprit, evidence_digest(case)):
        raise Malformed("the jury was drawn for another case")
    said: dict[PeerId, tuple[int, bool]] = {}
    for raw in evidence.records[2:]:
        order = open_signed(raw, AccountOrder)
        record = order.record
        if record.network != header.network or record.epoch <= header.epoch:
            raise Malformed("an order of another network, or from before the jury was drawn")
        for found in record.find:
            before = said.get(order.signer, (-1, False))
            if found.case == jury.case and record.sequence > before[0]:
                said[order.signer] = (record.sequence, found.wrong)
    held = Counter(jury.seats)
    seats = sum(held[juror] for juror, (_, wrong) in said.items() if wrong)
    if seats < AGREEING:
        raise Malformed(f"{seats} seats found it wrong, {AGREEING} are needed")
    return ShownFinding(charge, jury, seats, checkpoint, header)


def jury_finding(
    checkpoint: bytes,
    case: bytes,
    orders: Iterable[bytes],
    jury: DrawnJury,
    drawn: Iterable[DrawnJury],
) -> Evidence:
    """A finding for others to check: `checkpoint` names all juries that were `drawn` with it."""
    return Evidence(
        offence=OffenceKind.JURY_FINDING,
        records=(checkpoint, case, *orders),
        content=(jury.to_bytes(), b"".join(it.digest for it in drawn)),
    )


def disputed_work(
    task: bytes, receipts: Sequence[bytes], manifest: bytes, payload: Sequence[bytes] = ()
) -> Evidence:
    """What a jury is asked to look at: the last leg of `receipts`.

    `payload` is its input and output. Where they are too large for a case, or not given, the
    receipts name them, and jurors fetch them from who accuses.
    """
    records = (task, *receipts)
    size_bytes = sum(map(len, (*records, manifest, *payload)))
    if not all(payload) or size_bytes + ROOM_BYTES > limits.CASE_BYTES_MAX:
        payload = ()
    found = Evidence(
        offence=OffenceKind.DISPUTED_WORK, records=records, content=(manifest, *payload)
    )
    if len(found.to_bytes()) > limits.CASE_BYTES_MAX:
        raise Malformed(
            f"task, receipts and manifest are larger than the {limits.CASE_BYTES_MAX} bytes of a"
            " case"
        )
    return found
