"""Verdicts that this peer has committed to, and tells when it is asked to."""

from dataclasses import dataclass

from wire.commitment import commitment_to, opened
from wire.content import PeerId
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
