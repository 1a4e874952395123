"""The operation `replay`: what an engine makes of an answer that somebody claims. Pure.

A job's input is a `ReplayRequest`, its output a `JudgedAnswer`: how far each claimed token is from
the one that this engine would have drawn there, and the answer's frames as this engine would have
told them with those tokens. It is asked by a verifier, of its own engine alone: no stage names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from node.engines.sampler import MARGIN_MAX
from node.engines.sketch import distances
from wire.errors import Malformed, Oversize
from wire.generation import (
    SKETCH_CHUNK_TOKENS,
    Alternative,
    Ending,
    Frame,
    PromptToken,
    Sketch,
    Token,
    read_frames,
    to_frame,
)
from wire.payload import Vectors
from wire.schema import Between, Int, Record

# The reason of an ending where the answer would go on.
OPEN = "open"
# Pieces of an answer of a model that does not say how many tokens it reads.
FRAMES_MAX = 1 << 17
# Logarithms of probabilities may differ by this much, and by so much of themselves: other orders of
# sums, and half precision, moved them by less than a tenth of it.
LOGPROB_MILLIONTHS = 200_000
LOGPROB_SHARE = 0.02
# How far a chunk of a sketch may be off, by its size: half precision of the same weights is less.
SKETCH_DISTANCE = 0.018


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest(Record):
    """`asked` is the generation; `claimed` the ids of the answer's tokens, 4 bytes each.

    `slack_millionths`: how far logits may honestly differ between the two engines.
    """

    SIZE_BYTES_MAX: ClassVar[int] = Vectors.SIZE_BYTES_MAX

    asked: bytes
    claimed: bytes
    slack_millionths: Annotated[int, Between(0, 10**8)]

    def check(self) -> None:
        if len(self.claimed) % 4:
            raise Malformed("claimed tokens have 4 bytes each")

    @property
    def tokens(self) -> list[int]:
        return [int(it) for it in np.frombuffer(self.claimed, "<u4")]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAnswer(Record):
    """`margins` are floats of 4 bytes, of each token that was judged; `output` is the answer told.

    Fewer margins than claimed tokens: the answer would have ended before, or there is no such
    token. `positions` is how many tokens were judged.
    """

    SIZE_BYTES_MAX: ClassVar[int] = Vectors.SIZE_BYTES_MAX

    margins: bytes
    output: bytes
    positions: Int

    def check(self) -> None:
        if len(self.margins) != 4 * self.positions:
            raise Malformed("margins have 4 bytes each")

    @property
    def each(self) -> list[float]:
        return [float(it) for it in np.frombuffer(self.margins, "<f4")]


def beside_own(claimed: Sequence[int], output: bytes) -> JudgedAnswer:
    """A claim beside the only answer that an engine gives to its question, as it would tell it."""
    own = [it.id for it in read_frames(output) if isinstance(it, Token)]
    margins = [0.0 if a == b else MARGIN_MAX for a, b in zip(claimed, own, strict=False)]
    return JudgedAnswer(
        margins=np.array(margins, "<f4").tobytes(), output=output, positions=len(margins)
    )


def as_bytes(tokens: Sequence[int]) -> bytes:
    """The ids of tokens, 4 bytes each; Malformed for one that no model has."""
    if any(not 0 <= it < 1 << 32 for it in tokens):
        raise Malformed("an answer has a token that no model has")
    return np.array(tokens, "<u4").tobytes()


def frames_max(context: object) -> int:
    """How many pieces an answer has at most, by what its model says of its context.

    Each is a token that fits the context, of the prompt or of the answer, or the end.
    """
    if type(context) is int and context > 0:
        return min(FRAMES_MAX, context + 1)
    return FRAMES_MAX


def request(
    asked: bytes, output: bytes, slack: float, frames_max: int = FRAMES_MAX
) -> ReplayRequest:
    """What an engine is asked about a claimed output; WireError if that is none, or too long."""
    tokens = []
    for number, frame in enumerate(read_frames(output)):
        if number >= frames_max:
            raise Oversize(f"the answer has more than {frames_max} pieces, which no model gives")
        if isinstance(frame, Token):
            tokens.append(frame.id)
    return ReplayRequest(asked=asked, claimed=as_bytes(tokens), slack_millionths=round(slack * 1e6))


@dataclass(frozen=True, slots=True)
class Difference:
    """What an output tells otherwise; `token` is where, or None where it is about all of it."""

    why: str
    token: int | None = None


def told_otherwise(
    claimed: bytes, found: JudgedAnswer, sketch_distance: float = SKETCH_DISTANCE
) -> str:
    """Why a `difference` is one, in words; empty if there is none."""
    otherwise = difference(claimed, found, sketch_distance)
    return "" if otherwise is None else otherwise.why


def difference(
    claimed: bytes, found: JudgedAnswer, sketch_distance: float = SKETCH_DISTANCE
) -> Difference | None:
    """What an output tells otherwise than the model would with the same tokens; None if nothing.

    Texts and the ending have to be the same, logarithms of probabilities alike, and chunks of a
    sketch no further apart than `sketch_distance`. WireError if the output is none.
    """
    theirs, ours = list(read_frames(claimed)), list(read_frames(found.output))
    if not theirs or not isinstance(theirs[-1], Ending):
        return Difference("the output has no ending")
    tokens = [it for it in theirs if isinstance(it, Token)]
    for at, (one, other) in enumerate(zip(tokens, _only(ours, Token), strict=False)):
        if why := _differ(one, other):
            return Difference(f"token {at}: {why}", at)
    if (at := found.positions) < len(tokens):
        return Difference(f"token {at}: the answer cannot go on there", at)
    prompt, read = _only(theirs, PromptToken), _only(ours, PromptToken)
    if len(prompt) != len(read):
        return Difference(f"{len(prompt)} tokens of the prompt are told, not {len(read)}")
    for at, (said, own) in enumerate(zip(prompt, read, strict=True)):
        if why := _differ(said, own):
            return Difference(f"token {at} of the prompt: {why}")
    sketches = [it for it in theirs if isinstance(it, Sketch)]
    if theirs != [*tokens, *sketches, *prompt, theirs[-1]]:
        return Difference("the output's frames are in another order")
    if theirs[-1] != ours[-1]:
        return Difference("the answer does not end there, or not so")
    why = _sketched_otherwise(sketches, ours, sketch_distance)
    return Difference(why) if why else None


def tokens_before(output: bytes, sizes: Sequence[int]) -> list[int]:
    """How many tokens of an output end within so many bytes, for each size, and then in all."""
    ends, at = list[int](), 0
    for frame in read_frames(output):
        at += len(to_frame(frame))
        if isinstance(frame, Token):
            ends.append(at)
    return [*(sum(end <= size for end in ends) for size in sizes), len(ends)]


def sketch_distances(claimed: bytes, found: JudgedAnswer) -> list[float]:
    """How far the chunks of a claimed sketch are from those of the verifier, as far as both go."""
    theirs, ours = (
        b"".join(it.chunks for it in read_frames(side) if isinstance(it, Sketch))
        for side in (claimed, found.output)
    )
    size = min(len(theirs), len(ours))
    return distances(theirs[:size], ours[:size])


def _sketched_otherwise(said: Sequence[Sketch], ours: Sequence[Frame], limit: float) -> str:
    own = [it for it in ours if isinstance(it, Sketch)]
    if len(said) != len(own):
        return f"it has {len(said)} sketches of its states, not {len(own)}"
    for one, other in zip(said, own, strict=True):
        if len(one.chunks) != len(other.chunks):
            return "the sketch of its states is of other tokens"
        for at, distance in enumerate(distances(one.chunks, other.chunks)):
            if distance > limit:
                return (
                    f"states of tokens {at * SKETCH_CHUNK_TOKENS} and on are {distance:.2g} off,"
                    f" more than {limit:.2g}"
                )
    return ""


def _only(
    frames: Sequence[Frame], kind: type[Token] | type[PromptToken]
) -> list[Token | PromptToken]:
    return [it for it in frames if isinstance(it, kind)]


def _differ(one: Token | PromptToken, other: Token | PromptToken) -> str:
    if one.id != other.id:
        return "it is another one"
    if one.text != other.text:
        return "its text is another"
    if not _alike(one.logprob_millionths, other.logprob_millionths):
        return "its probability is another"
    if len(one.top) != len(other.top) or not _alternatives_alike(one.top, other.top):
        return "its alternatives are others"
    return ""


def _alternatives_alike(claimed: Sequence[Alternative], own: Sequence[Alternative]) -> bool:
    """Of those that are nearly as likely any may be first, or be missing at the end."""
    known = {it.text: it.logprob_millionths for it in own}
    return all(
        _alike(one.logprob_millionths, other.logprob_millionths)
        and _alike(one.logprob_millionths, known.get(one.text, own[-1].logprob_millionths))
        for one, other in zip(claimed, own, strict=True)
    )


def _alike(one: int | None, other: int | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= LOGPROB_MILLIONTHS + LOGPROB_SHARE * abs(other)
