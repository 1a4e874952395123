"""A slot of a language model: the answer that has it, and what is kept of its tokens. Pure."""

from dataclasses import dataclass, field

from node.engines.worker.sequence import TokenSequence


@dataclass(slots=True, eq=False)
class Slot:
    """`kept` are the tokens whose keys and values its pages have."""

    number: int
    kept: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    answer: TokenSequence | None = None
    used: int = 0
    # When its answer began, among all answers.
    began: int = 0

    @property
    def tokens(self) -> list[int]:
        """All tokens of its answer so far."""
        return [] if self.answer is None else [*self.answer.prompt, *self.answer.made]

    @property
    def left(self) -> int:
        """How many of its tokens have not been through a pass."""
        if self.answer is None:
            return 0
        return len(self.answer.prompt) + len(self.answer.made) - len(self.kept)
