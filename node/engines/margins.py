"""Whether the margins of a claimed answer are those of an honest engine of another kind. Pure.

Engines that add in another order draw another token here and there, always one that was nearly
drawn. So an answer is judged by two numbers: the greatest margin of its tokens, and their sum, each
clipped, against what a compound Poisson process of a calibration's margins stays below in all but
one of ten thousand answers of that length.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from node.engines.replay import JudgedAnswer, difference, sketch_distances
from wire.calibration import BUILT_IN, MARGIN_MILLIONTHS_MAX, Calibration
from wire.receipt import ReplayStatistics

MILLION = 1_000_000
# One token counts no more than this in the sum.
CLIP = 0.25
FALSE_ALARMS = 1e-4
# Of margins that were measured: the next ones may be greater.
WIDER = 1.5
GREATEST_TIMES = 4
GREATEST_LEAST = 0.05
# A greatest margin is known from so many margins, or where so many tokens had fewer.
MARGINS_ENOUGH = 50
TOKENS_ENOUGH = 20_000
# The margin that is assumed where no token differed.
ASSUMED = GREATEST_LEAST / GREATEST_TIMES
# Rounding alone moves a sketch by less, by its size.
SKETCH_LEAST = 0.004
# Sums are counted in steps, upwards.
STEP = 0.001
STEPS = round(CLIP / STEP)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an honest answer's sum of clipped margins, and its greatest margin, do not exceed."""

    margin_sum: float
    greatest: float


def statistics_of(margins: Sequence[float], table: Calibration) -> ReplayStatistics:
    """What a verdict tells of an answer's margins."""
    greatest = max(margins, default=0.0)
    missed = [at for at, it in enumerate(margins) if it > 0]
    return ReplayStatistics(
        positions=len(margins),
        mismatches=len(missed),
        first=missed[0] if missed else 0,
        sum_millionths=round(sum(min(it, CLIP) for it in margins) * MILLION),
        greatest_millionths=min(MARGIN_MILLIONTHS_MAX, round(greatest * MILLION)),
        table=table.id,
    )


def too_far(found: ReplayStatistics, limits: Limits) -> str:
    """Why an answer is not an honest engine's; empty if it may be."""
    greatest, together = found.greatest_millionths / MILLION, found.sum_millionths / MILLION
    if greatest > limits.greatest:
        return f"a token missed by {greatest:.3g} of a logit, more than {limits.greatest:.3g}"
    if together > limits.margin_sum:
        return (
            f"{found.mismatches} of {found.positions} tokens missed by {together:.3g} of a logit"
            f" together, more than {limits.margin_sum:.3g}"
        )
    return ""


# Of engines whose numbers are the same to the bit.
EXACT = Limits(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class SegmentJudge:
    """What one segment is judged by. `is_exact`: its engine's numbers are ours to the bit."""

    table: Calibration
    is_exact: bool

    def limits_for(self, tokens: int) -> Limits:
        """The limits for so many tokens."""
        return EXACT if self.is_exact else limits_of(self.table, tokens)


@dataclass(frozen=True, slots=True)
class JudgedSegment:
    """What was measured of a segment, and why no honest engine made it; "" if one may have."""

    statistics: ReplayStatistics
    reason: str


def judged_each(
    claimed: bytes, told: bytes, ends: Sequence[int], judges: Sequence[SegmentJudge]
) -> list[JudgedSegment]:
    """Judge a claimed output segment by segment; `ends` are the tokens before each one's end.

    `told` is the `JudgedAnswer` as bytes: of each token with all tokens before it as they were
    claimed, so a segment is not judged by what it was built on. WireError if the output is none.
    What is told besides the tokens, the ending and the sketch, is the last one's.
    """
    answer = JudgedAnswer.from_bytes(told)
    margins, last = answer.each, len(judges) - 1
    furthest = max(sketch_distances(claimed, answer), default=0.0)
    # Sums outside of the model's own are not the same to the bit everywhere.
    sketch_limit = SKETCH_LEAST if judges[-1].is_exact else judges[-1].table.sketch_millionths / 1e6
    otherwise = difference(claimed, answer, sketch_limit)
    found, begin = [], 0
    for row, (judge, end) in enumerate(zip(judges, ends, strict=True)):
        own = margins[begin:end]
        measured = statistics_of(own, judge.table)
        if measured.mismatches:
            measured = replace(measured, first=measured.first + begin)
        if row == last:
            sketch = min(MARGIN_MILLIONTHS_MAX, round(furthest * MILLION))
            measured = replace(measured, sketch_millionths=sketch)
        limits = judge.limits_for(max(1, end - begin))
        found.append(JudgedSegment(measured, too_far(measured, limits)))
        begin = max(begin, end)
    if otherwise is not None:
        at = otherwise.token
        row = last if at is None else min(last, sum(end <= at for end in ends))
        if not found[row].reason:
            found[row] = replace(found[row], reason=otherwise.why)
    return found


def judged(
    claimed: bytes, told: bytes, tokens: int, table: Calibration, is_exact: bool
) -> tuple[ReplayStatistics, str]:
    """What was measured of an output that one peer made, and why no honest engine did; "" if one
    may have. `told` is the `JudgedAnswer` as bytes, of so many tokens. WireError if it is none.
    """
    (found,) = judged_each(claimed, told, [tokens], [SegmentJudge(table, is_exact)])
    return found.statistics, found.reason


def table_for(known: Calibration | None, *profiles: str) -> Calibration:
    """What to judge an answer by: what was measured, if it was of engines of these profiles."""
    if known is None or not set(profiles) <= set(known.profiles):
        return BUILT_IN
    return known


@functools.lru_cache(maxsize=256)
def limits_of(table: Calibration, tokens: int) -> Limits:
    """The limits for an answer of so many tokens, by a calibration."""
    margins = np.array(table.margins_millionths, np.float64) / MILLION
    count = len(margins)
    rate = min(1.0, (count + 3 + 2 * math.sqrt(count)) / table.tokens)
    jumps = np.minimum(margins * WIDER, CLIP) if count else np.array([ASSUMED * WIDER])
    greatest = float(margins[-1]) if count else ASSUMED
    if table is not BUILT_IN and count < MARGINS_ENOUGH and table.tokens < TOKENS_ENOUGH:
        greatest = max(greatest, BUILT_IN.margins_millionths[-1] / MILLION)
    return Limits(
        margin_sum=_quantile(rate * tokens, jumps),
        greatest=max(GREATEST_LEAST, GREATEST_TIMES * greatest),
    )


def _quantile(mean: float, jumps: Any) -> float:
    """What a sum of jumps exceeds with the probability FALSE_ALARMS; `mean` is of their number."""
    most = int(mean + 10 * math.sqrt(mean) + 20) * STEPS
    size = 1 << most.bit_length()
    steps = np.maximum(1, np.ceil(jumps / STEP - 1e-9).astype(np.int64))
    shares = np.bincount(steps, minlength=size) / len(steps)
    # The transform of the sum's distribution is the exponential of that of one jump.
    together = np.fft.irfft(np.exp(mean * (np.fft.rfft(shares) - 1)), size)
    beyond = 1 - np.cumsum(together)
    return float(np.flatnonzero(beyond <= FALSE_ALARMS)[0]) * STEP
