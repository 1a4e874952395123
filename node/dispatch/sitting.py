"""Peers that took a leg and did not do it: how long they are asked last. A pure core.

Taking a leg and not doing it costs that peer nothing, and us time. So it is remembered beyond the
task, for twice as long each time. It does not prove bad intent: each delivered leg reduces it.
"""

from dataclasses import dataclass, field

from wire.content import PeerId

# A guess: the half-life of other offences.
BENCHED_S = 600.0
BENCHED_S_MAX = 24 * 3600.0
KEPT_MAX = 1000
# A peer that took this many times the expected time and has shown nothing sits on the leg; any
# machine may be late by some seconds.
SITTING_TIMES = 3.0
SITTING_S = 1.0


def sits(took_s: float, expected_s: float) -> bool:
    """Whether a peer that has shown nothing for `took_s` sits on a leg, and is not merely slow."""
    return took_s >= sits_after_s(expected_s)


def sits_after_s(expected_s: float) -> float:
    """How long a leg may take that was expected to take so long."""
    return SITTING_TIMES * expected_s + SITTING_S


@dataclass(frozen=True, slots=True)
class _Record:
    times: int
    until_at_s: float


@dataclass(slots=True)
class Sitting:
    """The latest peers that sat on legs of ours."""

    _records: dict[PeerId, _Record] = field(default_factory=dict)

    def sat(self, peer: PeerId, now_at_s: float) -> None:
        """Note that `peer` took a leg, and did not do it."""
        before = self._records.pop(peer, None)
        times = before.times + 1 if before is not None else 1
        benched_s = min(BENCHED_S_MAX, BENCHED_S * 2.0 ** min(times - 1, 16))
        self._records[peer] = _Record(times, now_at_s + benched_s)
        if len(self._records) > KEPT_MAX:
            # The record that ends first is dropped: a flood of new keys frees no other peer.
            del self._records[min(self._records, key=lambda it: self._records[it].until_at_s)]

    def delivered(self, peer: PeerId) -> None:
        """Note that `peer` did a leg: it is asked as usual, and its past counts less."""
        before = self._records.pop(peer, None)
        if before is not None and before.times > 1:
            self._records[peer] = _Record(before.times - 1, 0.0)

    def is_benched(self, peer: PeerId, now_at_s: float) -> bool:
        record = self._records.get(peer)
        return record is not None and now_at_s < record.until_at_s
