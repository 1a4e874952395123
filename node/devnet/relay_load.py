"""What each relay of a devnet passes on, counted beside its own counts, and held to its bounds.

`WatchedRules` stands between a peer's streams and its rules for relaying: it sees each line and
each piece that is copied. So a relay that counts wrongly, or keeps to no bound, is found out.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from node.devnet.invariants import Violations
from node.devnet.relay_rules import RulesWithin
from node.paying.relay_till import RelayTill
from p2p.relay_limits import RelayCounts, RelayLimits
from p2p.relaying import Relaying
from p2p.transport import LineEnd, RelayAnswer
from wire.content import PeerId


@dataclass(slots=True)
class Rate:
    """How many bytes went in the fullest second."""

    most: int = 0
    _second: int = -1
    _bytes: int = 0

    def note(self, at_s: float, size_bytes: int) -> None:
        """Count so many bytes that go at this moment."""
        if int(at_s) != self._second:
            self._second, self._bytes = int(at_s), 0
        self._bytes += size_bytes
        self.most = max(self.most, self._bytes)


@dataclass(slots=True)
class RelayLoad:
    """What one peer passed on through all its starts; `most` is at any one moment."""

    kept_most: int = 0
    lines_most: int = 0
    lines_of_one_kept_most: int = 0
    lines_of_one_asker_most: int = 0
    bytes_per_s_of_one_kept_most: int = 0
    lines: int = 0
    refused: int = 0
    carried_bytes: int = 0
    # What its own meters said of the same.
    metered_bytes: int = 0
    # What went through for each asker, and what of it that one paid; and all that it was paid.
    passed_for: Counter[PeerId] = field(default_factory=Counter)
    paid_for: Counter[PeerId] = field(default_factory=Counter)
    earned: int = 0
    rate: Rate = field(default_factory=Rate)

    def most(self, limits: RelayLimits) -> Iterator[tuple[str, int, float]]:
        """What was most, in words, as a figure, and the bound."""
        # What was not used before may be sent at once.
        burst = 1.0 + limits.burst_s
        yield "peers kept", self.kept_most, limits.kept_max
        yield "lines to one that is kept", self.lines_of_one_kept_most, limits.lines_per_kept
        yield "lines of one asker", self.lines_of_one_asker_most, limits.lines_per_asker
        yield "bytes in a second", self.rate.most, burst * limits.bytes_per_s_all
        each = burst * limits.bytes_per_s_each
        yield "bytes in a second to one", self.bytes_per_s_of_one_kept_most, each

    def to_document(self, limits: RelayLimits) -> dict[str, Any]:
        """The figures, each beside its bound where it has one."""
        return {
            "most": {
                what: {"most": most, "bound": bound} for what, most, bound in self.most(limits)
            },
            "lines_most": self.lines_most,
            "lines": self.lines,
            "refused": self.refused,
            "carried_bytes": self.carried_bytes,
            "metered_bytes": self.metered_bytes,
        }


@dataclass(slots=True)
class WatchedRules(RulesWithin):
    """A peer's rules for relaying, with what becomes of them counted in `load`; of one start."""

    load: RelayLoad
    counts: RelayCounts
    # None where nothing is asked for what passes.
    till: RelayTill | None = None
    _kept: Counter[PeerId] = field(default_factory=Counter)
    _asking: Counter[PeerId] = field(default_factory=Counter)
    _rates: dict[PeerId, Rate] = field(default_factory=dict)
    _metered_before: int = 0

    def __post_init__(self) -> None:
        self._metered_before = self.load.metered_bytes

    def admit(self, asker: PeerId, kept: PeerId) -> RelayAnswer:
        """Count a line, or that there is none."""
        answer = self.inner.admit(asker, kept)
        load = self.load
        if answer is not RelayAnswer.THROUGH:
            load.refused += 1
            return answer
        load.lines += 1
        self._kept[kept] += 1
        self._asking[asker] += 1
        load.lines_most = max(load.lines_most, self._asking.total())
        load.lines_of_one_kept_most = max(load.lines_of_one_kept_most, self._kept[kept])
        load.lines_of_one_asker_most = max(load.lines_of_one_asker_most, self._asking[asker])
        return answer

    def ended(self, asker: PeerId, kept: PeerId, why: LineEnd | None) -> None:
        """Count a line down."""
        self.inner.ended(asker, kept, why)
        for counter, peer in ((self._kept, kept), (self._asking, asker)):
            counter[peer] -= 1
            if not counter[peer]:
                del counter[peer]
        if kept not in self._kept:
            self._rates.pop(kept, None)

    def wait_s(self, asker: PeerId, kept: PeerId, size_bytes: int) -> float | None:
        """Count bytes, and when they go."""
        wait_s = self.inner.wait_s(asker, kept, size_bytes)
        if wait_s is not None:
            load, goes_at_s = self.load, trio.current_time() + wait_s
            load.carried_bytes += size_bytes
            load.passed_for[asker] += size_bytes
            load.rate.note(goes_at_s, size_bytes)
            each = self._rates.setdefault(kept, Rate())
            each.note(goes_at_s, size_bytes)
            load.bytes_per_s_of_one_kept_most = max(load.bytes_per_s_of_one_kept_most, each.most)
        self.look()
        return wait_s

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        """Count what is paid."""
        if (till := self.till) is None:
            return self.inner.charge(asker, size_bytes)
        paid_bytes, earned = till.paid_bytes, till.earned
        found = self.inner.charge(asker, size_bytes)
        if till.paid_bytes > paid_bytes:
            # By how much it says that is, is its own word.
            self.load.paid_for[asker] += size_bytes
            self.load.earned += till.earned - earned
        return found

    def look(self) -> None:
        """Take in what the peer's own counts say."""
        self.load.kept_most = max(self.load.kept_most, len(self.counts.kept()))
        self.load.metered_bytes = self._metered_before + sum(self.counts.carried_for.values())


def watched(relaying: Relaying, load: RelayLoad) -> WatchedRules:
    """The rules of a peer that has just started, watched."""
    till = relaying.till if isinstance(relaying.till, RelayTill) else None
    return WatchedRules(relaying, load, relaying.counts, till)


@dataclass(slots=True)
class RelaysKeepTheirBounds:
    """No relay has more of anything than it set itself, and each meters what it passes on."""

    violations: Violations
    _told: set[tuple[int, str]] = field(default_factory=set)

    def see(self, number: int, load: RelayLoad, limits: RelayLimits) -> None:
        """Look at the relay `number`; what it broke is told once."""
        for what, most, bound in load.most(limits):
            if most > bound:
                self._tell(number, what, f"{most} {what}, at most {bound:.0f}")
        if load.metered_bytes != load.carried_bytes:
            told = f"{load.carried_bytes} bytes went through, metered are {load.metered_bytes}"
            self._tell(number, "meter", told)

    def _tell(self, number: int, what: str, told: str) -> None:
        if (number, what) not in self._told:
            self._told.add((number, what))
            self.violations.note("a relay keeps to its bounds", number, told)
