"""Verdicts that this peer has committed to, and tells when it is asked to."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from wire.commitment import commitment_to, opened
from wire.content import PeerId
from wire.counting import counted
from wire.errors import Refused
from wire.receipt import Verdict

# Verdicts that were committed to in conversations of their own and not asked for yet; for one more
# the oldest is let go.
HELD_MAX = 256
HELD_PER_ASKER_MAX = 32
NOT_ASKED_FOR = "nobody asked for this verdict in time"


@dataclass(frozen=True, slots=True)
class HeldVerdict:
    """One of them. It is held until `until_at_s`."""

    verdict: Verdict
    # Drawn for this verdict alone: without it nobody can tell what was committed to.
    salt: bytes
    until_at_s: float

    def commitment(self, signer: PeerId) -> bytes:
        """What is said of it at first."""
        return commitment_to(self.verdict, self.salt, signer)

    def told(self, shown: bytes, count: int) -> Verdict:
        """The verdict to sign, for an asker that says which commitments it has."""
        return opened(self.verdict, self.salt, shown, count)


@dataclass(slots=True)
class HeldPlaces:
    """The places of verdicts that are held, each in a conversation of its own."""

    _by_asker: Counter[PeerId] = field(default_factory=Counter)
    # The oldest first: each is let go by its scope.
    _scopes: dict[trio.CancelScope, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._scopes)

    @contextmanager
    def place(self, asker: PeerId, until_at_s: float, per_asker_max: int) -> Iterator[None]:
        """Hold a verdict in this block, which is left at `until_at_s`, or to make room for others.

        Refused if this asker has too many.
        """
        if self._by_asker[asker] >= per_asker_max:
            raise Refused("this peer holds other verdicts that nobody asks for", retry_after_s=1.0)
        if len(self._scopes) >= HELD_MAX:
            # Honest askers ask within moments; whoever never asks loses its place to others.
            oldest = next(iter(self._scopes))
            del self._scopes[oldest]
            oldest.cancel()
        with counted(self._by_asker, asker), trio.move_on_at(until_at_s) as scope:
            self._scopes[scope] = None
            try:
                yield
            finally:
                self._scopes.pop(scope, None)
