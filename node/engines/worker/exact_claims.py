"""A claimed answer of an exact transformer, judged by the numpy reference alone.

It needs the model's file, no device and no library that runs models, so a receipt can be judged
wherever Baton is installed, and years later.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from node.engines.exact.text_file import TextModel, read_text
from node.engines.exact.text_layers import TextLayers, TextPast, Unpacking, as_floats
from node.engines.formats.onnx_protobuf import Array
from node.engines.margins import judged
from node.engines.replay import JudgedAnswer, request
from node.engines.worker.asked_answer import AskedAnswers
from node.engines.worker.claimed_sequence import ClaimedSequence
from node.engines.worker.sequence import FAULTS, TokenSequence, refusal_of
from wire.calibration import BUILT_IN
from wire.content import ContentId
from wire.errors import ModelRefused
from wire.generation import Generation

# Rows that go through all layers together, and rows whose logits are made together.
READ_ROWS, SAID_ROWS = 256, 32


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claimed answer as tokens: those of the question, and those of the answer."""

    answer: TokenSequence
    tokens: list[int]

    @property
    def prompt(self) -> list[int]:
        """The question's tokens."""
        return self.answer.prompt


@dataclass(slots=True)
class ExactClaims:
    """Judges answers of one model. `before_pass` is called before each pass; it may raise."""

    text: TextModel
    asked: AskedAnswers
    layers: TextLayers = field(init=False)
    before_pass: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.layers = TextLayers(self.text, Unpacking(self.text))

    @classmethod
    def of(cls, path: Path, model_id: ContentId) -> Self:
        """For the model in a file, whose id decides how tokens are drawn; ModelRefused."""
        text = read_text(path)
        return cls(text, AskedAnswers.of(model_id, text.shape, text.context))

    def claimed(self, question: bytes, parameters: Mapping[str, Any], output: bytes) -> Claimed:
        """A claimed answer's tokens, as far as they can be; WireError, ModelRefused."""
        answer = self._begun(question, parameters)
        tokens = request(question, output, 0.0, self.text.context + 1).claimed
        return Claimed(answer, self.asked.claimed(answer, tokens))

    def difference(self, question: bytes, parameters: Mapping[str, Any], output: bytes) -> str:
        """What of an answer is not what the model gives, in words; as `first_difference`."""
        return self.first_difference(question, parameters, output)[0]

    def first_difference(
        self, question: bytes, parameters: Mapping[str, Any], output: bytes
    ) -> tuple[str, int | None]:
        """What of an answer is not what the model gives, in words, and the first token of it.

        Words are empty if all is right; there is no token where only what is told of them differs.
        WireError if the question or the answer is none; ModelRefused if the model takes no such
        question.
        """
        found = self.claimed(question, parameters, output)
        told, margins = self._told(found)
        answer = JudgedAnswer(
            margins=np.array(margins, "<f4").tobytes(), output=told, positions=len(margins)
        )
        missed = next((at for at, it in enumerate(margins) if it), None)
        if missed is not None:
            return f"token {missed} of the answer is another one", missed
        _, why = judged(output, answer.to_bytes(), len(found.tokens), BUILT_IN, is_exact=True)
        return why, None

    def _begun(self, question: bytes, parameters: Mapping[str, Any]) -> TokenSequence:
        try:
            return self.asked.begun(Generation.from_bytes(question), parameters)
        except FAULTS as error:
            raise refusal_of(error) from error

    def _told(self, found: Claimed) -> tuple[bytes, list[float]]:
        """The answer's frames as the model tells them, and the margins of its tokens."""
        answer = found.answer
        sequence = ClaimedSequence.of(answer, found.tokens, 0.0)
        told = b""
        if answer.sampling.echo:
            told += answer.told_prompt(1 if answer.echoes else len(answer.prompt))
        first = answer.unheard
        try:
            told += sequence.read(first, self._lines(sequence.prompt, first, answer.sketches))
        except FAULTS as error:
            raise refusal_of(error) from error
        return told + sequence.nothing(), sequence.take_margins()

    def _lines(self, tokens: Sequence[int], first: int, sketched: bool) -> Iterator[Array]:
        """What is said after each token from `first` on, but after the last."""
        if len(tokens) > self.text.context:
            raise ModelRefused(f"the answer has more than {self.text.context} tokens")
        past = TextPast(self.layers)
        for at in range(0, len(tokens) - 1, READ_ROWS):
            self.before_pass()
            rows = past.read(tokens[at : min(at + READ_ROWS, len(tokens) - 1)])
            rows = rows[max(0, first - at) :]
            for begin in range(0, len(rows), SAID_ROWS):
                some = rows[begin : begin + SAID_ROWS]
                lines = as_floats(self.layers.logits(some))
                if sketched:
                    lines = np.concatenate((lines, some.astype(np.float32)), axis=1)
                yield from lines
