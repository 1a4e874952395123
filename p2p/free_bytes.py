"""What a relay passes on although nobody has promised to pay for it. Pure.

Keys cost nothing, so what is free for all together is bounded, and shared by networks first, then
by the peers of each: a farm of keys at one place leaves newcomers elsewhere what is theirs.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace

from p2p.token_bucket import TokenBuckets
from wire.content import PeerId
from wire.latest import Latest

# Of one asker that has promised nothing, at once and a second: enough to meet somebody, to gossip,
# and to open a channel. And of all together.
FREE_BYTES, FREE_BYTES_PER_S = 1 << 20, 2 << 10
ALL_FREE_BYTES, ALL_FREE_BYTES_PER_S = 64 << 20, 128 << 10
ASKERS_MAX = 4096
# An asker is said to be waited for so long after its bytes were last held back.
WAITS_S = 1.0
# Whoever comes when so many have used some shares one place with all that do.
USERS_MAX = 4096
_OTHERS = ""


@dataclass(slots=True)
class FairUse:
    """How much each user has used of something that comes back, to all that used some alike.

    So each has as much of what comes back as every other, and who uses less leaves it to them.
    """

    total: float = 0.0
    # What has come back to one that used some all the time; where that is when each has none left.
    _clock: float = 0.0
    _until: dict[str, float] = field(default_factory=dict)
    # The same in order; an entry may be of before its user used more.
    _ends: list[tuple[float, str]] = field(default_factory=list)

    def place_of(self, user: str) -> str:
        """Under which name a user counts: its own while there is room, else that of all others."""
        return user if user in self._until or len(self._until) < USERS_MAX else _OTHERS

    def used(self, user: str) -> float:
        """What it has used that did not come back yet."""
        return self._until.get(self.place_of(user), self._clock) - self._clock

    def spend(self, user: str, amount: float) -> None:
        """Count so much more for it."""
        user = self.place_of(user)
        until = self._until.get(user, self._clock) + amount
        if user not in self._until:
            heappush(self._ends, (until, user))
        self._until[user] = until
        self.total += amount

    def come_back(self, amount: float) -> list[str]:
        """Let so much come back; the users that have used nothing then."""
        ended = []
        while self._ends and amount > 0.0:
            until, user = self._ends[0]
            if until < self._until[user]:
                heapreplace(self._ends, (self._until[user], user))
                continue
            count = len(self._ends)
            step = min(amount, (until - self._clock) * count)
            amount -= step
            self.total -= step
            self._clock += step / count
            if amount > 0.0:
                heappop(self._ends)
                del self._until[user]
                ended.append(user)
        if not self._ends:
            self.total = 0.0
        return ended


@dataclass(slots=True)
class FreeBytes:
    """Says whose bytes are free now.

    A network may have used as much as is left for all, and a peer of it as much as its network may
    use further: so something is always left for one that comes.
    """

    _each: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(FREE_BYTES, FREE_BYTES_PER_S, ASKERS_MAX)
    )
    _networks: FairUse = field(default_factory=FairUse)
    # Of each network that has used some, its peers.
    _peers: dict[str, FairUse] = field(default_factory=dict)
    _seen_at_s: float | None = None
    # When bytes of each were last held back.
    _held_back_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(ASKERS_MAX))

    def take(self, asker: PeerId, network: str, size_bytes: int, now_at_s: float) -> bool:
        """Whether so many bytes are free now; the last piece may be more than there is left."""
        key, networks = asker.hex(), self._networks
        passed_s = 0.0 if self._seen_at_s is None else now_at_s - self._seen_at_s
        self._seen_at_s = now_at_s
        for ended in networks.come_back(passed_s * ALL_FREE_BYTES_PER_S):
            self._peers.pop(ended, None)
        network = networks.place_of(network)
        peers, used = self._peers.get(network) or FairUse(), networks.used(network)
        peers.come_back(peers.total - used)
        left = ALL_FREE_BYTES - networks.total - used - peers.used(key)
        if left <= 0.0 or self._each.wait_s(key, now_at_s):
            self._held_back_at_s[asker] = now_at_s
            return False
        networks.spend(network, size_bytes)
        peers.spend(key, size_bytes)
        self._peers[network] = peers
        self._each.spend(key, size_bytes, now_at_s)
        return True

    def owing(self, now_at_s: float) -> int:
        """How many askers owe a promise now: their bytes are held back."""
        return sum(it > now_at_s - WAITS_S for it in self._held_back_at_s.values())
