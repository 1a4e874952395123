"""Who misbehaves and was found out: the peers of each fault that an asker has banned, over time.

Standing is each asker's own, and a ban wears off; so whoever was once banned by anybody counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import trio

from node.devnet.faults import FOUND_BY_CHECKS, MISBEHAVING, Fault
from node.devnet.peer import DevPeer
from wire.content import PeerId


@dataclass(slots=True)
class Caught:
    """What the askers of a run have found out so far."""

    banned: set[PeerId] = field(default_factory=set)
    # Whose work was rejected by strangers, so that it was asked less for a while.
    doubted: set[PeerId] = field(default_factory=set)

    def look(self, askers: Iterable[DevPeer]) -> None:
        """Take in whom these askers have banned."""
        for asker in askers:
            if asker.node is not None:
                now_at_s = trio.current_time()
                self.banned |= asker.node.peers.scores.banned(now_at_s)
                self.doubted |= asker.node.peers.doubts.unwelcome(now_at_s)

    def ratios(self, faults: Sequence[Fault], peers: Sequence[DevPeer]) -> dict[str, float]:
        """The share of those that misbehave so, and play the role for it, that were banned."""
        found = {}
        for name, role in FOUND_BY_CHECKS.items():
            bad = {number for it in faults if it.name == name for number in it.peers}
            keys = [it.key.peer for it in peers if it.number in bad and role in it.plan.roles]
            if keys:
                found[name] = round(sum(it in self.banned for it in keys) / len(keys), 4)
        return found

    def honest(self, faults: Sequence[Fault], peers: Sequence[DevPeer]) -> tuple[int, int]:
        """How many peers were banned, and how many doubted, that no fault made misbehave."""
        bad = {number for it in faults if it.scope in MISBEHAVING for number in it.peers}
        honest = {it.key.peer for it in peers if it.number not in bad}
        return len(honest & self.banned), len(honest & self.doubted)
