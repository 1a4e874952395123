"""What goes through a pass of a language model: rows, each one token at one place. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One token at one place of a slot, whose pages these are."""

    token: int
    slot: int
    position: int
    pages: Sequence[int]


class RestLost(Exception):
    """What other peers kept of the rows that went through before is gone; `final`: for good.

    `pages` is how many pages the next rows may name; 0 if that is not known.
    """

    def __init__(self, words: str, *, final: bool, pages: int) -> None:
        super().__init__(words)
        self.final = final
        self.pages = pages


class Forward(Protocol):
    """Runs one pass; the logits of every row, unless the rows are too many to answer. RestLost."""

    def __call__(self, rows: Sequence[SlotRow]) -> Any: ...
