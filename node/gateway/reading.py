"""What the pieces of a generation come to, as text that may be shown. A pure core.

Text is held back while it could still turn out to be a stop sequence, or half of a character. When
a peer's pieces turn out wrong the stream goes on from where they did, and if that contradicts what
was shown already there is no way back: `contradicted`, and who shows it ends with an error.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from wire.errors import Malformed, WireError
from wire.generation import Ending, PromptToken, Sketch, Token, read_frames

_Decoder = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class Fresh:
    """What may be shown and was not yet: text, and the tokens it came as."""

    text: str
    tokens: tuple[Token, ...]


class Phase(Enum):
    """How an answer that has not ended is read."""

    READING = auto()
    # Pieces that cannot be read are nobody's text: the whole output is waited for.
    MUTED = auto()


class Trust(Enum):
    """What is thought of that which was shown."""

    SOUND = auto()
    # Some of it may have been wrong.
    DOUBTED = auto()
    CONTRADICTED = auto()


@dataclass(slots=True)
class Reader:
    """One answer as it comes. `stops` are never shown, nor what follows them."""

    stops: Sequence[bytes] = ()
    # Before so many tokens no stop sequence counts.
    least: int = 0
    # The tokens of the prompt, where they are told: with the whole answer.
    prompt: tuple[PromptToken, ...] = ()
    _phase: Phase | Ending = Phase.READING
    # Whether what was shown is right, for all that is known.
    _trust: Trust = Trust.SOUND
    _tokens: list[Token] = field(default_factory=list)
    # Where each token's text begins; and all of their text.
    _starts: list[int] = field(default_factory=list)
    _text: bytearray = field(default_factory=bytearray)
    _shown: bytearray = field(default_factory=bytearray)
    _told: int = 0
    # How far stop sequences were looked for, and where one was found.
    _searched: int = 0
    _stop_at: int | None = None
    _decoder: codecs.IncrementalDecoder = field(default_factory=lambda: _Decoder("ignore"))

    @property
    def ending(self) -> Ending | None:
        """How it ended; None before."""
        return self._phase if isinstance(self._phase, Ending) else None

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence was found."""
        return self._stop_at is not None

    @property
    def contradicted(self) -> bool:
        """Whether something was shown that was wrong: there is no way back."""
        return self._trust is Trust.CONTRADICTED

    def take(self, position: int, units: int, data: bytes) -> None:
        """The `units` after the first `position`, provisional as all pieces are."""
        if self._phase is Phase.MUTED:
            return
        try:
            tokens = [it for it in read_frames(data) if isinstance(it, Token)]
        except WireError:
            tokens = []
        if position != len(self._tokens) or len(tokens) != units:
            self._phase = Phase.MUTED
            return
        self._append(tokens)

    def restart(self, position: int) -> None:
        """What came from `position` on was wrong."""
        if position > len(self._tokens):
            self._phase = Phase.MUTED
            return
        if position == 0:
            self._phase = Phase.READING
        if position < len(self._tokens):
            del self._text[self._starts[position] :]
            del self._tokens[position:], self._starts[position:]
            if self._trust is Trust.SOUND:
                self._trust = Trust.DOUBTED
            self._searched, self._stop_at = 0, None
            self._search()

    def finish(self, output: bytes) -> None:
        """The whole answer, which is what counts; WireError if it is none."""
        frames = list(read_frames(output))
        if not frames or not isinstance(frames[-1], Ending):
            raise Malformed("a generation without its ending")
        tokens = [it for it in frames[:-1] if isinstance(it, Token)]
        self.prompt = tuple(it for it in frames[:-1] if isinstance(it, PromptToken))
        # What the model's states were is no matter of who reads the text.
        sketches = sum(isinstance(it, Sketch) for it in frames)
        if len(tokens) + len(self.prompt) + sketches != len(frames) - 1:
            raise Malformed("a generation has tokens and one ending")
        if tokens != self._tokens:
            self.restart(0)
            self._append(tokens)
        self._phase = frames[-1]

    def fresh(self) -> Fresh:
        """What may be shown now and was not yet."""
        until = self._until()
        if self._trust is Trust.DOUBTED:
            if not self._agrees():
                self._trust = Trust.CONTRADICTED
            elif len(self._text) >= len(self._shown):
                self._trust = Trust.SOUND
        closed = self.ending is not None or self.stopped
        if closed and until < len(self._shown):
            self._trust = Trust.CONTRADICTED
        if self.contradicted or until <= len(self._shown):
            return Fresh("", ())
        data = bytes(self._text[len(self._shown) : until])
        self._shown += data
        return Fresh(self._decoder.decode(data), self._tokens_until(until))

    @property
    def reason(self) -> str:
        """Why it ended, in the words of OpenAI."""
        assert self.ending is not None
        # That tools are called whoever reads the calls finds out; those it cannot read are text.
        return "length" if self.ending.reason == "length" and not self.stopped else "stop"

    @property
    def stop_sequence(self) -> str | None:
        """The stop sequence that ended it, if one did."""
        if self._stop_at is None:
            return None
        found = next((it for it in self.stops if self._text.startswith(it, self._stop_at)), b"")
        return found.decode(errors="replace")

    def _append(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            self._starts.append(len(self._text))
            self._tokens.append(token)
            self._text += token.text
        self._search()

    def _agrees(self) -> bool:
        """Whether what was shown is so far what it should have been."""
        size = min(len(self._text), len(self._shown))
        return self._text[:size] == self._shown[:size]

    def _search(self) -> None:
        """Look in what is new for the stop sequence that is complete first."""
        if self._stop_at is not None or not self.stops:
            return
        if len(self._starts) <= self.least:
            return
        # A sequence counts that ends in the token of that number, or later.
        free = self._starts[self.least]
        begins = {it: max(0, max(self._searched, free) - len(it) + 1) for it in self.stops}
        found = [
            (at + len(it), at) for it in self.stops if (at := self._text.find(it, begins[it])) >= 0
        ]
        self._searched = len(self._text)
        if found:
            self._stop_at = min(found)[1]

    def _until(self) -> int:
        """How much of the text may be shown."""
        if self._stop_at is not None:
            return self._stop_at
        if self.ending is not None:
            return min(self.ending.text_bytes, len(self._text))
        held = 0
        for stop in self.stops:
            for size in range(min(len(stop) - 1, len(self._text)), held, -1):
                if self._text.endswith(stop[:size]):
                    held = size
                    break
        return len(self._text) - held

    def _tokens_until(self, until: int) -> tuple[Token, ...]:
        """The tokens that were not told yet and end, or at the end begin, within the text."""
        closed = self.ending is not None or self._stop_at is not None
        told: list[Token] = []
        while self._told < len(self._tokens):
            token, start = self._tokens[self._told], self._starts[self._told]
            if start + len(token.text) > until and not (closed and start < until):
                break
            self._told += 1
            # Special tokens are no text.
            if token.text:
                told.append(token)
        return tuple(told)
