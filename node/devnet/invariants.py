"""What must hold at every moment of a run: small checkers, fed with what happens.

Each checker reports at once what was broken, by which peer and when. A run with a violation has
failed, whatever its figures are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from node.asking.tasks import TASKS_UNDER_WAY_MAX
from node.peer import Node
from node.serving.leg_server import LEGS_AT_ONCE
from wire import limits
from wire.content import PeerId

VIOLATIONS_KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """An invariant that did not hold. `peer` is a number in the run, None if no peer broke it."""

    invariant: str
    peer: int | None
    at_s: float
    what: str

    def __str__(self) -> str:
        who = "" if self.peer is None else f" at peer {self.peer}"
        return f"{self.invariant}{who} after {self.at_s:.1f} s: {self.what}"


@dataclass(slots=True)
class Violations:
    """The violations of a run: all are counted, the first are kept in words."""

    now_at_s: Callable[[], float]
    found: list[Violation] = field(default_factory=list)
    count: int = 0

    def note(self, invariant: str, peer: int | None, what: str) -> None:
        """Count a broken invariant, of a peer or of the network; the first are kept in words."""
        self.count += 1
        if len(self.found) < VIOLATIONS_KEPT:
            self.found.append(
                Violation(invariant=invariant, peer=peer, at_s=self.now_at_s(), what=what)
            )


@dataclass(slots=True)
class SequenceNeverGoesBack:
    """In a view a peer's sequence number only rises, also after the view forgot the peer."""

    violations: Violations
    _seen: dict[tuple[int, int], dict[PeerId, int]] = field(default_factory=dict)

    def see(self, number: int, start: int, node: Node) -> None:
        """Look at the view of peer `number` in its start `start`; each start has an empty view."""
        seen = self._seen.setdefault((number, start), {})
        for heard in node.peers.view.living(node.dependencies.environment.wall_s()):
            peer, seq = heard.signer, heard.record.seq
            before = seen.get(peer, -1)
            if seq < before:
                self.violations.note(
                    "sequence never goes back", number, f"{peer.short} went from {before} to {seq}"
                )
            seen[peer] = seq


@dataclass(slots=True)
class BoundsHold:
    """Views, queues and streams stay within their bounds."""

    violations: Violations

    def see(self, number: int, node: Node) -> None:
        peers, streams = node.peers, node.peers.streams.statistics()
        known = len(peers.connected()) + 1
        for what, value, most in (
            ("adverts in the view", len(peers.view), limits.VIEW_ADVERTS_MAX),
            ("tasks under way", node.tasks.statistics().under_way, TASKS_UNDER_WAY_MAX),
            ("legs under way", node.leg_server.under_way, LEGS_AT_ONCE),
            ("unread bytes", streams.unread_bytes, limits.UNREAD_BYTES_MAX),
            ("streams opened by others", streams.open_in, known * limits.STREAMS_IN_PER_PEER_MAX),
            ("free slots", -node.dependencies.engine.free_slots, 0),
        ):
            if value > most:
                self.violations.note("every bound holds", number, f"{value} {what}, at most {most}")
