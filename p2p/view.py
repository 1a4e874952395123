"""What a peer believes about the others: adverts heard, newest first come, gone by their TTL.

A pure core: the wall clock is an argument, and nothing here sends or waits. It refuses adverts that
are stale, from a clock too far off, of another protocol version, or beyond its bound.

A view is bounded, so in a large network it holds a part of it, and that part must be of use: for
each role and each model it keeps enough candidates while others can make room. Fresh keys cost
nothing, so it must not belong to whoever speaks most either: peers that we are connected to keep
their place, and room is made among the strangers whom the most talkative neighbour introduced,
first by those of whom there are enough, then by who was not heard for the longest. When that was is
ours to say: issue times are the strangers' own words, and may lie ahead of us.

Above all, nobody fills a place (a role, or a role with a model) with keys that it merely tells of:
a neighbour that we called may introduce so many for each place, all those that called us together
as many, and so may all that the topic brings. Who speaks for itself over a connection counts by the
address prefix that it comes from. Only those are passed on to others (see `p2p.anti_entropy`), so a
made-up key goes no further than whoever was told of it by who made it up.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain

from p2p.quotas import Origins, Quotas
from p2p.view_entry import Entry, Place, ViewParts, entry_of, parts_of
from wire import limits
from wire.advert import Advert, supersedes
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.latest import Latest
from wire.signed import Signed


class Hearing(Enum):
    """What became of an advert that was heard."""

    NEW = auto()
    NEWER = auto()
    LEFT = auto()
    OLD = auto()
    EXPIRED = auto()
    CLOCK = auto()
    VERSION = auto()
    FULL = auto()
    MINE = auto()
    SAME_KEY = auto()

    @property
    def changed(self) -> bool:
        """Whether the view is now another, so that the advert is worth passing on."""
        return self in (Hearing.NEW, Hearing.NEWER, Hearing.LEFT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewConfig:
    """Bounds of a view."""

    # Measured in the simulator: of ten thousand peers this many keep every role and common model
    # well above what routing needs, at a cost that stays the same however many there are.
    adverts_max: int = 256
    # Candidates for one role or model that do not make room for others.
    enough: int = 16
    # With fewer for something, who does it is let in beside the quota of what else it does.
    few: int = 8
    # Peers that are gone, so that nobody brings them back.
    remembered_max: int = 4000
    # What one origin may have of a place: so many, or such a part of those that were met.
    quota_min: int = 8
    quota_part: int = 8

    def __post_init__(self) -> None:
        assert self.adverts_max <= limits.VIEW_ADVERTS_MAX


# Of those that may make room, so many are looked at; a view must not be walked for each advert.
_LOOKED_AT = 64
# Up to so large a part of a view hearsay is free: what it could hide fits beside it.
_SMALL_PART = 4
# At most so large a part of a view are peers that stay because they were of use.
_KEPT_PART = 4
# What one introducer may have of a view that is needed, where others have somebody to spare.
_GROUP_PART = 8
_GONE_WALK_EVERY_S = 30.0


@dataclass(slots=True)
class View:
    """Adverts by peer. `me` and `instance` tell our own adverts from those of a copied key."""

    me: PeerId
    instance: bytes
    config: ViewConfig = field(default_factory=ViewConfig)
    # Whom we are connected to, whom we called, and where the others come from: the shell says it.
    connected: set[PeerId] = field(default_factory=set)
    origins: Origins = field(default_factory=Origins)
    # Who delivered or checked for us, the latest of them: they never make room.
    kept: Latest[PeerId, None] = field(init=False)
    # Where many views are in one process, they may share what is worked out of an advert.
    parts_of: Callable[[Signed[Advert]], ViewParts] = parts_of
    # In the order in which they were heard last.
    _entries: dict[PeerId, Entry] = field(default_factory=dict)
    _places: dict[Place, dict[PeerId, None]] = field(default_factory=dict)
    _introduced: dict[PeerId | None, dict[PeerId, None]] = field(default_factory=dict)
    _quotas: Quotas = field(init=False)
    # By the first bytes of its key, as digests name it: the sequence number of each that is gone,
    # and when that advert would have ended anyway.
    _gone: Latest[bytes, tuple[int, int]] = field(init=False)
    _gone_walked_wall_s: float = 0.0
    # Nothing here ends sooner, so until then nothing has to be walked for that.
    _soonest_wall_s: float = math.inf

    def __post_init__(self) -> None:
        config = self.config
        self.kept = Latest(config.adverts_max // _KEPT_PART)
        self._gone = Latest(config.remembered_max)
        self._quotas = Quotas(config.quota_min, config.quota_part, config.adverts_max)

    def keep(self, peer: PeerId) -> None:
        """`peer` was of use: whoever floods the view does not push it out."""
        self.kept[peer] = None

    def _stays(self, peer: PeerId) -> bool:
        return peer in self.connected or peer in self.kept

    def hear(
        self, heard: Signed[Advert], wall_s: float, introducer: PeerId | None = None
    ) -> Hearing:
        """Take an advert in, or say why not. `introducer` is the neighbour who told us of it."""
        advert, peer = heard.record, heard.signer
        first_hand = introducer == peer
        if peer == self.me:
            return Hearing.MINE if advert.instance == self.instance else Hearing.SAME_KEY
        if advert.version != limits.PROTOCOL_VERSION:
            return Hearing.VERSION
        # From the future by more than clocks may differ: it would outlive its TTL here.
        if advert.issued_at_s > wall_s + limits.CLOCK_SKEW_S_MAX:
            return Hearing.CLOCK
        known = self._entries.get(peer)
        if known is not None and not supersedes(heard, known.heard):
            return Hearing.OLD
        # Once forgotten, a peer comes back by its own word, never by somebody's old copy.
        key = peer[: limits.DIGEST_KEY_BYTES]
        if not first_hand and self.is_gone(key, advert.seq):
            return Hearing.OLD
        if advert.leaving:
            if known is not None:
                self._drop(peer, known)
                self._quotas.count(known, -1)
            # Keys that were never here do not wash out those that were.
            if known is not None or len(self._gone) < self.config.remembered_max // 2:
                self._gone[key] = (advert.seq, advert.issued_at_s + advert.ttl_s)
            return Hearing.LEFT if known is not None else Hearing.OLD
        if advert.expired(wall_s):
            return Hearing.EXPIRED
        parts = self.parts_of(heard)
        # Who is connected stands for itself, whoever tells of it.
        origin = self.origins.of(peer, peer if peer in self.connected else introducer)
        if known is not None:
            self._gone.pop(key, None)
            # Whoever introduced it first answers for it, until it speaks for itself.
            met, before = first_hand or known.met, known
            if known.met or not first_hand:
                introducer, origin = known.introducer, known.origin
            else:
                introducer = None
            self._drop(peer, before)
            entry = entry_of(heard, parts, introducer, origin, met=met)
            if (met, origin, parts.places) != (before.met, before.origin, before.parts.places):
                self._quotas.count(before, -1)
                if not self._within_quota(origin, parts.places, met=first_hand):
                    # It was let in as something else; its new places are taken.
                    self._gone[key] = before.parts.displaced
                    return Hearing.FULL
                self._quotas.count(entry, 1)
            self._add(peer, entry)
            return Hearing.NEWER
        if not self._within_quota(origin, parts.places, met=first_hand) or not self._make_room():
            return Hearing.FULL
        self._gone.pop(key, None)
        if first_hand:
            introducer = None
        entry = entry_of(heard, parts, introducer, origin, met=first_hand)
        self._quotas.count(entry, 1)
        self._add(peer, entry)
        return Hearing.NEW

    def meet(self, peer: PeerId) -> None:
        """`peer` has spoken for itself: it counts against nobody else's quota any more."""
        entry = self._entries.get(peer)
        if entry is not None and not entry.met:
            self._drop(peer, entry)
            self._quotas.count(entry, -1)
            origin = self.origins.of(peer, peer)
            entry = entry._replace(introducer=None, met=True, origin=origin)
            self._within_quota(origin, entry.parts.places, met=True)
            self._quotas.count(entry, 1)
            self._add(peer, entry)

    def _within_quota(self, origin: str, places: tuple[Place, ...], *, met: bool) -> bool:
        """Whether one more of this origin may have these places, or those of one gone."""
        if self.is_small and not met:
            return True
        taken = self._quotas.taken(origin, places)
        if not taken:
            return True
        if met:
            return all(self._displace(origin, it) for it in taken)
        # Whoever does what few do mostly does besides what many do: it is let in for the one.
        few = self.config.few
        lacking = (it for it in places if it not in taken and self.count(it) < few)
        return None not in taken and any(lacking)

    def _displace(self, origin: str, place: Place | None) -> bool:
        entries = self._entries
        for peer in self._places.get(place, ()) if place is not None else entries:
            if entries[peer].origin == origin and not self._stays(peer):
                self._displaced(peer)
                return True
        return False

    def _add(self, peer: PeerId, entry: Entry) -> None:
        self._entries[peer] = entry
        if entry.until_wall_s < self._soonest_wall_s:
            self._soonest_wall_s = entry.until_wall_s
        group = self._introduced.get(entry.introducer)
        if group is None:
            group = self._introduced[entry.introducer] = {}
        group[peer] = None
        places = self._places
        for place in entry.parts.places:
            group = places.get(place)
            if group is None:
                group = places[place] = {}
            group[peer] = None

    def _drop(self, peer: PeerId, entry: Entry) -> None:
        del self._entries[peer]
        group = self._introduced[entry.introducer]
        del group[peer]
        if not group:
            del self._introduced[entry.introducer]
        places = self._places
        for place in entry.parts.places:
            group = places[place]
            del group[peer]
            if not group:
                del places[place]

    def _make_room(self) -> bool:
        """Whether there is room for one more; a stranger goes if need be."""
        if len(self._entries) < self.config.adverts_max:
            return True
        largest = max(self._introduced.values(), key=len, default={})
        # Mostly somebody of the largest group is spare, and the others need no order. One that
        # has more than its part gives somebody up in any case: what is needed is its word alone.
        found = self._spare_of(largest)
        if found is None and len(largest) <= self.config.adverts_max // _GROUP_PART:
            # The first one is the largest, which has nobody.
            groups = sorted(self._introduced.values(), key=len, reverse=True)
            found = next(filter(None, map(self._spare_of, groups[1:])), None)
        found = found or self._oldest_of(largest)
        if found is None:
            found = next(filter(None, map(self._oldest_of, self._introduced.values())), None)
        if found is None:
            return False
        self._displaced(found)
        return True

    def _displaced(self, peer: PeerId) -> None:
        entry = self._entries[peer]
        self._drop(peer, entry)
        self._quotas.count(entry, -1)
        self._gone[entry.key] = entry.parts.displaced

    def _oldest_of(self, group: dict[PeerId, None]) -> PeerId | None:
        return next((it for it in group if not self._stays(it)), None)

    def _spare_of(self, group: dict[PeerId, None]) -> PeerId | None:
        """Who of `group` is not needed, of those that were not heard for the longest."""
        needed: list[PeerId] = []
        found = None
        for peer in group:
            if self._stays(peer):
                continue
            if self._is_spare(self._entries[peer]):
                found = peer
                break
            needed.append(peer)
            if len(needed) == _LOOKED_AT:
                break
        if found is not None:
            # Who is needed stays and others go: soon all at the front would be needed, and nobody
            # behind them would be looked at.
            for peer in needed:
                del group[peer]
                group[peer] = None
        return found

    def _is_spare(self, entry: Entry) -> bool:
        """Whether there is more than enough without it of all that it offers."""
        places, enough = self._places, self.config.enough
        for place in entry.parts.places:  # noqa: SIM110 - walked for each advert heard
            if len(places[place]) <= enough:
                return False
        return True

    def expire(self, wall_s: float) -> list[PeerId]:
        """Forget what is past its TTL; who was forgotten."""
        over: list[PeerId] = []
        if wall_s >= self._soonest_wall_s:
            over = [it for it, entry in self._entries.items() if entry.until_wall_s <= wall_s]
            for peer in over:
                self.forget(peer)
            ends = [entry.until_wall_s for entry in self._entries.values()]
            self._soonest_wall_s = min(ends, default=math.inf)
        # What has ended is refused as that, so it may be remembered for a little longer.
        if not 0 <= wall_s - self._gone_walked_wall_s < _GONE_WALK_EVERY_S:
            self._gone_walked_wall_s = wall_s
            for key in [it for it, gone in self._gone.items() if gone[1] <= wall_s]:
                del self._gone[key]
        return over

    def forget(self, peer: PeerId) -> None:
        """Somebody who was called did not answer: not a candidate until it speaks again."""
        entry = self._entries.get(peer)
        if entry is not None:
            self._drop(peer, entry)
            self._quotas.count(entry, -1)
            self._gone[entry.key] = entry.parts.ended

    def unheard(self, told: dict[bytes, int]) -> list[bytes]:
        """Of peers by key and number those that were not forgotten since."""
        gone = self._gone
        return [key for key, seq in told.items() if key not in gone or seq > gone[key][0]]

    def is_gone(self, key: bytes, seq: int) -> bool:
        """Whether an advert of this number is of the time before its peer was forgotten."""
        gone = self._gone.get(key)
        return gone is not None and seq <= gone[0]

    def advert_of(self, peer: PeerId) -> Signed[Advert] | None:
        """The latest advert of a peer; None if it is not in the view."""
        return None if (entry := self._entries.get(peer)) is None else entry.heard

    def entry_of(self, peer: PeerId) -> Entry | None:
        """What is kept of a peer's advert, which may end in this moment."""
        return self._entries.get(peer)

    def living(self, wall_s: float) -> Iterator[Signed[Advert]]:
        """Adverts that hold now."""
        return (entry.heard for entry in self._entries.values() if entry.until_wall_s > wall_s)

    def lasting(self, wall_s: float) -> list[Entry]:
        """What holds until `wall_s` and longer. Walked in every swap, so it has to be quick."""
        if wall_s < self._soonest_wall_s:
            return list(self._entries.values())
        return [entry for entry in self._entries.values() if entry.until_wall_s > wall_s]

    def candidates(
        self, role: Role, model: ContentId | None, wall_s: float
    ) -> list[Signed[Advert]]:
        """Who says it plays `role`, and runs `model` where one is named."""
        found = (self._entries[it] for it in self._places.get((role, model), ()))
        return [entry.heard for entry in found if entry.until_wall_s > wall_s]

    def count(self, place: Place) -> int:
        """How many candidates there are, those included that end in this moment."""
        return len(self._places.get(place, ()))

    def scarce(self) -> list[Entry]:
        """Who offers something of which there is not more than enough here."""
        enough, entries = self.config.enough, self._entries
        groups = [it for it in self._places.values() if len(it) <= enough]
        return [entries[it] for it in dict.fromkeys(chain.from_iterable(groups))]

    def met(self, place: Place) -> int:
        """How many candidates spoke for themselves over a connection."""
        return self._quotas.met(place)

    def scarcities(self) -> dict[bytes, int]:
        """By key: how many peers, in powers of two, offer the scarcest thing that this one does."""
        sizes = {place: len(group).bit_length() for place, group in self._places.items()}
        return {
            entry.key: min([sizes[place] for place in entry.parts.places], default=0)
            for entry in self._entries.values()
        }

    @property
    def is_small(self) -> bool:
        """Whether so few are known that everybody is told of everybody, and there is no quota."""
        return len(self._entries) < self.config.adverts_max // _SMALL_PART

    @property
    def is_full(self) -> bool:
        return len(self._entries) >= self.config.adverts_max

    def __len__(self) -> int:
        return len(self._entries)
