"""What a peer believes about the others: adverts heard, newest first come, gone by their TTL.

A pure core: the wall clock is an argument, and nothing here sends or waits. It refuses adverts that
are stale, from a clock too far off, of another protocol version, or beyond its bound.

Fresh keys cost nothing, so a full view must not belong to whoever filled it first. Peers that we
are connected to keep their place; among strangers whoever was not heard for the longest makes room.
When that was is ours to say: issue times are the strangers' own words, and may lie ahead of us.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from wire import limits
from wire.advert import Advert, supersedes
from wire.content import ContentId, PeerId
from wire.kinds import Role
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

    # Guess: a few hundred keep enough candidates for each role and model.
    adverts_max: int = 400
    # Sequence numbers of peers that are gone, so that nobody brings them back.
    remembered_max: int = 4000


@dataclass(slots=True)
class View:
    """Adverts by peer. `me` and `instance` tell our own adverts from those of a copied key."""

    me: PeerId
    instance: bytes
    config: ViewConfig = field(default_factory=ViewConfig)
    # Whom we are connected to; the shell says it.
    near: set[PeerId] = field(default_factory=set)
    # In the order in which they were heard last.
    _adverts: dict[PeerId, Signed[Advert]] = field(default_factory=dict)
    _gone: dict[PeerId, int] = field(default_factory=dict)

    def hear(self, heard: Signed[Advert], wall_s: float) -> Hearing:
        """Take an advert in, or say why not."""
        advert, peer = heard.record, heard.signer
        if peer == self.me:
            return Hearing.MINE if advert.instance == self.instance else Hearing.SAME_KEY
        if advert.version != limits.PROTOCOL_VERSION:
            return Hearing.VERSION
        # From the future by more than clocks may differ: it would outlive its TTL here.
        if advert.issued_at_s > wall_s + limits.CLOCK_SKEW_S_MAX:
            return Hearing.CLOCK
        known = self._adverts.get(peer)
        if known is not None and not supersedes(heard, known):
            return Hearing.OLD
        # Once forgotten, a peer comes back by its own next advert, never by somebody's old copy.
        if advert.seq <= self._gone.get(peer, -1):
            return Hearing.OLD
        if advert.leaving:
            self._forget(peer, advert.seq)
            return Hearing.LEFT if known is not None else Hearing.OLD
        if advert.expired(wall_s):
            return Hearing.EXPIRED
        if known is None and not self._make_room():
            return Hearing.FULL
        self._adverts.pop(peer, None)
        self._adverts[peer] = heard
        return Hearing.NEW if known is None else Hearing.NEWER

    def _make_room(self) -> bool:
        """Whether there is room for one more; a stranger goes if need be."""
        if len(self._adverts) >= self.config.adverts_max:
            stranger = next((peer for peer in self._adverts if peer not in self.near), None)
            if stranger is None:
                return False
            self.forget(stranger)
        return True

    def expire(self, wall_s: float) -> list[PeerId]:
        """Forget what is past its TTL; who was forgotten."""
        over = [peer for peer, heard in self._adverts.items() if heard.record.expired(wall_s)]
        for peer in over:
            self._forget(peer, self._adverts[peer].record.seq)
        return over

    def forget(self, peer: PeerId) -> None:
        """Somebody who was called did not answer: not a candidate until it speaks again."""
        if peer in self._adverts:
            self._forget(peer, self._adverts[peer].record.seq)

    def _forget(self, peer: PeerId, seq: int) -> None:
        self._adverts.pop(peer, None)
        self._gone.pop(peer, None)
        self._gone[peer] = seq
        while len(self._gone) > self.config.remembered_max:
            self._gone.pop(next(iter(self._gone)))

    def advert_of(self, peer: PeerId) -> Signed[Advert] | None:
        return self._adverts.get(peer)

    def living(self, wall_s: float) -> Iterator[Signed[Advert]]:
        """Adverts that hold now."""
        return (heard for heard in self._adverts.values() if not heard.record.expired(wall_s))

    def candidates(
        self, role: Role, model: ContentId | None, wall_s: float
    ) -> list[Signed[Advert]]:
        """Who says it plays `role`, and runs `model` where one is named."""
        return [
            heard
            for heard in self.living(wall_s)
            if heard.record.plays(role)
            and (model is None or heard.record.offer_of(model) is not None)
        ]

    def __len__(self) -> int:
        return len(self._adverts)
