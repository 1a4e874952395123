"""What a language model is asked and what it answers; canonical like the rest.

An answer is a stream of tokens and an ending, each in its own frame. So another peer can continue
a stream that broke, after the last whole token that was shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.errors import Malformed, Oversize
from wire.schema import Between, Int, Record

# Chat messages travel as the JSON that clients wrote, because models' templates may read any key.
Json = Annotated[str, Between(0, limits.PROMPT_BYTES_MAX)]
Stop = Annotated[str, Between(1, 256)]
# Natural logarithms of probabilities, in millionths, so that equal answers are equal bytes.
Logprob = Annotated[int, Between(-(10**9), 0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Record):
    """What a model continues: a `prompt` as it is, or `messages` for the model's own template.

    `messages` and `tools` are JSON arrays, `schema` is a JSON schema that the answer has to fit
    (`{}`: any JSON object); empty where there is none. Sampling is in the stage's parameters:
    `tokens` (at most so many), `temperature`, `top_p`, `top_k`, `min_p`, `seed`,
    `frequency_penalty`, `presence_penalty`, `logprobs` (how many alternatives; -1: none).
    """

    SIZE_BYTES_MAX: ClassVar[int] = 4 * limits.PROMPT_BYTES_MAX

    prompt: Annotated[str, Between(0, limits.PROMPT_BYTES_MAX)]
    messages: Json
    tools: Json
    schema: Json
    stop: Annotated[tuple[Stop, ...], Between(0, 8)]

    def check(self) -> None:
        if bool(self.prompt) is bool(self.messages):
            raise Malformed("a generation has either a prompt or messages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative(Record):
    """Another token that was possible here: its bytes, and the logarithm of its probability."""

    text: Annotated[bytes, Between(0, 256)]
    logprob_millionths: Logprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Record):
    """One token of an answer. Its bytes need not be whole characters; special tokens have none."""

    id: Int
    text: Annotated[bytes, Between(0, 256)]
    logprob_millionths: Logprob | None
    top: Annotated[tuple[Alternative, ...], Between(0, limits.LOGPROBS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending(Record):
    """The last frame of an answer. `reason`: `stop`, `length`, or `tool_calls` for a call.

    `text_bytes`: how much of the tokens' text is the answer; a stop sequence and what follows is
    not part of it.
    """

    reason: Annotated[str, Between(1, 32)]
    prompt_tokens: Int
    tokens: Int
    text_bytes: Int


_HEAD_BYTES = 3


def to_frame(piece: Token | Ending) -> bytes:
    """One frame of an answer: `t` (token) or `e` (ending), a length of two bytes, the record."""
    data = piece.to_bytes()
    if len(data) >= 1 << 16:
        raise Oversize(f"{len(data)} bytes of one token")
    return (b"t" if isinstance(piece, Token) else b"e") + len(data).to_bytes(2, "big") + data


def read_frames(data: bytes) -> Iterator[Token | Ending]:
    """The whole frames of an answer or of a part of it; WireError for anything else."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD_BYTES:
            raise Malformed("an answer ends in the middle of a token")
        kind, size = data[at : at + 1], int.from_bytes(data[at + 1 : at + _HEAD_BYTES], "big")
        body = data[at + _HEAD_BYTES : at + _HEAD_BYTES + size]
        if len(body) < size:
            raise Malformed("an answer ends in the middle of a token")
        at += _HEAD_BYTES + size
        match kind:
            case b"t":
                yield Token.from_bytes(body)
            case b"e":
                yield Ending.from_bytes(body)
            case _:
                raise Malformed("a piece of an answer is a token or its ending")
