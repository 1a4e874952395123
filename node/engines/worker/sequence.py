"""One answer of a language model as it grows: what was asked, what was made, why it ends. Worker.

Pure: logits go in, tokens and their frames come out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from node.engines.sampler import (
    MARGIN_MAX,
    Claim,
    LogitRules,
    Sampling,
    best,
    choose,
    log_probabilities,
    margin,
    millionths,
)
from node.engines.sketch import Sketching
from node.engines.worker.gguf_tokens import TokenTable
from node.engines.worker.grammar import Grammar
from node.engines.worker.repetition import Repetition
from wire.errors import ModelRefused
from wire.generation import (
    SKETCH_BYTES_MAX,
    Alternative,
    Ending,
    PromptToken,
    Sketch,
    Token,
    to_frame,
)

# What a strange wish may raise below us: it ends one answer, and not the worker with all others.
FAULTS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


def refusal_of(error: Exception) -> ModelRefused:
    """What is said of the answer that this error ended."""
    if isinstance(error, ModelRefused):
        return error
    words = str(error)[:200]
    return ModelRefused(f"this cannot be answered: {type(error).__name__} {words}".rstrip())


@dataclass(slots=True, eq=False)
class TokenSequence:
    """`prompt` are its tokens, `most` how many the answer may have; `forced` what another made."""

    id: int
    model: bytes
    table: TokenTable
    prompt: list[int]
    most: int
    sampling: Sampling
    stops: tuple[bytes, ...]
    grammar: Grammar | None
    forced: list[int]
    made: list[int] = field(default_factory=list)
    text: bytearray = field(default_factory=bytearray)
    reason: str = ""
    bias: Mapping[int, float] = field(default_factory=dict)
    # Of how many of the prompt's tokens the next one's probabilities were told.
    told: int = 0
    # Of its tokens, where it is asked for; what a row is drawn from stands after its logits.
    sketching: Sketching | None = None
    # How many numbers that has.
    hidden: int = 0
    repetition: Repetition = field(default_factory=Repetition)
    _rules: LogitRules = field(init=False)
    _counts: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        penalised = self.sampling.repetition_penalty != 1.0
        self._rules = LogitRules(
            bias=self.bias,
            prompt=frozenset(self.prompt if penalised else ()),
            ends=self.table.ends,
        )

    @property
    def echoes(self) -> bool:
        """Whether the log probabilities of its prompt are asked for."""
        return bool(self.sampling.echo) and self.sampling.logprobs >= 0

    @property
    def sketches(self) -> bool:
        """Whether it needs what its tokens' logits are made of."""
        return self.sketching is not None

    @property
    def unheard(self) -> int:
        """Of how many of the prompt's first tokens nobody asks what the model makes of them."""
        return 0 if self.echoes else len(self.prompt) - 1

    def read(self, first: int, logits: Iterable[Any]) -> bytes:
        """The frames of the prompt's tokens that come after those from `first` on."""
        found = b""
        for at, line in enumerate(logits, first + 1):
            logprobs = log_probabilities(self._finite(line))
            token = self.prompt[at]
            found += to_frame(
                PromptToken(
                    id=token,
                    text=self._text(token),
                    logprob_millionths=millionths(logprobs[token]),
                    top=self._top(logprobs),
                )
            )
        return found

    def told_prompt(self, count: int) -> bytes:
        """The frames of the first `count` tokens of the prompt, without probabilities."""
        return b"".join(
            to_frame(PromptToken(id=it, text=self._text(it), logprob_millionths=None, top=()))
            for it in self.prompt[:count]
        )

    def nothing(self) -> bytes:
        """The ending of an answer that has no tokens."""
        self.reason = "length"
        return to_frame(
            Ending(reason="length", prompt_tokens=len(self.prompt), tokens=0, text_bytes=0)
        )

    def _finite(self, logits: Any) -> Any:
        logits = logits[: len(self.table.names)]
        if not np.isfinite(logits).all():
            raise ModelRefused("the model answered with numbers that are not finite")
        return logits

    def take(self, line: Any) -> bytes:
        """Choose the next token by its logits: its frame, with the ending if it is the last."""
        logits = self._finite(line)
        allowed = self.grammar.allowed() if self.grammar is not None else None
        position = len(self.made)
        token = choose(
            logits, self.sampling, self.model, position, self._counts, allowed, self._rules
        )
        if self.grammar is not None:
            self.grammar.take(token)
        # From where another's answer differs from ours, it is not gone on with.
        self.forced = self.forced[1:] if self.forced[:1] == [token] else []
        self._sketch(line)
        piece, ending = self._added(token, logits)
        return to_frame(piece) + (self.sketched() + to_frame(ending) if ending else b"")

    def sketched(self) -> bytes:
        """The frame with the sketch of all tokens so far; nothing where none is asked for."""
        if self.sketching is None or not (chunks := self.sketching.whole()):
            return b""
        return to_frame(Sketch(chunks=chunks[:SKETCH_BYTES_MAX]))

    def _sketch(self, line: Any) -> None:
        if self.sketching is not None:
            self.sketching.add(line[len(line) - self.hidden :])

    def judge(self, line: Any, claim: Claim) -> tuple[float, Token, Ending | None]:
        """Go on with a token that somebody claims: its margin, and what is told of it here."""
        logits = self._finite(line)
        self._sketch(line)
        allowed = self.grammar.allowed() if self.grammar is not None else None
        position = len(self.made)
        missing = margin(
            logits, self.sampling, self.model, position, self._counts, claim, allowed, self._rules
        )
        if missing >= MARGIN_MAX:
            # It is decided, and what the schema says after such a token is no question.
            self.grammar = None
        elif self.grammar is not None:
            self.grammar.take(claim.token)
        return missing, *self._added(claim.token, logits)

    def _added(self, token: int, logits: Any) -> tuple[Token, Ending | None]:
        self.made.append(token)
        self._counts[token] += 1
        return self._piece(token, logits), self._ending(token)

    def _piece(self, token: int, logits: Any) -> Token:
        text = self._text(token)
        count = self.sampling.logprobs
        if count < 0:
            return Token(id=token, text=text, logprob_millionths=None, top=())
        logprobs = log_probabilities(logits)
        return Token(
            id=token,
            text=text,
            logprob_millionths=millionths(logprobs[token]),
            top=self._top(logprobs),
        )

    def _top(self, logprobs: Any) -> tuple[Alternative, ...]:
        return tuple(
            Alternative(text=self._text(other), logprob_millionths=millionths(logprobs[other]))
            for other in best(logprobs, self.sampling.logprobs)
        )

    def _text(self, token: int) -> bytes:
        return b"" if token in self.table.ends else self.table.texts[token]

    def _ending(self, token: int) -> Ending | None:
        before = len(self.text)
        self.text += self._text(token)
        shown = len(self.text)
        may_stop = len(self.made) > self.sampling.min_tokens
        if may_stop and (stop := self._stop(before)) is not None:
            self.reason, shown = "stop", stop
        elif token in self.table.ends or (self.grammar is not None and self.grammar.ended):
            self.reason = "stop"
        elif len(self.made) >= self.most:
            self.reason = "length"
        if not self.reason:
            return None
        return Ending(
            reason=self.reason,
            prompt_tokens=len(self.prompt),
            tokens=len(self.made),
            text_bytes=shown,
        )

    def _stop(self, before: int) -> int | None:
        """Where the first stop sequence begins that ends in the last token."""
        found = [
            at
            for stop in self.stops
            if (at := self.text.find(stop, max(0, before - len(stop) + 1))) >= 0
        ]
        return min(found, default=None)
