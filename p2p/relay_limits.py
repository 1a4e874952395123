"""What is done by relays at most: leases, lines, bytes, and calls on their word. Pure.

Keys cost nothing, so whatever one key may have is bounded for all together too.
"""

from collections import Counter
from dataclasses import dataclass, field

from p2p.token_bucket import TokenBucket
from p2p.transport import LineEnd, RelayAnswer
from wire.content import PeerId
from wire.latest import Latest

# Of so many askers it is remembered how many bytes were carried for each.
ASKERS_KEPT = 1024
DAY_S = 86_400.0
# Each pair tries once so often to do without the relay, and a peer does no more in all.
PAIR_S, PAIRS_KEPT = 3600.0, 256
PUNCHES_BURST, PUNCHES_PER_S = 4.0, 1 / 15


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """The bounds of one relay."""

    kept_max: int = 64
    lease_s: float = 1800.0
    lines_per_kept: int = 16
    lines_per_asker: int = 16
    bytes_per_s_each: float = 2e6
    bytes_per_s_all: float = 20e6
    bytes_per_day: float = 50e9
    # Of what was not used before, so many seconds' worth may be sent at once.
    burst_s: float = 1.0


@dataclass(slots=True)
class PunchLimits:
    """Whom a peer calls on the word of a relay, and how often: relays and askers may conspire."""

    _last_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(PAIRS_KEPT))
    _all: TokenBucket = field(default_factory=lambda: TokenBucket(PUNCHES_BURST, PUNCHES_PER_S))

    def may(self, peer: PeerId, now_at_s: float) -> bool:
        """Whether `peer` is called now; if so, not again within PAIR_S."""
        last_at_s = self._last_at_s.get(peer)
        if last_at_s is not None and now_at_s < last_at_s + PAIR_S:
            return False
        if not self._all.take(now_at_s):
            return False
        self._last_at_s[peer] = now_at_s
        return True


@dataclass(slots=True)
class Pacer:
    """Says how long bytes have to wait so that they keep to a rate."""

    bytes_per_s: float
    burst_s: float
    _free_at_s: float = 0.0

    def wait_s(self, size_bytes: int, now_at_s: float) -> float:
        """How long these bytes have to wait; they count as sent after that."""
        begins_at_s = max(self._free_at_s, now_at_s - self.burst_s)
        self._free_at_s = begins_at_s + size_bytes / self.bytes_per_s
        return max(0.0, self._free_at_s - now_at_s)


@dataclass(slots=True)
class _Kept:
    """A peer with a lease."""

    until_at_s: float
    pacer: Pacer
    lines: int = 0


@dataclass(slots=True)
class RelayCounts:
    """Who has a lease, and what is carried for whom."""

    limits: RelayLimits = field(default_factory=RelayLimits)
    carried_bytes: int = 0
    refused: int = 0
    # Why lines have ended.
    ends: Counter[LineEnd] = field(default_factory=Counter)
    # What was carried for each asker: who asks pays.
    carried_for: Latest[PeerId, int] = field(default_factory=lambda: Latest(ASKERS_KEPT))
    _kept: dict[PeerId, _Kept] = field(default_factory=dict)
    _asking: Counter[PeerId] = field(default_factory=Counter)
    _all: Pacer = field(init=False)
    _day: int = -1
    _today_bytes: int = 0

    def __post_init__(self) -> None:
        self._all = Pacer(self.limits.bytes_per_s_all, self.limits.burst_s)

    @property
    def lines(self) -> int:
        """How many lines are open."""
        return self._asking.total()

    def kept(self) -> frozenset[PeerId]:
        """Who has a lease."""
        return frozenset(self._kept)

    def lease(self, kept: PeerId, lease_s: float, now_at_s: float) -> bool:
        """Give or renew a lease, for as long as is asked and allowed, if there is room."""
        for peer in [it for it, lease in self._kept.items() if lease.until_at_s <= now_at_s]:
            self.end_lease(peer)
        known = self._kept.get(kept)
        until_at_s = now_at_s + min(lease_s, self.limits.lease_s)
        if known is not None:
            known.until_at_s = until_at_s
            return True
        if len(self._kept) >= self.limits.kept_max:
            self.refused += 1
            return False
        pacer = Pacer(self.limits.bytes_per_s_each, self.limits.burst_s)
        self._kept[kept] = _Kept(until_at_s, pacer)
        return True

    def end_lease(self, kept: PeerId) -> None:
        """It has gone, or its lease has ended: no more lines to it."""
        self._kept.pop(kept, None)

    def admit(
        self, asker: PeerId, kept: PeerId, now_at_s: float, *, pays: bool = False
    ) -> RelayAnswer:
        """Count a line from `asker` to `kept`, if both may have one more.

        For those that pay there are as many again: keys that pay nothing leave them room.
        """
        lease = self._kept.get(kept)
        if lease is None or lease.until_at_s <= now_at_s or asker == kept:
            return RelayAnswer.NOT_KEPT
        if (
            lease.lines >= self.limits.lines_per_kept * (1 + pays)
            or self._asking[asker] >= self.limits.lines_per_asker
            or self._used_up(now_at_s)
        ):
            self.refused += 1
            return RelayAnswer.FULL
        lease.lines += 1
        self._asking[asker] += 1
        return RelayAnswer.THROUGH

    def ended(self, asker: PeerId, kept: PeerId, why: LineEnd | None = None) -> None:
        """A line that was admitted has ended; None where two were only introduced."""
        if why is not None:
            self.ends[why] += 1
        if (lease := self._kept.get(kept)) is not None:
            lease.lines = max(0, lease.lines - 1)
        self._asking[asker] -= 1
        if self._asking[asker] <= 0:
            del self._asking[asker]

    def wait_s(self, asker: PeerId, kept: PeerId, size_bytes: int, now_at_s: float) -> float | None:
        """How long so many bytes have to wait; None if the lease or the day's bytes have ended."""
        lease = self._kept.get(kept)
        if lease is None or lease.until_at_s <= now_at_s or self._used_up(now_at_s):
            return None
        self._today_bytes += size_bytes
        self.carried_bytes += size_bytes
        self.carried_for[asker] = self.carried_for.get(asker, 0) + size_bytes
        return max(lease.pacer.wait_s(size_bytes, now_at_s), self._all.wait_s(size_bytes, now_at_s))

    def _used_up(self, now_at_s: float) -> bool:
        day = int(now_at_s // DAY_S)
        if day != self._day:
            self._day, self._today_bytes = day, 0
        return self._today_bytes >= self.limits.bytes_per_day
