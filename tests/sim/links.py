"""The links between peers: how long messages take, and which messages are lost."""

import math
from dataclasses import dataclass, field
from random import Random

from tests.sim.faults import Fault, Faults

# One way; each peer has its own distance from the middle of the network.
_DISTANCE_S = (0.005, 0.060)
_JITTER_S = 0.010
_DELAYED_S_MAX = 2.0
_HELD_BACK_S_MAX = 20.0


@dataclass(slots=True)
class Links:
    """`delays` says when the copies of a message arrive: none, one, or two."""

    faults: Faults
    seconds: float
    random: Random
    distance_s: list[float]
    deaf: dict[int, None] = field(default_factory=dict)
    # The part of the network that each cut-off peer belongs to; all others are in part 0.
    part: dict[int, int] = field(default_factory=dict)
    lost: int = 0
    _kinds: dict[str, list[Fault]] = field(default_factory=dict)

    @classmethod
    def between(cls, peers: int, faults: Faults, seconds: float) -> "Links":
        random = Random(f"{faults.seed}:links")
        links = cls(faults, seconds, random, [random.uniform(*_DISTANCE_S) for _ in range(peers)])
        for fault in faults.all:
            if not fault.kind.strikes:
                links._kinds.setdefault(fault.name, []).append(fault)
        return links

    def blocked(self, source: int, target: int) -> bool:
        """Whether no message gets from `source` to `target`."""
        if target in self.deaf:
            return True
        return bool(self.part) and self.part.get(source, 0) != self.part.get(target, 0)

    def usual_s(self, source: int, target: int) -> float:
        return self.distance_s[source] + self.distance_s[target] + _JITTER_S * self.random.random()

    def delays(self, source: int, target: int, now_at_s: float) -> list[float]:
        """After how long each copy of one message arrives."""
        if self.blocked(source, target):
            self.lost += 1
            return []
        delay_s = self.usual_s(source, target)
        if not self._kinds:
            return [delay_s]
        if self._happens("loss", now_at_s):
            self.lost += 1
            return []
        if self._happens("delay", now_at_s):
            delay_s += _DELAYED_S_MAX * self.random.random()
        if self._happens("reorder", now_at_s):
            delay_s += _HELD_BACK_S_MAX * self.random.random()
        if self._happens("duplicate", now_at_s):
            return [delay_s, delay_s + _HELD_BACK_S_MAX * self.random.random()]
        return [delay_s]

    def _happens(self, name: str, now_at_s: float) -> bool:
        for fault in self._kinds.get(name, ()):
            begins_s = fault.begins_s(self.seconds)
            if begins_s <= now_at_s < min(fault.ends_s(self.seconds), math.inf):
                return self.random.random() < fault.share
        return False
