"""What may come next in a text that repeats itself: what came after the same tokens before. Pure.

A guess is checked by the model like a token that another peer made, so it changes how many tokens a
pass makes, and never which. A pass with guesses costs more than one without, so after guesses that
were wrong there is a pause, which doubles each time: a text that only seems to repeat itself loses
next to nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

# So many tokens have to be the same.
ALIKE = 3
# Of a longer text only so many of the last tokens are looked at when it begins.
LOOKED_MAX = 16_384
PAUSE, PAUSE_MAX = 4, 512
# Of so many guesses, or a part of them, one has to be right for the pass to be worth it: a pass of
# four rows takes as long as 1.7 passes of one, and one of eight as long as 2.6 (measured).
RIGHT_OF = 4


@dataclass(slots=True, eq=False)
class Repetition:
    """Of one answer. `guess` before a pass, and `made` for each token that was made after it."""

    # Where the tokens come that follow so many others.
    _after: dict[tuple[int, ...], int] = field(default_factory=dict)
    _seen: int = 0
    _guesses: int = 0
    _right: int = 0
    _wait: int = 0
    _pause: int = PAUSE
    # Whether the last guesses were all right: then more of them are worth it.
    trusted: bool = False

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that may come after all these; none where nothing is alike."""
        self._settle()
        if most <= 0 or self._wait > 0:
            return []
        end = len(tokens)
        for at in range(max(self._seen, ALIKE, end - LOOKED_MAX), end):
            self._after[tuple(tokens[at - ALIKE : at])] = at
        self._seen = max(self._seen, end)
        first = self._after.get(tuple(tokens[-ALIKE:])) if end >= ALIKE else None
        if first is None:
            return []
        found: list[int] = []
        while len(found) < most:
            # Beyond the end it goes on with itself: what repeats now may do so for long.
            at = first + len(found)
            found.append(tokens[at] if at < end else found[at - end])
        self._guesses, self._right = len(found), 0
        return found

    def made(self, right: bool) -> None:
        """A token was made; whether it was the one that was guessed."""
        self._wait = max(0, self._wait - 1)
        self._right += right

    def _settle(self) -> None:
        """Judge the guesses of the last pass."""
        guesses, self._guesses = self._guesses, 0
        if not guesses:
            return
        self.trusted = self._right == guesses
        if self._right * RIGHT_OF >= guesses:
            self._pause = PAUSE
        else:
            self._wait = self._pause
            self._pause = min(2 * self._pause, PAUSE_MAX)
