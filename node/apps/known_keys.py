"""What a gateway knows of one key of an app, and of the owner of one."""

from dataclasses import dataclass, field

import trio

from wire.app import AppDrawn, AppKey, AppPolicy
from wire.content import PeerId

# Questions to one owner at once.
ASKS_EACH_AT_ONCE = 4
NEVER = float("-inf")


@dataclass(slots=True, eq=False)
class KnownKey:
    """One key, as its owner said at `asked_at_s`.

    `spent` is what it has spent here in all, in millionths, and `calls` how many it made that its
    owner was not told of. `drawn` is what requests came to that its owner has paid for.
    """

    digest: bytes
    owner: PeerId
    policy: AppPolicy
    key: AppKey
    asked_at_s: float
    spent: int = 0
    calls: int = 0
    drawn: list[AppDrawn] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class KnownOwner:
    """Which keys of one owner are revoked, by an answer to what was asked at `asked_at_s`."""

    peer: PeerId
    sequence: int = 0
    revoked: frozenset[bytes] = frozenset()
    asked_at_s: float = NEVER
    # Why it was not told, and when that was tried last.
    problem: str = ""
    failed_at_s: float = float("-inf")
    waiting: int = 0
    listing: trio.Lock = field(default_factory=trio.Lock)
    asking: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(ASKS_EACH_AT_ONCE)
    )

    def age_s(self, now_at_s: float) -> float:
        """How old the list is."""
        return now_at_s - self.asked_at_s
