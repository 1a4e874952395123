"""What others move over lines that this peer pays for, beyond what it called for: bounded. Pure.

Whoever asked a relay for a line pays for all of it. So the peer at the other end could send without
end, or fetch all that is kept here, and whoever has the relay would be paid. Who does that calls
again by lines of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from p2p.token_bucket import TokenBucket, TokenBuckets
from p2p.transport import Lined
from wire.content import PeerId

# What each other end may bring, at once and a second: gossip, and tasks that it gives to this peer.
EACH_BYTES, EACH_BYTES_PER_S = 16 << 20, 32 << 10
# Keys cost nothing, so of all together it is bounded too.
ALL_BYTES, ALL_BYTES_PER_S = 128 << 20, 128 << 10
# Of what they fetch from here this part counts: what a task is asked about is fetched so.
FETCHED_PART = 4
# A line counts for so much when it begins: how one ends is not seen. Not among all of them: whoever
# calls many needs many lines.
LINE_BYTES = 256 << 10
# Once all together have too much, lines are left over which more than this came since they were
# looked at last.
LITTLE_BYTES = 8 << 10
PEERS_KEPT = 1024


@dataclass(slots=True)
class UncalledBytes:
    """Counts what comes over lines that are paid for."""

    _each: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(EACH_BYTES, EACH_BYTES_PER_S, PEERS_KEPT)
    )
    _all: TokenBucket = field(default_factory=lambda: TokenBucket(ALL_BYTES, ALL_BYTES_PER_S))
    # Of lines that stand: what moved when they were looked at last, and the most that was uncalled.
    _before: dict[PeerId, tuple[int, int]] = field(default_factory=dict)

    def look_at(self, lines: Mapping[PeerId, Lined], now_at_s: float) -> list[PeerId]:
        """Count what moved over these since the last time; those whose lines are to be left."""
        left, before, self._before = [], self._before, {}
        for peer, line in lines.items():
            uncalled = line.brought_bytes + line.fetched_bytes // FETCHED_PART
            moved, most = before.get(peer, (0, 0))
            is_new = peer not in before or line.moved_bytes < moved
            more = uncalled if is_new else max(0, uncalled - most)
            self._before[peer] = line.moved_bytes, uncalled if is_new else max(most, uncalled)
            self._each.spend(peer.hex(), more + LINE_BYTES * is_new, now_at_s)
            self._all.spend(more, now_at_s)
            has_too_much = self._each.wait_s(peer.hex(), now_at_s) > 0.0
            if has_too_much or (self._all.wait_s(now_at_s) > 0.0 and more > LITTLE_BYTES):
                left.append(peer)
        return left
