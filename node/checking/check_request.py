"""What is to be checked, and how a verifier is asked to: by its version, what it can read. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from node.task.levels import proves
from wire import limits
from wire.chain import doers_of
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.lottery import OWN_DRAW, Share, weighted_draw
from wire.message import Check
from wire.operations import OPERATIONS, Comparison, by_rows
from wire.receipt import MixedDraw, Receipt
from wire.signed import Signed, is_of_many
from wire.task import Task


@dataclass(frozen=True, slots=True)
class Drawn:
    """A draw of verifiers to which candidates contributed: who could be drawn, with which weights.

    `mix` is what they contributed, and `record` what an answer keeps of that.
    """

    weights: Mapping[PeerId, int]
    mix: bytes
    record: MixedDraw

    def kept(self, stage: int, listed: Mapping[PeerId, int]) -> MixedDraw | None:
        """The record for an answer that lists these candidates and weights; None if it differs."""
        if any(listed.get(peer) != weight for peer, weight in self.weights.items()):
            return None
        besides = tuple(
            place for place, peer in enumerate(sorted(listed)) if peer not in self.weights
        )
        return replace(self.record, stage=stage, besides=besides)


def listed_of(
    known: Iterable[PeerId], signed: Collection[PeerId], *draws: Drawn | None
) -> tuple[PeerId, ...]:
    """The candidates that an answer names, in order: no flood of others displaces who gave a
    verdict, nor who was there when candidates contributed. Of the rest those come first that are
    `known` first: they are in the order of a draw, and not of keys, which anybody chooses.
    """
    before = frozenset[PeerId]().union(*(it.weights for it in draws if it is not None))
    order = sorted(known, key=lambda it: (it not in signed, it not in before))
    return tuple(sorted(order[: limits.CANDIDATES_MAX]))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRequest:
    """A leg to be checked: the chain up to and with it, and small payloads at hand."""

    task: Signed[Task]
    receipts: tuple[Signed[Receipt], ...]
    secret: bytes
    input: bytes | None
    output: bytes | None
    # Whose verdicts on it do not count any more: they lost a dispute about it.
    void: frozenset[PeerId] = frozenset()
    # None where the asker alone draws.
    drawn: Drawn | None = None
    # Who did the legs after it.
    later: frozenset[PeerId] = frozenset()

    @property
    def receipt(self) -> Signed[Receipt]:
        return self.receipts[-1]

    def order_of(self, known: Mapping[PeerId, int]) -> list[PeerId]:
        """Known verifiers with their weights, in the order in which they are to be asked.

        Who became known after candidates had contributed comes last: the asker may have made its
        key to suit what they gave.
        """
        secret, receipt, drawn = self.secret, self.receipt.id, self.drawn
        if drawn is None:
            return weighted_draw(secret, receipt, known)
        later = {peer: weight for peer, weight in known.items() if peer not in drawn.weights}
        first = weighted_draw(secret, receipt, drawn.weights, drawn.mix)
        return first + weighted_draw(secret, receipt, later, drawn.mix)

    @property
    def doers(self) -> set[PeerId]:
        """Who did the task's legs, and who asked: none of them checks any of it."""
        before = {it for leg in self.receipts for it in doers_of(leg)}
        return before | self.later | {self.task.signer}

    @property
    def is_at_hand(self) -> bool:
        """Whether nothing has to be fetched: what has to be may take long, and goes by itself."""
        return self.input is not None and self.output is not None

    @property
    def of_many(self) -> bool:
        """Whether it was signed with others."""
        return is_of_many(self.task) or any(map(is_of_many, self.receipts))

    @property
    def replayed(self) -> bool:
        """Whether a verifier is asked what it measured of a language model's answer."""
        operation = OPERATIONS.get(self.receipt.record.operation)
        return operation is not None and operation.comparison is Comparison.REPLAY

    @property
    def needs_version(self) -> bool:
        """Whether how a verifier is asked depends on the version that it speaks."""
        by_version = self.replayed or self.of_many or self.has_segments or self.proves
        return by_version or by_rows(self.receipt.record.operation)

    @property
    def proves(self) -> bool:
        """Whether its output comes with a proof."""
        return proves(self.task.record.stages[self.receipt.record.stage])

    @property
    def has_segments(self) -> bool:
        """Whether several peers made the stream of a leg, and each signed for its part."""
        return any(it.record.segments for it in self.receipts)

    def message(
        self, version: int, share: Share, left_s: float, *, commit: bool = False
    ) -> tuple[Check, Share]:
        """What a verifier of this version is asked, and what its verdict will be about.

        Refused if it cannot read that. `commit`: it commits to its verdict first, if it knows how.
        """
        if version < limits.BUNDLES_VERSION and self.of_many:
            raise Refused(
                f"it speaks version {version}, which cannot read what was signed with others",
                code=RefusalCode.UNSUPPORTED,
            )
        if version < limits.SEGMENTS_VERSION and self.has_segments:
            raise Refused(
                f"it speaks version {version}, which cannot read a receipt of several peers",
                code=RefusalCode.UNSUPPORTED,
            )
        if version < limits.PROOFS_VERSION and self.proves:
            # It would compare the bytes with its own, which have no proof, and call them wrong.
            raise Refused(
                f"it speaks version {version}, which reads no proof", code=RefusalCode.UNSUPPORTED
            )
        share = _share_known_to(version, share, self.receipt.record.operation)
        message = Check(
            task=self.task.raw,
            receipts=tuple(it.raw for it in self.receipts),
            secret=self.secret,
            input=self.input,
            output=self.output,
            deadline_ms=max(1, int(left_s * 1000)),
            part=share.part,
            parts=share.parts,
            rows=tuple(sorted(share.rows)),
            statistics=version >= limits.REPLAY_VERSION and self.replayed,
            commit=commit and version >= limits.COMMITMENTS_VERSION,
        )
        return message, share


def _share_known_to(version: int, share: Share, operation: str) -> Share:
    """What a verifier of this version is asked for: a part only where it knows parts."""
    if not by_rows(operation):
        # Everybody recomputes the whole.
        return OWN_DRAW
    if version >= limits.PARTS_VERSION:
        return share
    if share.rows:
        raise Refused(
            f"it speaks version {version}, which cannot look at a row in dispute",
            code=RefusalCode.UNSUPPORTED,
        )
    return OWN_DRAW
