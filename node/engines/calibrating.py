"""A calibration from honest answers that engines of several profiles gave to the same model. Pure.

One answer of three makes the table; the others only say how often it would have been wrong, by how
long the answers were.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from node.engines.margins import (
    EXACT,
    MILLION,
    SKETCH_LEAST,
    limits_of,
    statistics_of,
    too_far,
)
from wire.calibration import MARGINS_MAX, Calibration, HeldOut
from wire.content import ContentId
from wire.errors import InputError

# Rates are told for answers of these many tokens, and of as many as each had.
LENGTHS = (32, 64, 128, 256)
# Of how far sketches were off: the next one may be further.
SKETCH_TIMES = 2
CALIBRATING_ONE_IN = 3
# Of the greatest difference of logarithms of probabilities: the next one may be greater.
SLACK_TIMES = 4
SLACK_LEAST = 0.01
# A token further off than this, in logits, is not of the same model with other sums.
MARGIN_STRANGE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HonestAnswer:
    """One answer as an engine of the profile `provider` gave it, and as `verifier` judged it.

    `margins` are of the tokens that did not match, by their places. `drift` is how far logarithms
    of probabilities were apart at most. `otherwise` is what was told otherwise; empty if nothing.
    """

    number: int
    provider: str
    verifier: str
    tokens: int
    margins: Mapping[int, float]
    drift: float = 0.0
    # How far its sketch was off at most.
    sketch: float = 0.0
    otherwise: str = ""

    @property
    def is_held_out(self) -> bool:
        return self.number % CALIBRATING_ONE_IN != 0

    @property
    def is_between_equals(self) -> bool:
        return self.provider == self.verifier

    def within(self, first: int, tokens: int) -> list[float]:
        """The margins of so many tokens from `first` on."""
        return [self.margins.get(at, 0.0) for at in range(first, first + tokens)]


def calibration_of(
    model: ContentId, answers: Sequence[HonestAnswer], made_at_ms: int
) -> Calibration:
    """The table that these answers make; InputError if they say too little, or too much."""
    used = [it for it in answers if not it.is_held_out]
    tokens = sum(it.tokens for it in used)
    if not tokens:
        raise InputError("no answer was measured", todo="ask for more tokens: --tokens 20000")
    margins = sorted(it for answer in used for it in answer.margins.values())
    if len(margins) > MARGINS_MAX or max(margins, default=0.0) > MARGIN_STRANGE:
        raise InputError(
            f"{len(margins)} of {tokens} tokens differ, by {margins[-1]:.3g} of a logit at most:"
            " these engines do not run the same model",
            todo="measure the devices one by one: --beside cl",
        )
    drift = max((it.drift for it in used), default=0.0)
    sketch = max((it.sketch for it in used), default=0.0)
    table = Calibration(
        model=model,
        profiles=tuple(sorted({name for it in answers for name in (it.provider, it.verifier)})),
        tokens=tokens,
        margins_millionths=tuple(round(it * MILLION) for it in margins),
        slack_millionths=round(max(SLACK_LEAST, SLACK_TIMES * drift) * MILLION),
        held_out=(),
        made_at_ms=made_at_ms,
        sketch_millionths=round(max(SKETCH_LEAST, SKETCH_TIMES * sketch) * MILLION),
    )
    held_out = [it for it in answers if it.is_held_out]
    longest = max((it.tokens for it in held_out), default=0)
    lengths = sorted({*(it for it in LENGTHS if it < longest), longest} - {0})
    return replace(table, held_out=tuple(_rate(table, held_out, it) for it in lengths))


def _rate(table: Calibration, answers: Iterable[HonestAnswer], tokens: int) -> HeldOut:
    """The false alarms among all pieces of so many tokens, one after the other in each answer."""
    pieces = alarms = 0
    for answer in answers:
        limits = EXACT if answer.is_between_equals else limits_of(table, tokens)
        for first in range(0, answer.tokens - tokens + 1, tokens):
            found = statistics_of(answer.within(first, tokens), table)
            pieces += 1
            # What is told otherwise is no matter of a piece: it fails the answer.
            sketched = answer.sketch * MILLION > table.sketch_millionths
            alarms += bool(sketched or answer.otherwise or too_far(found, limits))
    return HeldOut(tokens=tokens, answers=pieces, alarms=alarms)
