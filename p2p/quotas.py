"""How much of a view one origin may have: nobody fills it with keys that it merely tells of.

A pure core beside `p2p.view`. Keys cost nothing, so adverts are counted by where they come from, in
each place (a role, or a role with a model) and in the whole view.
"""

from collections import Counter
from dataclasses import dataclass, field

from p2p.ip_address import Scope, prefix_of, scope_of
from p2p.view_entry import Entry, Place
from wire.content import PeerId

# All who called us are one origin: whoever wants to be many calls us many times. So is the topic.
CALLERS, TOPIC = "callers", "topic"


@dataclass(slots=True)
class Origins:
    """Of the connected: whom we called ourselves, and each one's public address prefix."""

    called: set[PeerId] = field(default_factory=set)
    prefixes: dict[PeerId, str] = field(default_factory=dict)
    # How near each is.
    scopes: dict[PeerId, Scope] = field(default_factory=dict)

    def came_from(self, peer: PeerId, host: str) -> None:
        """The connection with `peer` has this IP address at its other end; "" for none."""
        self.scopes[peer] = scope_of(host)
        if (prefix := prefix_of(host)) != host:
            self.prefixes[peer] = prefix

    def nearest(self, peer: PeerId, introducer: PeerId | None) -> Scope:
        """How near the addresses may lead that `introducer` said `peer` has."""
        near = [self.scopes[it] for it in (peer, introducer) if it in self.scopes]
        return max(near, default=Scope.GLOBAL)

    def of(self, peer: PeerId, introducer: PeerId | None) -> str:
        """Whose quota a peer counts against that `introducer` told us of; "" for nobody's.

        None is the topic. A peer that speaks for itself counts by its prefix, and one that has no
        public address by nothing.
        """
        if introducer is None:
            return TOPIC
        if introducer == peer:
            return self.prefixes.get(peer, "")
        if introducer not in self.called:
            return CALLERS
        return f"by {self.prefixes.get(introducer) or introducer}"

    def gone(self, peer: PeerId) -> None:
        """Its last connection has ended."""
        self.called.discard(peer)
        self.prefixes.pop(peer, None)
        self.scopes.pop(peer, None)


@dataclass(slots=True)
class Quotas:
    """Counts what each origin has. Of a place it may have so many, or a part of those met there."""

    least: int
    part: int
    adverts_max: int
    _met: Counter[Place] = field(default_factory=Counter)
    _of: Counter[tuple[str, Place | None]] = field(default_factory=Counter)

    def taken(self, origin: str, places: tuple[Place, ...]) -> list[Place | None]:
        """Where this origin has all that it may; None stands for the whole view."""
        if not origin:
            return []
        whole = max(self.least, self.adverts_max // self.part)
        found: list[Place | None] = [None] if self._of[origin, None] >= whole else []
        return found + [
            it
            for it in places
            if self._of[origin, it] >= max(self.least, self._met[it] // self.part)
        ]

    def met(self, place: Place) -> int:
        """How many peers of a place spoke for themselves."""
        return self._met[place]

    def count(self, entry: Entry, change: int) -> None:
        """`entry` has come (1) or gone (-1)."""
        places = entry.parts.places
        if entry.met:
            for place in places:
                self._met[place] += change
                if not self._met[place]:
                    del self._met[place]
        if entry.origin:
            for part in (None, *places):
                self._of[entry.origin, part] += change
                if not self._of[entry.origin, part]:
                    del self._of[entry.origin, part]
