"""Continuous batching as a pure core: which tokens of which answers go through the next pass.

An answer has a slot, where the keys and values of its tokens are kept. New answers take free slots
between passes. A prompt is read in large passes, all but its last token; that one, and then each
token that was chosen, go through small passes that all answers share. A slot that is free keeps
what it read: an answer whose prompt begins alike does not read that again.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from node.engines.worker.sequence import FAULTS, TokenSequence, refusal_of
from wire.errors import ModelRefused


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One token at one place of a slot."""

    token: int
    slot: int
    position: int


class Forward(Protocol):
    """Runs one pass; the logits of every row, unless the rows are too many to answer."""

    def __call__(self, rows: Sequence[SlotRow]) -> Any: ...


@dataclass(slots=True, eq=False)
class Slot:
    """`kept` are the tokens whose keys and values it has."""

    number: int
    kept: list[int] = field(default_factory=list)
    answer: TokenSequence | None = None
    used: int = 0

    @property
    def left(self) -> int:
        """How many of its tokens have not been through a pass."""
        if self.answer is None:
            return 0
        return len(self.answer.prompt) + len(self.answer.made) - len(self.kept)


@dataclass(slots=True)
class Made:
    """What a step made: frames by answer, answers that cannot go on with the reason."""

    frames: dict[int, list[bytes]] = field(default_factory=dict)
    refused: dict[int, ModelRefused] = field(default_factory=dict)
    # The frames of prompts' tokens, where they are asked for.
    read: dict[int, bytes] = field(default_factory=dict)
    answered: int = 0


class Slots:
    """`answering` is how many rows a pass that answers takes, `reading` those of one that reads."""

    def __init__(
        self, count: int, *, answering: int, reading: tuple[int, ...], reuse: bool
    ) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._answering = answering
        self._reading = reading
        self._reuse = reuse
        self._waiting: deque[TokenSequence] = deque()
        self._steps = 0

    @property
    def free(self) -> int:
        free = sum(slot.answer is None for slot in self._slots)
        return free - len(self._waiting)

    def begin(self, answer: TokenSequence) -> None:
        """Put an answer last among those that wait for a slot."""
        self._waiting.append(answer)

    def end(self, number: int) -> None:
        """Forget an answer: nobody waits for it any more."""
        self._waiting = deque(it for it in self._waiting if it.id != number)
        for slot in self._slots:
            if slot.answer is not None and slot.answer.id == number:
                slot.answer = None

    def step(self, forward: Forward, paused: frozenset[int]) -> Made:
        """Read a piece of a prompt if there is one to read, then go on with all who can."""
        self._steps += 1
        self._admit()
        made = Made()
        self._read(forward, paused, made)
        self._end_empty(made)
        rows, owners = self._rows(paused)
        if not rows:
            return made
        logits = forward(rows)
        stale: set[int] = set()
        for row, slot, line in zip(rows, owners, logits, strict=True):
            if slot.number in stale:
                continue
            slot.kept.append(row.token)
            slot.used = self._steps
            if self._take(slot, line, made):
                stale.add(slot.number)
        return made

    def _take(self, slot: Slot, line: Any, made: Made) -> bool:
        """Whether what lies after this row in the slot is not to be looked at."""
        answer = slot.answer
        assert answer is not None, "only slots with answers have rows"
        expected = answer.forced[:1]
        try:
            frame = answer.take(line)
        except ModelRefused as error:
            made.refused[answer.id] = error
            slot.answer = None
            return True
        except FAULTS as error:
            # Of one answer's own wishes; the others go on.
            made.refused[answer.id] = refusal_of(error)
            slot.answer = None
            return True
        made.frames.setdefault(answer.id, []).append(frame)
        made.answered += 1
        if answer.reason:
            slot.answer = None
        return bool(answer.reason) or answer.made[-1:] != expected

    def _admit(self) -> None:
        while self._waiting and (free := [it for it in self._slots if it.answer is None]):
            answer = self._waiting.popleft()
            prompt = answer.prompt
            # The one that knows most of the prompt, or else the one that was used longest ago.
            slot = max(free, key=lambda it: (self._alike(it, prompt), -it.used))
            # What is known of a prompt has no logits any more.
            del slot.kept[0 if answer.echoes else self._alike(slot, prompt) :]
            slot.answer = answer
            slot.used = self._steps

    def _alike(self, slot: Slot, prompt: list[int]) -> int:
        """How much of a prompt, its last token apart, a slot has read already."""
        if not self._reuse:
            return 0
        pairs = zip(slot.kept, prompt[:-1], strict=False)
        return next(
            (at for at, (one, other) in enumerate(pairs) if one != other),
            min(len(slot.kept), len(prompt) - 1),
        )

    def _end_empty(self, made: Made) -> None:
        """End the answers that want no token, once their prompts were read."""
        for slot in self._slots:
            answer = slot.answer
            if answer is not None and not answer.most and slot.left <= 1:
                made.frames[answer.id] = [answer.nothing()]
                slot.answer = None

    def _read(self, forward: Forward, paused: frozenset[int], made: Made) -> None:
        reading = [
            slot
            for slot in self._slots
            if slot.answer is not None and slot.left > 1 and slot.answer.id not in paused
        ]
        if not reading:
            return
        slot = min(reading, key=lambda it: it.used)
        others = any(it.left == 1 for it in self._slots)
        # Where others wait for their next token the passes between are short.
        most = self._reading[0] if others else self._reading[-1]
        answer = slot.answer
        assert answer is not None, "a slot without an answer has nothing left"
        if answer.echoes:
            # Only short passes say what they make of every token.
            most = self._answering
        first = len(slot.kept)
        part = answer.prompt[first : min(first + most, len(answer.prompt) - 1)]
        logits = forward([SlotRow(token, slot.number, first + at) for at, token in enumerate(part)])
        slot.kept += part
        slot.used = self._steps
        if answer.echoes:
            self._tell_prompt(slot, answer, first, logits, made)

    def _tell_prompt(
        self, slot: Slot, answer: TokenSequence, first: int, logits: Any, made: Made
    ) -> None:
        try:
            made.read[answer.id] = answer.read(first, logits)
        except ModelRefused as error:
            made.refused[answer.id] = error
            slot.answer = None

    def _rows(self, paused: frozenset[int]) -> tuple[list[SlotRow], list[Slot]]:
        """The last token of every answer, and what another made of some, to be checked."""
        ready = [
            slot
            for slot in self._slots
            if slot.answer is not None and slot.left == 1 and slot.answer.id not in paused
        ]
        rows: list[SlotRow] = []
        owners: list[Slot] = []
        room = self._answering - len(ready)
        for slot in ready:
            assert slot.answer is not None, "ready slots have answers"
            beyond = slot.answer.forced[: max(0, room)]
            room -= len(beyond)
            first = len(slot.kept)
            last = (slot.answer.made or slot.answer.prompt)[-1]
            for at, token in enumerate([last, *beyond]):
                rows.append(SlotRow(token, slot.number, first + at))
                owners.append(slot)
        return rows, owners
