"""An answer that somebody claims: read like a prompt, and judged token by token. Worker.

Pure: logits go in; margins come out, and what this model tells of the claimed tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from node.engines.replay import OPEN
from node.engines.sampler import Claim, Sampling
from node.engines.worker.sequence import TokenSequence
from wire.generation import Ending, to_frame


@dataclass(slots=True, eq=False)
class ClaimedSequence(TokenSequence):
    """Its `prompt` is the question's and the claimed answer; it makes no token of its own."""

    # The question with no answer yet, which takes the claimed tokens one by one.
    answer: TokenSequence | None = None
    slack: float = 0.0
    # Of the tokens judged since they were last taken.
    margins: list[float] = field(default_factory=list)
    ending: Ending | None = None

    @classmethod
    def of(cls, answer: TokenSequence, claimed: Sequence[int], slack: float) -> Self:
        """What judges `claimed` as the answer that `answer` would become."""
        return cls(
            id=answer.id,
            model=answer.model,
            table=answer.table,
            prompt=[*answer.prompt, *claimed],
            most=0,
            sampling=Sampling(),
            stops=(),
            grammar=None,
            forced=[],
            told=answer.unheard,
            answer=answer,
            slack=slack,
        )

    @property
    def echoes(self) -> bool:
        """Its tokens are what it is read for."""
        return True

    @property
    def sketches(self) -> bool:
        assert self.answer is not None
        return self.answer.sketches

    @property
    def unheard(self) -> int:
        assert self.answer is not None
        return self.answer.unheard

    def read(self, first: int, logits: Iterable[Any]) -> bytes:
        """The frames of the tokens that come after those from `first` on."""
        assert self.answer is not None
        found, count = b"", len(self.answer.prompt)
        for at, line in enumerate(logits, first):
            if at + 1 < count:
                found += self.answer.read(at, [line])
            elif self.ending is None:
                missing, piece, self.ending = self.answer.judge(
                    line, Claim(self.prompt[at + 1], self.slack)
                )
                self.margins.append(missing)
                found += to_frame(piece)
        return found

    def nothing(self) -> bytes:
        """The ending, where this model ends the answer; of the reason `OPEN` if it does not."""
        assert self.answer is not None
        self.reason = OPEN
        if not self.answer.most:
            return self.answer.nothing()
        return self.answer.sketched() + to_frame(
            self.ending
            or Ending(
                reason=OPEN,
                prompt_tokens=len(self.answer.prompt),
                tokens=len(self.answer.made),
                text_bytes=len(self.answer.text),
            )
        )

    def take_margins(self) -> list[float]:
        """The margins since this was last asked."""
        found, self.margins = self.margins, []
        return found
