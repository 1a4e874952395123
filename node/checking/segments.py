"""The segments of a leg, judged one by one, each against who signed for it. Pure.

An answer that several peers made is looked at as a whole, once; a verdict says of each segment
whether it holds, as it says of rows elsewhere. Whoever went on with wrong tokens of another peer is
not to blame for them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from node.checking.report import AuditReport, ReceiptPart, SegmentFinding, Status
from node.checking.votes import disputed_by
from wire.chain import doers_of, segments_of
from wire.content import PeerId
from wire.plural import plural
from wire.receipt import Receipt, Verdict
from wire.segment import is_of
from wire.signed import Signed

_GOOD = {Status.HOLDS: True, Status.FAILS: False}


def guilty_of(
    receipt: Signed[Receipt], verdicts: Iterable[Verdict], more_than: int
) -> frozenset[PeerId]:
    """Who answers for what is wrong, by verdicts that say no: more than so many name its part."""
    doers = doers_of(receipt)
    wrong = [it for it in verdicts if it.could_check and not it.agrees]
    if len(doers) == 1:
        return frozenset(doers if len(wrong) > more_than else ())
    named = Counter(row for it in wrong for row in disputed_by(it) if row < len(doers))
    return frozenset(doers[row] for row, count in named.items() if count > more_than)


@dataclass(frozen=True, slots=True)
class _Part:
    """The units of a leg from `first` to before `end`."""

    leg: int
    first: int
    end: int
    signer: PeerId

    def __str__(self) -> str:
        if self.end == self.first:
            return f"the ending of leg {self.leg}"
        return f"tokens {self.first}-{self.end - 1} of leg {self.leg}"


def _parts(receipt: Signed[Receipt]) -> Iterator[_Part]:
    """Who answers for which part of a leg that has segments."""
    first = 0
    ends = [it.record.end for it in segments_of(receipt)] + [receipt.record.units]
    for end, signer in zip(ends, doers_of(receipt), strict=True):
        yield _Part(receipt.record.stage + 1, first, end, signer)
        first = end


def check_segments(report: AuditReport, receipt: Signed[Receipt], output: bytes | None) -> None:
    """Say who signed for which part of a leg's stream, and whether the output begins with it.

    The chain that the receipt is in was checked, so the segments fit each other.
    """
    if not receipt.record.segments:
        return
    for part in _parts(receipt):
        report.note(ReceiptPart.SIGNATURES, True, f"{part} are signed for", f"by {part.signer}")
    for number, segment in enumerate(segments_of(receipt), 1):
        if output is not None:
            what = f"the output of leg {receipt.record.stage + 1} begins with segment {number}"
            detail = f"{segment.record.size_bytes} bytes"
            report.note(ReceiptPart.OUTPUT, is_of(segment.record, output), what, detail)


def judge_segments(
    report: AuditReport,
    receipt: Signed[Receipt],
    verdicts: Sequence[Signed[Verdict]],
    needed: int,
) -> None:
    """Note of each segment what the verdicts found, and put it on the report."""
    for row, part in enumerate(_parts(receipt) if receipt.record.segments else ()):
        against = [it.record for it in verdicts if row in disputed_by(it.record)]
        right = sum(_finds_right(it.record, row) for it in verdicts)
        status = Status.HOLDS
        if right < needed:
            status = Status.FAILS if against else Status.UNKNOWN
        places = [it for verdict in against if (it := _first_wrong(verdict, row)) is not None]
        detail = f"{right} of {plural(needed, 'needed verdict')} found that"
        if against:
            detail += f"; {len(against)} did not: {against[0].reason}"
        if places:
            detail += f"; the first token that differs is {min(places)}"
        _put(report, part, status, detail, min(places, default=None))
        what = f"{part}, by {part.signer.short}, are as the model gives them"
        report.note(ReceiptPart.VERDICTS, _GOOD.get(status), what, detail)


def leave_unjudged(report: AuditReport) -> None:
    """Put the segments of an answer on the report that no verifier was to look at."""
    for receipt in report.receipts if report.is_chain else ():
        for part in _parts(receipt) if receipt.record.segments else ():
            _put(report, part, Status.UNKNOWN, "signed for; nobody was to check it", None)


def _put(
    report: AuditReport, part: _Part, status: Status, detail: str, first_wrong: int | None
) -> None:
    finding = SegmentFinding(
        leg=part.leg,
        first=part.first,
        end=part.end,
        signer=part.signer,
        status=status,
        detail=detail,
        first_wrong=first_wrong,
    )
    report.segments.append(finding)


def _finds_right(verdict: Verdict, row: int) -> bool:
    """Whether a verdict looked at a segment and found nothing wrong with it."""
    if not verdict.could_check or row not in verdict.sampled:
        return False
    return verdict.agrees or row not in disputed_by(verdict)


def _first_wrong(verdict: Verdict, row: int) -> int | None:
    """The first token of a segment that a verdict would have another of."""
    if row >= len(verdict.replay) or not verdict.replay[row].mismatches:
        return None
    return verdict.replay[row].first
