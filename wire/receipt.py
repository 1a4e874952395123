"""Receipts, verdicts and answers: who did which leg, who checked it, and what came of it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.kinds import Kind, Role
from wire.ownership import Ownership
from wire.schema import Between, Digest, Int, Name, Omitted, Reason, Record, Row
from wire.segment import SegmentBytes
from wire.signed import SignedRecord
from wire.stage import StageLegBytes
from wire.tariff import Charge

_ENVELOPES = Between(1, limits.STAGES_MAX)
Envelope = Annotated[bytes, Between(1, limits.RECEIPT_BYTES_MAX)]
ContributionProof = Annotated[bytes, Between(limits.CONTRIBUTION_BYTES, limits.CONTRIBUTION_BYTES)]
Place = Annotated[int, Between(0, limits.CANDIDATES_MAX - 1)]
VerdictEnvelope = Annotated[bytes, Between(1, limits.VERDICT_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(SignedRecord):
    """What a peer signed about one leg: this input gave this output under this model.

    `previous` is the id of the receipt of the leg before. `units` counts what the leg's speed is
    measured in (passages, tokens). `reused` says the output was computed for an earlier task with
    the same job key.
    """

    KIND: ClassVar[Kind] = Kind.RECEIPT
    SIZE_BYTES_MAX: ClassVar[int] = limits.RECEIPT_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    task: ContentId
    stage: Annotated[int, Between(0, limits.STAGES_MAX - 1)]
    role: Role
    operation: Name
    model: ContentId | None
    input: ContentId | None
    output: ContentId
    output_size_bytes: Int
    units: Int
    started_at_ms: Int
    duration_ms: Int
    profile: Annotated[str, Between(0, 128)]
    previous: ContentId | None
    reused: bool
    # A `wire.stage.StageLeg` of each peer that ran layers for it, in their order, where they did
    # and signed it, for who reads them: askers before STAGE_LEGS_VERSION do not.
    layers: Annotated[
        tuple[StageLegBytes, ...], Between(0, limits.STAGE_LEGS_MAX), Omitted(())
    ] = ()
    # A `wire.segment.Segment` of each peer that made a part of the stream before, in order: the
    # signer answers for what comes after them. None for askers before SEGMENTS_VERSION.
    segments: Annotated[
        tuple[SegmentBytes, ...], Between(0, limits.SEGMENTS_BEFORE_MAX), Omitted(())
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayStatistics(Record):
    """How far the tokens of an answer were from those that the verifier would have drawn.

    Of `positions` tokens so many did not match, the first at `first` of the whole answer. Margins
    are of a logit: their sum counts each up to a quarter. `table` is the calibration that they were
    judged by.
    """

    positions: Int
    mismatches: Int
    first: Int
    sum_millionths: Int
    greatest_millionths: Int
    table: ContentId
    # How far the sketch of the states was off at most; 0 where none was asked for.
    sketch_millionths: Annotated[Int, Omitted(0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictOpening(Record):
    """What opens the commitment to a verdict (`wire.commitment`).

    `shown` is the hash of the first `count` commitments on the leg: those that were there when the
    verdict was asked for.
    """

    salt: Digest
    shown: Digest
    count: Annotated[int, Between(1, limits.COMMITMENTS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictCommitment(Record):
    """The hash that a verifier gave before any verdict on that leg was told."""

    stage: Annotated[int, Between(0, limits.STAGES_MAX - 1)]
    verifier: PeerId
    commitment: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(SignedRecord):
    """A verifier's finding about one receipt.

    `sampled` are the rows it recomputed: its part, or what its own key drew, by the revealed
    secret, and those in dispute;
    `worst_ppb` is, for each, the largest difference found, in parts per billion of the row's
    largest number; a verifier that did not compute cannot know it. The rows of a stream that
    several peers made are its segments, in order, and all of them are looked at. `could_check` is
    False if the payload or the model was withheld, which counts as a failed check.
    """

    KIND: ClassVar[Kind] = Kind.VERDICT
    SIZE_BYTES_MAX: ClassVar[int] = limits.VERDICT_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    receipt: ContentId
    secret: Digest
    agrees: bool
    could_check: bool
    rows: Int
    sampled: Annotated[tuple[Row, ...], Between(0, limits.SAMPLE_MAX)]
    worst_ppb: Annotated[tuple[Int, ...], Between(0, limits.SAMPLE_MAX)]
    profile: Annotated[str, Between(0, 128)]
    reason: Reason
    checked_at_ms: Int
    duration_ms: Int
    # One, of a language model's answer, or one of each of its segments, for who asks for it: askers
    # before REPLAY_VERSION do not.
    replay: Annotated[
        tuple[ReplayStatistics, ...], Between(0, limits.SEGMENTS_BEFORE_MAX + 1), Omitted(())
    ] = ()
    # One, of a verdict that was committed to.
    opening: Annotated[tuple[VerdictOpening, ...], Between(0, 1), Omitted(())] = ()

    def check(self) -> None:
        """Malformed if rows and differences do not match, or if it agrees but could not check."""
        if len(self.sampled) != len(self.worst_ppb):
            raise Malformed("a verdict has one difference for each row it sampled")
        if self.agrees and not self.could_check:
            raise Malformed("a verdict cannot agree with what it could not check")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedDraw(Record):
    """What candidates contributed to the draw of one leg's verifiers (`wire.contribution`).

    `proofs` are those of the contributors in the order of their own draw, without the `absent`:
    drawn too, and silent. The receipt is leaf `index` of `count`; `path` leads to their root.
    `besides` are the places, in the answer, of candidates that were none of this draw.
    """

    stage: Annotated[int, Between(0, limits.STAGES_MAX - 1)]
    index: Annotated[int, Between(0, limits.DRAW_RECEIPTS_MAX - 1)]
    count: Annotated[int, Between(1, limits.DRAW_RECEIPTS_MAX)]
    path: Annotated[bytes, Between(0, limits.DRAW_PATH_BYTES_MAX)]
    proofs: Annotated[
        tuple[ContributionProof, ...], Between(limits.CONTRIBUTORS, limits.CONTRIBUTORS)
    ]
    absent: Annotated[tuple[PeerId, ...], Between(0, limits.ABSENT_MAX), Omitted(())] = ()
    besides: Annotated[tuple[Place, ...], Between(0, limits.CANDIDATES_MAX), Omitted(())] = ()

    def check(self) -> None:
        """Malformed unless the leaf is one of those, and peers are named in order, each once."""
        if self.index >= self.count:
            raise Malformed(f"there is no receipt {self.index} of {self.count}")
        if tuple(sorted(set(self.absent))) != self.absent:
            raise Malformed("who is absent is named in order, each once")
        if tuple(sorted(set(self.besides))) != self.besides:
            raise Malformed("who is left out is named in order, each once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(SignedRecord):
    """Everything about one answered task, signed by the peer that asked: the file an auditor reads.

    `candidates` are the verifiers the asker knew when the lottery was drawn, in order of key; the
    auditor redraws it. `tied` is how many of those that agree on one leg have an introducer or an
    address prefix in common with another, because too few others were known to the asker. `charges`
    is what it cost; empty for one that was free. `commitments` are those to verdicts, for each leg
    in the order in which they came.
    """

    KIND: ClassVar[Kind] = Kind.ANSWER

    task: Annotated[bytes, Between(1, limits.TASK_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
    receipts: Annotated[tuple[Envelope, ...], _ENVELOPES]
    secret: Digest
    candidates: Annotated[tuple[PeerId, ...], Between(0, limits.CANDIDATES_MAX)]
    verdicts: Annotated[tuple[VerdictEnvelope, ...], Between(0, limits.VERIFIERS_MAX)]
    attempts: Annotated[int, Between(1, limits.ATTEMPTS_MAX)]
    answered_at_ms: Int
    duration_ms: Int
    tied: Annotated[int, Between(0, limits.VERIFIERS_MAX), Omitted(0)] = 0
    charges: Annotated[tuple[Charge, ...], Between(0, limits.CHARGES_MAX), Omitted(())] = ()
    commitments: Annotated[
        tuple[VerdictCommitment, ...],
        Between(0, limits.STAGES_MAX * limits.COMMITMENTS_MAX),
        Omitted(()),
    ] = ()

    # How much each candidate counted in the draw; none where all counted alike.
    weights: Annotated[tuple[Int, ...], Between(0, limits.CANDIDATES_MAX), Omitted(())] = ()

    # One for each leg of which candidates contributed to the draw.
    mixed: Annotated[tuple[MixedDraw, ...], Between(0, limits.STAGES_MAX), Omitted(())] = ()

    # Whose the peers are that asked, worked and checked, of those that declared it.
    owned: Annotated[tuple[Ownership, ...], Between(0, limits.OWNERSHIPS_MAX), Omitted(())] = ()

    def check(self) -> None:
        """Malformed unless candidates are in order, each once, with a weight each or with none, and
        a leg has one draw at most.
        """
        if len({it.stage for it in self.mixed}) != len(self.mixed):
            raise Malformed("a leg's verifiers are drawn once")
        if len(self.weights) not in (0, len(self.candidates)):
            raise Malformed("a draw by weight names the weight of each candidate")
        owned = tuple(it.peer for it in self.owned)
        if tuple(sorted(set(owned))) != owned:
            raise Malformed("peers with owners stand in order of their keys, each once")
        if tuple(sorted(set(self.candidates))) != self.candidates:
            raise Malformed("candidates stand in order of their keys, each once")
