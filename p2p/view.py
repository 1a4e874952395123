"""What a peer believes about the others: adverts heard, newest first come, gone by their TTL.

A pure core: the wall clock is an argument, and nothing here sends or waits. It refuses adverts that
are stale, from a clock too far off, of another protocol version, or beyond its bound.

A view is bounded, so in a large network it holds a part of it, and that part must be of use: for
each role and each model it keeps enough candidates while others can make room. Fresh keys cost
nothing, so it must not belong to whoever speaks most either: peers that we are connected to keep
their place, and room is made among the strangers whom the most talkative neighbour introduced,
first by those of whom there are enough, then by who was not heard for the longest. When that was is
ours to say: issue times are the strangers' own words, and may lie ahead of us.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple, TypeVar

from wire import limits
from wire.advert import Advert, supersedes
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.signed import Signed

K = TypeVar("K")


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
    # Peers that are gone, so that nobody brings them back.
    remembered_max: int = 4000

    def __post_init__(self) -> None:
        assert self.adverts_max <= limits.VIEW_ADVERTS_MAX


# What a peer can be asked for: a role, and a model where the role runs one.
Place = tuple[Role, ContentId | None]
# Of those that may make room, so many are looked at; a view must not be walked for each advert.
_LOOKED_AT = 16


class _Entry(NamedTuple):
    heard: Signed[Advert]
    introducer: PeerId | None
    places: tuple[Place, ...]


@dataclass(slots=True)
class View:
    """Adverts by peer. `me` and `instance` tell our own adverts from those of a copied key."""

    me: PeerId
    instance: bytes
    config: ViewConfig = field(default_factory=ViewConfig)
    # Whom we are connected to; the shell says it.
    near: set[PeerId] = field(default_factory=set)
    # In the order in which they were heard last.
    _entries: dict[PeerId, _Entry] = field(default_factory=dict)
    _places: dict[Place, dict[PeerId, None]] = field(default_factory=dict)
    _introduced: dict[PeerId | None, dict[PeerId, None]] = field(default_factory=dict)
    # By the first bytes of its key, as digests name it: the sequence number of each that is gone,
    # and when that advert would have ended anyway.
    _gone: dict[bytes, tuple[int, float]] = field(default_factory=dict)

    def hear(
        self, heard: Signed[Advert], wall_s: float, introducer: PeerId | None = None
    ) -> Hearing:
        """Take an advert in, or say why not. `introducer` is the neighbour who told us of it."""
        advert, peer = heard.record, heard.signer
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
        # Once forgotten, a peer comes back by its own next advert, never by somebody's old copy.
        if self.is_gone(peer[: limits.DIGEST_KEY_BYTES], advert.seq):
            return Hearing.OLD
        if advert.leaving:
            self._drop(peer)
            self._remember_gone(heard)
            return Hearing.LEFT if known is not None else Hearing.OLD
        if advert.expired(wall_s):
            return Hearing.EXPIRED
        if known is None and not self._make_room():
            return Hearing.FULL
        if known is not None:
            # Whoever introduced it first answers for it.
            introducer = known.introducer
            self._drop(peer)
        self._add(peer, _Entry(heard, introducer, _places_of(advert)))
        return Hearing.NEW if known is None else Hearing.NEWER

    def _add(self, peer: PeerId, entry: _Entry) -> None:
        self._entries[peer] = entry
        self._introduced.setdefault(entry.introducer, {})[peer] = None
        for place in entry.places:
            self._places.setdefault(place, {})[peer] = None

    def _drop(self, peer: PeerId) -> Signed[Advert] | None:
        entry = self._entries.pop(peer, None)
        if entry is None:
            return None
        _discard(self._introduced, entry.introducer, peer)
        for place in entry.places:
            _discard(self._places, place, peer)
        return entry.heard

    def _make_room(self) -> bool:
        """Whether there is room for one more; a stranger goes if need be."""
        if len(self._entries) < self.config.adverts_max:
            return True
        for group in sorted(self._introduced.values(), key=len, reverse=True):
            strangers = (peer for peer in group if peer not in self.near)
            oldest = list(islice(strangers, _LOOKED_AT))
            if oldest:
                self._drop(next((it for it in oldest if self._is_spare(it)), oldest[0]))
                return True
        return False

    def _is_spare(self, peer: PeerId) -> bool:
        """Whether there is more than enough without it of all that it offers."""
        return all(
            len(self._places[place]) > self.config.enough for place in self._entries[peer].places
        )

    def expire(self, wall_s: float) -> list[PeerId]:
        """Forget what is past its TTL; who was forgotten."""
        over = [it for it, entry in self._entries.items() if entry.heard.record.expired(wall_s)]
        for peer in over:
            self.forget(peer)
        for key, (_, until_s) in list(self._gone.items()):
            if until_s <= wall_s:
                del self._gone[key]
        return over

    def forget(self, peer: PeerId) -> None:
        """Somebody who was called did not answer: not a candidate until it speaks again."""
        heard = self._drop(peer)
        if heard is not None:
            self._remember_gone(heard)

    def _remember_gone(self, heard: Signed[Advert]) -> None:
        """What ends by itself is refused as that; until then we have to remember."""
        advert, key = heard.record, heard.signer[: limits.DIGEST_KEY_BYTES]
        self._gone.pop(key, None)
        self._gone[key] = (advert.seq, float(advert.issued_at_s + advert.ttl_s))
        while len(self._gone) > self.config.remembered_max:
            self._gone.pop(next(iter(self._gone)))

    def is_gone(self, key: bytes, seq: int) -> bool:
        """Whether an advert of this number is of the time before its peer was forgotten."""
        gone = self._gone.get(key)
        return gone is not None and seq <= gone[0]

    def advert_of(self, peer: PeerId) -> Signed[Advert] | None:
        entry = self._entries.get(peer)
        return None if entry is None else entry.heard

    def living(self, wall_s: float) -> Iterator[Signed[Advert]]:
        """Adverts that hold now."""
        return (
            entry.heard
            for entry in self._entries.values()
            if not entry.heard.record.expired(wall_s)
        )

    def candidates(
        self, role: Role, model: ContentId | None, wall_s: float
    ) -> list[Signed[Advert]]:
        """Who says it plays `role`, and runs `model` where one is named."""
        found = (self._entries[it].heard for it in self._places.get((role, model), ()))
        return [heard for heard in found if not heard.record.expired(wall_s)]

    def count(self, place: Place) -> int:
        """How many candidates there are, those included that end in this moment."""
        return len(self._places.get(place, ()))

    def rarity(self, peer: PeerId) -> int:
        """How many candidates there are here for the rarest thing that `peer` offers."""
        places = self._entries[peer].places
        return min((len(self._places[place]) for place in places), default=self.config.adverts_max)

    @property
    def is_full(self) -> bool:
        return len(self._entries) >= self.config.adverts_max

    def __len__(self) -> int:
        return len(self._entries)


def _places_of(advert: Advert) -> tuple[Place, ...]:
    roles = [role for role in Role if advert.plays(role)]
    # Whoever checks needs the model as much as whoever runs it.
    running = [role for role in roles if role in (Role.INFER, Role.VERIFY)]
    return (
        *((role, None) for role in roles),
        *((role, offer.model) for role in running for offer in advert.models),
    )


def _discard(groups: dict[K, dict[PeerId, None]], key: K, peer: PeerId) -> None:
    group = groups[key]
    del group[peer]
    if not group:
        del groups[key]
