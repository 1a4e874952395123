"""What honest engines differ by, measured for one model: a verifier judges margins by it.

A record of its own, kept and named by content: verdicts say by which one they were found.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire.content import ContentId
from wire.errors import Malformed
from wire.schema import Between, Int, Omitted, Record

MARGINS_MAX = 8192
# The margin of a token that cannot be, and more than any other has.
MARGIN_MILLIONTHS_MAX = 1_000_000_000
Millionths = Annotated[int, Between(0, MARGIN_MILLIONTHS_MAX)]
Profile = Annotated[str, Between(1, 128)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut(Record):
    """Answers of so many tokens, not among those that the limits are from; false alarms in them."""

    tokens: Int
    answers: Int
    alarms: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(Record):
    """Honest tokens of one model as engines of these profiles made and judged them.

    `tokens` were looked at, and the margins of those that did not match are told, the least first.
    `slack_millionths` is how far logits may differ where tokens are cut off. A table without a
    model is the one that is built in.
    """

    SIZE_BYTES_MAX: ClassVar[int] = 64 << 10

    model: ContentId | None
    profiles: Annotated[tuple[Profile, ...], Between(1, 16)]
    tokens: Annotated[int, Between(1, 1 << 40)]
    margins_millionths: Annotated[tuple[Millionths, ...], Between(0, MARGINS_MAX)]
    slack_millionths: Millionths
    held_out: Annotated[tuple[HeldOut, ...], Between(0, 16)]
    made_at_ms: Int
    # How far a chunk of the sketch of an honest answer may be off.
    sketch_millionths: Annotated[int, Between(0, MARGIN_MILLIONTHS_MAX), Omitted(18_000)] = 18_000

    def check(self) -> None:
        """Malformed unless the margins are in order."""
        if tuple(sorted(self.margins_millionths)) != self.margins_millionths:
            raise Malformed("the margins of a calibration are not in order")

    @property
    def id(self) -> ContentId:
        return ContentId.of(self.to_bytes())


# Conservative: half precision of the same weights, which differs far more than other orders of
# sums do. SmolLM2-135M had 0.2 to 0.3 % of its tokens other than in f32, 0.03 of a logit at most.
BUILT_IN = Calibration(
    model=None,
    profiles=("f32", "f16"),
    tokens=5000,
    margins_millionths=tuple(2000 * at for at in range(1, 16)),
    slack_millionths=60_000,
    held_out=(),
    made_at_ms=0,
)
