"""Continuous batching as a pure core: which tokens of which answers go through the next pass.

An answer has a slot, and a slot has pages, where the keys and values of its tokens are kept. New
answers take slots between passes. A prompt is read in large passes, all but its last token; that
one, and then each token that was chosen, go through small passes that all answers share. While
others go on, a prompt is read a few tokens at a time, so that it holds nobody up. A slot that is
free keeps what it read: an answer whose prompt begins alike does not read that again, and whole
pages are shared between slots. Where pages run out the newest answer waits, and nobody is cut.
"""

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any

from node.engines.worker.claimed_sequence import ClaimedSequence
from node.engines.worker.pages import PagePool
from node.engines.worker.passes import Forward, Made, RestLost, SlotRow
from node.engines.worker.sequence import FAULTS, TokenSequence, refusal_of
from node.engines.worker.slot import Slot
from wire.errors import ModelRefused

# How many more slots than answers there are: the others keep what was read.
KEEPING = 4
# A pass costs its size, and a smaller one more for each row: one is taken that is so full.
FILLED = 0.75


class Slots:
    """`answering` is how many rows a pass that answers takes, `reading` those of one that reads.

    `count` answers go on at the same time. No answer may have more tokens than all pages hold.
    Passes that answer have as many rows as one of `guessing`, if guesses may fill them.
    """

    def __init__(
        self,
        count: int,
        *,
        answering: int,
        reading: tuple[int, ...],
        reuse: bool,
        pages: PagePool,
        guessing: tuple[int, ...] = (),
    ) -> None:
        self._count = count
        self._slots = [Slot(number) for number in range(count * KEEPING if reuse else count)]
        self._answering = answering
        self._reading = reading
        self._reuse = reuse
        self._pages = pages
        self._guessing = guessing
        self._waiting: deque[TokenSequence] = deque()
        self._steps = 0
        self._begun = 0

    @property
    def free(self) -> int:
        return self._count - len(self._active()) - len(self._waiting)

    @property
    def fresh(self) -> bool:
        """Whether nothing is kept."""
        return not any(slot.kept for slot in self._slots)

    @property
    def sketches(self) -> bool:
        """Whether an answer asks for a sketch, so that rows are given what they are drawn from."""
        return any(it.answer is not None and it.answer.sketches for it in self._slots)

    @property
    def pages_used(self) -> int:
        """How many pages have tokens of answers that go on."""
        return len({page for slot in self._active() for page in slot.pages})

    def begin(self, answer: TokenSequence) -> None:
        """Put an answer last among those that wait for a slot."""
        self._waiting.append(answer)

    def end(self, number: int) -> None:
        """Forget an answer: nobody waits for it any more."""
        self._waiting = deque(it for it in self._waiting if it.id != number)
        for slot in self._active():
            if slot.answer is not None and slot.answer.id == number:
                slot.answer = None

    def step(self, forward: Forward, paused: frozenset[int]) -> Made:
        """Read a piece of a prompt if there is one to read, then go on with all who can.

        Where what was kept is lost, everything is read once more; nobody loses what was made.
        """
        made = Made()
        try:
            self._step(forward, paused, made)
        except RestLost as lost:
            made.lost = lost
            self._begin_again(lost.pages or self._pages.count, made)
        return made

    def _begin_again(self, pages: int, made: Made) -> None:
        """Forget what is kept; there are so many pages now."""
        for slot in self._slots:
            self._cut(slot, 0)
        self._pages.resize(pages)
        answers = [*self._waiting, *(it.answer for it in self._active() if it.answer is not None)]
        for answer in answers:
            if self._pages.of(len(answer.prompt) + answer.most) > pages:
                made.refused[answer.id] = ModelRefused(
                    f"there is memory for {pages * self._pages.tokens} tokens at the peers that"
                    " have the rest of the layers"
                )
                self.end(answer.id)

    def _step(self, forward: Forward, paused: frozenset[int], made: Made) -> None:
        self._steps += 1
        self._admit()
        beside = self._read(forward, paused, made, beside=True)
        self._end_empty(made)
        rows, owners = self._rows(paused, guess=not beside)
        if not rows:
            if beside:
                # Those who were ready found no room after all.
                self._read(forward, paused, made, beside=False)
            return
        reader, part = self._beside(rows, paused) if beside else (None, [])
        logits = forward([*rows, *part])
        if reader is not None:
            reader.kept += [row.token for row in part]
            reader.used = self._steps
        stale: set[int] = set()
        for at, (slot, line) in enumerate(zip(owners, logits, strict=False)):
            if slot.number in stale:
                continue
            slot.kept.append(rows[at].token)
            slot.used = self._steps
            following = rows[at + 1].token if owners[at + 1 : at + 2] == [slot] else None
            if self._take(slot, line, made, following):
                stale.add(slot.number)

    def _active(self) -> list[Slot]:
        """The slots with answers, the oldest first."""
        active = [slot for slot in self._slots if slot.answer is not None]
        return sorted(active, key=lambda slot: slot.began)

    def _take(self, slot: Slot, line: Any, made: Made, following: int | None) -> bool:
        """Whether what comes after this row in the slot, `following`, is not to be looked at."""
        answer = slot.answer
        assert answer is not None, "only slots with answers have rows"
        try:
            frame = answer.take(line)
        except (ModelRefused, *FAULTS) as error:
            # Of one answer's own wishes; the others go on.
            made.refused[answer.id] = refusal_of(error)
            slot.answer = None
            return True
        made.frames.setdefault(answer.id, []).append(frame)
        made.answered += 1
        if answer.reason:
            made.ended[answer.id] = tuple(slot.pages), len(slot.kept)
            slot.answer = None
        answer.repetition.made(answer.made[-1] == following)
        return bool(answer.reason) or answer.made[-1] != following

    # Slots and their pages

    def _admit(self) -> None:
        while self._waiting and len(self._active()) < self._count:
            needed = self._pages.of(len(self._waiting[0].prompt) + 1)
            if self._active() and needed > self._within_reach(None):
                # It does not fit beside those that go on.
                return
            self._begun += 1
            self._place(self._waiting.popleft())

    def _place(self, answer: TokenSequence) -> None:
        """Give an answer the slot that knows most of its prompt, or the one unused the longest."""
        prompt = answer.prompt
        idle = [slot for slot in self._slots if slot.answer is None]
        slot = max(idle, key=lambda it: (self._alike(it, prompt), -it.used))
        # What is known of a prompt has no logits any more.
        known = min(answer.unheard, self._alike(slot, prompt))
        best = max(self._slots, key=lambda it: self._alike(it, prompt))
        shared = min(answer.unheard, self._alike(best, prompt)) // self._pages.tokens
        if shared * self._pages.tokens > known:
            slot = min(idle, key=lambda it: it.used)
            pages = [self._pages.share(page) for page in best.pages[:shared]]
            self._cut(slot, 0)
            slot.pages = pages
            slot.kept = prompt[: shared * self._pages.tokens]
        else:
            self._cut(slot, known)
        slot.answer, slot.used, slot.began = answer, self._steps, self._begun

    def _alike(self, slot: Slot, prompt: list[int]) -> int:
        """How much of a prompt, its last token apart, a slot has read already."""
        if not self._reuse:
            return 0
        pairs = zip(slot.kept, prompt[:-1], strict=False)
        return next(
            (at for at, (one, other) in enumerate(pairs) if one != other),
            min(len(slot.kept), len(prompt) - 1),
        )

    def _cut(self, slot: Slot, count: int) -> None:
        """Keep so many tokens of a slot, or fewer: what others share is not written to."""
        whole = count // self._pages.tokens
        if count % self._pages.tokens and self._pages.shared(slot.pages[whole]):
            count = whole * self._pages.tokens
        del slot.kept[count:]
        for page in slot.pages[self._pages.of(count) :]:
            self._pages.drop(page)
        del slot.pages[self._pages.of(count) :]

    def _within_reach(self, slot: Slot | None) -> int:
        """How many pages a slot could have if whatever is only kept made way."""
        others = {page for it in self._active() if it is not slot for page in it.pages}
        return self._pages.count - len(others)

    def _grown(self, slot: Slot, count: int) -> bool:
        """Whether a slot has pages for so many tokens, now that others made way for it."""
        while len(slot.pages) < self._pages.of(count):
            if (page := self._pages.take()) is not None:
                slot.pages.append(page)
                continue
            idle = [it for it in self._slots if it.answer is None and it.pages]
            if idle:
                self._cut(min(idle, key=lambda it: it.used), 0)
                continue
            newest = max(self._active(), key=lambda it: (bool(it.pages), it.began))
            if newest is slot or newest.began < slot.began:
                return False
            # It is read once more when there is room; what it made is kept.
            self._cut(newest, 0)
        return True

    def _may_go_on(self, slot: Slot) -> bool:
        """Whether there is room for all that a slot had before it gave its pages up, and more.

        One that has something goes on in any case; among the others nobody overtakes an older one.
        """
        if slot.kept:
            return True
        return all(
            self._pages.of(len(it.tokens) + 1) <= self._within_reach(it)
            for it in self._active()
            if not it.kept and it.began <= slot.began
        )

    # Passes

    def _end_empty(self, made: Made) -> None:
        """End the answers that want no token, once their prompts were read."""
        for slot in self._active():
            answer = slot.answer
            if answer is not None and not answer.most and slot.left <= 1:
                made.frames[answer.id] = [answer.nothing()]
                slot.answer = None

    def _readers(self, paused: frozenset[int]) -> list[Slot]:
        """The slots with something to read, the one first that was served the longest ago."""
        reading = [
            slot
            for slot in self._active()
            if slot.left > 1
            and slot.answer is not None
            and slot.answer.id not in paused
            and self._may_go_on(slot)
        ]
        return sorted(reading, key=lambda slot: slot.used)

    def _ready(self, paused: frozenset[int]) -> list[Slot]:
        """The slots whose next token is to be chosen."""
        return [
            slot
            for slot in self._active()
            if slot.left == 1
            and slot.answer is not None
            and slot.answer.id not in paused
            and self._may_go_on(slot)
        ]

    def _read(self, forward: Forward, paused: frozenset[int], made: Made, *, beside: bool) -> bool:
        """Read a piece in a pass of its own; whether it is to be read beside others instead.

        `beside` says whether that may be.
        """
        ready = len(self._ready(paused))
        for slot in self._readers(paused):
            answer = slot.answer
            assert answer is not None, "a slot without an answer has nothing left"
            most = self._at_once(slot.left - 1)
            if ready:
                most = self._answering if self._reuse else self._reading[0]
            if not answer.echoes and beside and self._reuse and 0 < ready <= self._answering // 2:
                return True
            part = self._part(slot, most)
            if not part:
                continue
            first, heard = len(slot.kept), None
            if answer.echoes and answer.told < first + len(part):
                # What was read once more is not told once more.
                heard = max(0, answer.told - first)
            logits = forward(part) if heard is None else forward(part, heard)
            slot.kept += [row.token for row in part]
            slot.used = self._steps
            if heard is not None:
                self._tell_prompt(slot, first + heard, logits, made)
            return False
        return False

    def _at_once(self, left: int) -> int:
        """How many of so many tokens one pass reads: one of them that is mostly filled."""
        if not self._reuse:
            return self._reading[-1]
        sizes = (self._answering, *self._reading)
        return max((it for it in sizes if left >= it * FILLED), default=self._answering)

    def _part(self, slot: Slot, most: int) -> list[SlotRow]:
        """The next tokens that a slot reads, its last one apart; none where there are no pages."""
        first, tokens = len(slot.kept), slot.tokens
        last = min(first + most, len(tokens) - 1)
        if not self._grown(slot, last):
            return []
        return [SlotRow(tokens[at], slot.number, at, slot.pages) for at in range(first, last)]

    def _beside(
        self, rows: list[SlotRow], paused: frozenset[int]
    ) -> tuple[Slot | None, list[SlotRow]]:
        """Who reads in the room that a pass of answers has left, and what."""
        going = {row.slot for row in rows}
        room = self._answering - len(rows)
        for slot in self._readers(paused):
            if slot.number in going or slot.answer is None or slot.answer.echoes:
                continue
            # Nobody who is in this pass makes way for it.
            tokens = min(len(slot.kept) + room, len(slot.tokens) - 1)
            missing = self._pages.of(tokens) - len(slot.pages)
            if missing <= self._within_reach(slot) - len(slot.pages) and (
                part := self._part(slot, room)
            ):
                return slot, part
        return None, []

    def _tell_prompt(self, slot: Slot, first: int, logits: Iterable[Any], made: Made) -> None:
        """Tell what follows the tokens from `first` on, by what was made of them."""
        answer = slot.answer
        assert answer is not None, "who is read has a slot"
        lines = itertools.islice(logits, max(0, len(answer.prompt) - 1 - first))
        try:
            made.read[answer.id] = answer.read(first, lines)
        except (ModelRefused, *FAULTS) as error:
            made.refused[answer.id] = refusal_of(error)
            slot.answer = None
            return
        answer.told = len(slot.kept)
        if isinstance(answer, ClaimedSequence):
            made.margins[answer.id] = answer.take_margins()

    def _rows(self, paused: frozenset[int], *, guess: bool) -> tuple[list[SlotRow], list[Slot]]:
        """The last token of every answer, and what may come after it, by another or by a guess."""
        ready = self._ready(paused)
        spare = self._spare(ready) if guess else 0
        rows: list[SlotRow] = []
        owners: list[Slot] = []
        room = self._answering - len(ready)
        for slot in ready:
            answer, first = slot.answer, len(slot.kept)
            # Whoever made way for an older one has nothing kept any more.
            if answer is None or slot.left != 1 or not self._grown(slot, first + 1):
                continue
            beyond = answer.forced[: max(0, room)]
            if not self._grown(slot, first + 1 + len(beyond)):
                beyond = []
            if spare and not answer.forced:
                beyond = self._guessed(slot, spare)
                spare -= len(beyond)
            room -= len(beyond)
            last = (answer.made or answer.prompt)[-1]
            for at, token in enumerate([last, *beyond]):
                rows.append(SlotRow(token, slot.number, first + at, slot.pages))
                owners.append(slot)
        return rows, owners

    def _spare(self, ready: list[Slot]) -> int:
        """How many guesses a pass has room for; only of who is alone it becomes a longer one."""
        sizes = [it for it in self._guessing if it >= len(ready) > 0]
        if not sizes:
            return 0
        if len(ready) > 1 or (answer := ready[0].answer) is None:
            return sizes[0] - len(ready)
        return sizes[: 3 if answer.repetition.trusted else 2][-1] - 1

    def _guessed(self, slot: Slot, most: int) -> list[int]:
        """What may come next, at most so many tokens."""
        answer = slot.answer
        assert answer is not None, "only slots with answers have rows"
        # Nobody makes way for guesses, and no token is beyond the last one.
        within = len(slot.pages) * self._pages.tokens - len(slot.kept) - 1
        most = min(most, within, answer.most - len(answer.made) - 1)
        return answer.repetition.guess(slot.tokens, most)
