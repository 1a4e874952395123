"""Which connections a listener keeps while their peers have not shown who they are.

A pure core. A connection costs its opener next to nothing, and a handshake costs us milliseconds of
processor time, so before anything else each address prefix has a token bucket. Connections that
were let in and have not finished their handshake are half-open: those that make no progress are
closed, and when all places are taken the oldest one of the prefix that has the most makes room. So
newcomers are never refused for what others do, unless they share a prefix with them.

Handshakes are timed by a clock that stands still while our own loop did (see `LoopClock`): nobody
is to blame for what it could not do because we did not listen.
"""

from collections import Counter
from dataclasses import dataclass, field

from p2p.ip_address import is_loopback, prefix_of
from p2p.token_bucket import TokenBuckets


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds of what strangers may cost a listener."""

    # Measured: a handshake is 7.5 ms of processor time, so a prefix may take 6 % of a core. A
    # hundred peers of one prefix that start at once are all in after five seconds.
    burst: float = 64.0
    per_s: float = 8.0
    # A demo and a network in one machine have all their peers on the loopback.
    loopback_times: float = 16.0
    half_open_max: int = 256
    # Until the first byte, and from then on from one byte to the next.
    silence_s: float = 2.0
    # The whole handshake, however it trickles in.
    handshake_s: float = 6.0


@dataclass(slots=True)
class HalfOpen:
    """A connection whose peer has not shown who it is. `number` is in the order of coming."""

    number: int
    prefix: str
    opened_ran_s: float
    heard_ran_s: float


@dataclass(slots=True)
class ConnectionLimiter:
    """Decides; the shell opens, closes and tells."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    refused: int = 0
    evicted: int = 0
    timed_out: int = 0
    _half_open: dict[int, HalfOpen] = field(default_factory=dict)
    _prefixes: Counter[str] = field(default_factory=Counter)
    _count: int = 0
    _buckets: TokenBuckets = field(init=False)

    def __post_init__(self) -> None:
        self._buckets = TokenBuckets(self.limits.burst, self.limits.per_s)

    @property
    def half_open(self) -> int:
        """How many handshakes are under way."""
        return len(self._half_open)

    def arrived(
        self, host: str, now_at_s: float, ran_s: float
    ) -> tuple[HalfOpen | None, HalfOpen | None]:
        """A connection from `host`: its place, or None for closing it at once; and who makes room.

        `now_at_s` is of any monotonic clock, `ran_s` of the loop's, as are all times below. Who
        makes room has no place any more, and is to be closed.
        """
        prefix = prefix_of(host)
        times = self.limits.loopback_times if is_loopback(host) else 1.0
        if not self._buckets.take(prefix, now_at_s, times):
            self.refused += 1
            return None, None
        evicted = self._evict() if len(self._half_open) >= self.limits.half_open_max else None
        self._count += 1
        place = HalfOpen(self._count, prefix, ran_s, ran_s)
        self._half_open[place.number] = place
        self._prefixes[prefix] += 1
        return place, evicted

    def heard(self, place: HalfOpen, ran_s: float) -> None:
        """Bytes came over this connection."""
        place.heard_ran_s = ran_s

    def ended(self, place: HalfOpen) -> None:
        """Its handshake has ended, well or not. Safe to call twice."""
        if self._half_open.pop(place.number, None) is not None:
            self._prefixes[place.prefix] -= 1
            if not self._prefixes[place.prefix]:
                del self._prefixes[place.prefix]

    def overdue(self, ran_s: float) -> list[HalfOpen]:
        """Whose time is over: they have no place any more, and are to be closed."""
        limits = self.limits
        over = [
            it
            for it in self._half_open.values()
            if ran_s - it.heard_ran_s >= limits.silence_s
            or ran_s - it.opened_ran_s >= limits.handshake_s
        ]
        for it in over:
            self.ended(it)
        self.timed_out += len(over)
        return over

    def _evict(self) -> HalfOpen:
        """The oldest one of the prefix that has the most of them."""
        most = max(self._prefixes.values())
        place = next(it for it in self._half_open.values() if self._prefixes[it.prefix] == most)
        self.ended(place)
        self.evicted += 1
        return place


@dataclass(slots=True)
class LoopClock:
    """A clock that stands still while nobody looks at it for longer than `step_s`."""

    step_s: float
    _ran_s: float = 0.0
    _at_s: float | None = None

    def tick(self, now_at_s: float) -> float:
        """Called each `step_s` as far as the loop comes round to it; the time that has passed."""
        if self._at_s is not None:
            self._ran_s += min(max(0.0, now_at_s - self._at_s), 2 * self.step_s)
        self._at_s = now_at_s
        return self._ran_s

    @property
    def ran_s(self) -> float:
        """The time at the last tick."""
        return self._ran_s
