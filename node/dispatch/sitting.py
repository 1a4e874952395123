"""Peers that took a leg and sat on it: how long they are asked after all others. A pure core.

Sitting costs nothing but our time, so it is remembered beyond the task, for twice as long each
time. It is no proof of ill will: whoever delivers is forgiven step by step.
"""

from dataclasses import dataclass, field

from wire.content import PeerId

# A guess: as long as it takes until half of any other offence is forgotten.
BENCHED_S = 600.0
BENCHED_S_MAX = 24 * 3600.0
KEPT_MAX = 1000
# Who was to be done by then and has shown nothing sits on the leg; so much is due to any machine.
SITTING_TIMES = 3.0
SITTING_S = 1.0


def sits(took_s: float, expected_s: float) -> bool:
    """Whether a peer that has shown nothing for so long sits on a leg, and is not merely slow."""
    return took_s >= SITTING_TIMES * expected_s + SITTING_S


@dataclass(frozen=True, slots=True)
class _Record:
    times: int
    until_at_s: float


@dataclass(slots=True)
class Sitting:
    """Who sat on legs of ours, the latest of them."""

    _records: dict[PeerId, _Record] = field(default_factory=dict)

    def sat(self, peer: PeerId, now_at_s: float) -> None:
        """It took a leg, and nothing came of it."""
        before = self._records.pop(peer, None)
        times = before.times + 1 if before is not None else 1
        benched_s = min(BENCHED_S_MAX, BENCHED_S * 2.0 ** min(times - 1, 16))
        self._records[peer] = _Record(times, now_at_s + benched_s)
        if len(self._records) > KEPT_MAX:
            # The one that is welcome again first: a flood of fresh keys frees nobody else.
            del self._records[min(self._records, key=lambda it: self._records[it].until_at_s)]

    def delivered(self, peer: PeerId) -> None:
        """It did a leg: it is welcome, and what it did before weighs less."""
        before = self._records.pop(peer, None)
        if before is not None and before.times > 1:
            self._records[peer] = _Record(before.times - 1, 0.0)

    def is_benched(self, peer: PeerId, now_at_s: float) -> bool:
        record = self._records.get(peer)
        return record is not None and now_at_s < record.until_at_s
