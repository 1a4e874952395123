"""How much a sponsor has given away, and what it still gives. Pure.

Keys cost nothing, so what anybody can get is bounded by what a sponsor gives in a period as long as
an epoch, and by what it gives there to all that call from one prefix of addresses.
"""

import hashlib
from dataclasses import dataclass, field

from node.ledger.faucet_puzzle import bits_needed
from node.paying_config import Sponsoring
from wire.amount import show_credits
from wire.codec import pack, unpack
from wire.errors import Refused
from wire.kinds import RefusalCode

# In a period so many keys of one prefix are given credits.
KEYS_OF_PREFIX_MAX = 4
_PREFIX_BYTES = 8


def _short(prefix: str) -> bytes:
    return hashlib.sha256(prefix.encode()).digest()[:_PREFIX_BYTES]


@dataclass(slots=True)
class FaucetBook:
    """What was given in one period; `period` is -1 before anything was."""

    terms: Sponsoring
    period: int = -1
    given: int = 0
    # How many keys of each prefix; as many prefixes at most as keys.
    prefixes: dict[bytes, int] = field(default_factory=dict)

    def begin(self, period: int) -> None:
        """Go on to a period. A clock that was set back by one period gives nothing twice."""
        if period not in (self.period, self.period - 1):
            self.period, self.given = period, 0
            self.prefixes.clear()

    def check(self, prefix: str, left_s: float) -> None:
        """Refused, with the time that is left of this period, if no further key is given any."""
        if self.given + self.terms.each > self.terms.per_epoch:
            raise Refused(
                f"this sponsor gives {show_credits(self.terms.per_epoch)} credits an epoch, and"
                " has given them: ask again later",
                code=RefusalCode.BUSY,
                retry_after_s=left_s,
            )
        if not self.terms.puzzle and self.prefixes.get(_short(prefix), 0) >= KEYS_OF_PREFIX_MAX:
            raise Refused(
                f"{KEYS_OF_PREFIX_MAX} keys that call from near your address were given credits in"
                " this epoch: ask again later",
                code=RefusalCode.BUSY,
                retry_after_s=left_s,
            )

    def check_work(self, bits: int, left_s: float) -> None:
        """Refused if more work is needed than that for one more key."""
        each = self.terms.each
        needed = bits_needed(self.given // each, self.terms.per_epoch // each)
        if self.terms.puzzle and bits < needed:
            raise Refused(
                f"this sponsor gives credits for work: a solution of {needed} bits is needed now,"
                f" and {max(0, bits)} are shown",
                code=RefusalCode.NOT_PAID,
                retry_after_s=left_s,
            )

    def take(self, prefix: str) -> None:
        """Count one key that is given credits."""
        self.given += self.terms.each
        if self.terms.puzzle:
            return
        self.prefixes[_short(prefix)] = self.prefixes.get(_short(prefix), 0) + 1

    def put_back(self, period: int, prefix: str) -> None:
        """Count one key less, if it was counted in the period that runs."""
        if period == self.period:
            self.given = max(0, self.given - self.terms.each)
            if self.terms.puzzle:
                return
            self.prefixes[_short(prefix)] = max(0, self.prefixes.get(_short(prefix), 0) - 1)

    def to_bytes(self) -> bytes:
        """The row."""
        return pack([self.period, self.given, [[key, it] for key, it in self.prefixes.items()]])

    @classmethod
    def from_bytes(cls, terms: Sponsoring, data: bytes) -> "FaucetBook":
        """WireError if a row is none."""
        period, given, prefixes = unpack(data)
        return cls(terms, period, given, dict(map(tuple, prefixes)))
