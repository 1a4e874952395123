"""What goes through a pass of a language model, and what a step makes of it. Pure.

A pass takes rows, each one token at one place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from wire.errors import ModelRefused


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


class RestLied(Exception):
    """Another peer gave rows that its layers do not give."""


class Forward(Protocol):
    """Runs one pass; the logits of every row, unless the rows are too many to answer. RestLost.

    With `told`, logits of the rows from that one on, one after the other, however many they are.
    Where an answer wants a sketch, the numbers that a row's logits are made of stand after them.
    """

    def __call__(self, rows: Sequence[SlotRow], told: int | None = None) -> Any: ...


@dataclass(slots=True)
class Made:
    """What a step made: frames by answer, answers that cannot go on with the reason."""

    frames: dict[int, list[bytes]] = field(default_factory=dict)
    refused: dict[int, ModelRefused] = field(default_factory=dict)
    # The frames of prompts' and of claimed tokens, where they are asked for; margins of the latter.
    read: dict[int, bytes] = field(default_factory=dict)
    margins: dict[int, list[float]] = field(default_factory=dict)
    # Of answers that have ended: their pages, and how many of their tokens went through.
    ended: dict[int, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    answered: int = 0
    lost: RestLost | None = None
