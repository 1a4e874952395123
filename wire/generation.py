"""What a language model is asked and what it answers; canonical like the rest.

An answer is a stream of tokens and an ending, each in its own frame. So another peer can continue
a stream that broke, after the last whole token that was shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.errors import Malformed, Oversize
from wire.schema import Between, Int, Omitted, Record

# Chat messages travel as the JSON that clients wrote, because models' templates may read any key.
Json = Annotated[str, Between(0, limits.PROMPT_BYTES_MAX)]
Stop = Annotated[str, Between(1, 256)]
# Natural logarithms of probabilities, in millionths, so that equal answers are equal bytes.
Logprob = Annotated[int, Between(-(10**9), 0)]
TokenId = Annotated[int, Between(0, 2**32 - 1)]
PROMPT_TOKENS_MAX = 16_384
BIASES_MAX = 1024
SKETCH_CHUNK_TOKENS = 32
SKETCH_CHUNK_BYTES = 34
# An answer that is longer has a sketch of its first tokens.
SKETCH_BYTES_MAX = 1024 * SKETCH_CHUNK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBias(Record):
    """A number that is added to one token's logit, in millionths."""

    token: TokenId
    millionths: Annotated[int, Between(-(10**8), 10**8)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Record):
    """What a model continues: a `prompt` as it is, its tokens, or `messages` for its template.

    `messages` and `tools` are JSON arrays, `schema` is a JSON schema that the answer has to fit
    (`{}`: any JSON object), `template` a JSON object of further names for the template; empty where
    there is none. `bias` has each token once, in order. Sampling is in the stage's parameters,
    which `node.engines.sampler` lists: `tokens` (the most to generate; 0: only the prompt is
    read), `temperature`, `logprobs` (how many alternatives; -1: none), `echo` (1: the answer has
    the prompt's tokens too) and others.
    """

    SIZE_BYTES_MAX: ClassVar[int] = 4 * limits.PROMPT_BYTES_MAX

    prompt: Annotated[str, Between(0, limits.PROMPT_BYTES_MAX)]
    messages: Json
    tools: Json
    schema: Json
    stop: Annotated[tuple[Stop, ...], Between(0, 8)]
    prompt_tokens: Annotated[tuple[TokenId, ...], Between(0, PROMPT_TOKENS_MAX), Omitted(())] = ()
    template: Annotated[str, Between(0, limits.PROMPT_BYTES_MAX), Omitted("")] = ""
    bias: Annotated[tuple[TokenBias, ...], Between(0, BIASES_MAX), Omitted(())] = ()

    def check(self) -> None:
        if [bool(self.prompt), bool(self.messages), bool(self.prompt_tokens)].count(True) != 1:
            raise Malformed("a generation has one of prompt, messages and prompt tokens")
        biased = [it.token for it in self.bias]
        if biased != sorted(set(biased)):
            raise Malformed("the biases of a generation are not in the order of their tokens")


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
class PromptToken(Record):
    """One token of the prompt; the first one has no probability."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch(Record):
    """What the model's last states were, in 34 bytes for each 32 tokens: `node.engines.sketch`.

    It stands after the tokens, where the stage's parameters ask for it.
    """

    chunks: Annotated[bytes, Between(SKETCH_CHUNK_BYTES, SKETCH_BYTES_MAX)]

    def check(self) -> None:
        if len(self.chunks) % SKETCH_CHUNK_BYTES:
            raise Malformed(f"each chunk of a sketch has {SKETCH_CHUNK_BYTES} bytes")


Frame = Token | PromptToken | Sketch | Ending
_HEAD_BYTES = 3
_KINDS: dict[type[Frame], bytes] = {
    Token: b"t",
    PromptToken: b"p",
    Sketch: b"s",
    Ending: b"e",
}


def to_frame(piece: Frame) -> bytes:
    """One frame of an answer: `t`, `p`, `s` or `e`, a length of two bytes, the record.

    The prompt's tokens stand between the last token and the ending, so that the streamed tokens
    before do not depend on them.
    """
    data = piece.to_bytes()
    if len(data) >= 1 << 16:
        raise Oversize(f"{len(data)} bytes of one token")
    return _KINDS[type(piece)] + len(data).to_bytes(2, "big") + data


def read_frames(data: bytes) -> Iterator[Frame]:
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
            case b"p":
                yield PromptToken.from_bytes(body)
            case b"s":
                yield Sketch.from_bytes(body)
            case b"e":
                yield Ending.from_bytes(body)
            case _:
                raise Malformed("a piece of an answer is a token or its ending")
