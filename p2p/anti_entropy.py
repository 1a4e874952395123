"""What two neighbours tell each other of the adverts they have, and how large the network is.

A pure core. One says what it has (a digest: a few bytes of each peer's key, and its number), the
other answers with what is newer and says what it would like in return: push and pull in one round,
anti-entropy as in Demers et al., "Epidemic algorithms for replicated database maintenance" (PODC
1987). Of peers that one side has never heard of only a few are told, the rare ones first: a view
is a sample of a large network, and a swap mixes it without filling it with one neighbour's friends.

Once it knows more than a few, a peer tells only of those whom it has met itself, and asks only for
those whom the other has met.
Keys cost nothing: were hearsay passed on, a flood of them would go from one end of the network to
the other, and each peer on the way would vouch for it.

Views that are samples also tell how large the whole is: of two samples of it, the smaller the part
they share the larger it must be (Lincoln and Petersen's estimate, by capture and recapture). Views
rather keep whom there are few of, so those are estimated apart from the others.
"""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import TypeVar

from p2p.view import View
from p2p.view_entry import DIGEST_ENTRY, Entry
from wire import limits
from wire.advert import Advert
from wire.content import PeerId
from wire.latest import Latest
from wire.signed import Signed

T = TypeVar("T")

_KEY_BYTES = limits.DIGEST_KEY_BYTES
# What is told of peers that the other side has never heard of: many while its view has room.
NEWS_MAX = 4
NEWS_TO_NEWCOMER_MAX = 64
# Besides, so many of whom there are hardly enough: whoever looks for what they do has to know them.
SCARCE_MAX = 16
# An advert that ends in a moment is not worth its way.
_LEFT_S_MIN = 5.0
_ESTIMATES = 15
# While a view has room there are at most so many times as many peers as it holds.
_ROOM_RATIO = 2


# In a digest it stands before the peers that were never met, only heard of. It is nobody's key.
_HEARSAY = DIGEST_ENTRY.pack(bytes(_KEY_BYTES), 0)


@dataclass(frozen=True, slots=True)
class Compared:
    """What to tell the other side, and the keys of what it should tell us."""

    adverts: tuple[Signed[Advert], ...]
    wanted: bytes


def keys_of(wanted: bytes) -> frozenset[bytes]:
    """The keys in a list of them, as digests and wishes write them."""
    return frozenset(wanted[at : at + _KEY_BYTES] for at in range(0, len(wanted), _KEY_BYTES))


def _hearsay_in(digest: dict[bytes, int]) -> frozenset[bytes]:
    """The keys of a digest whose peers the other side has only heard of; its mark is taken out."""
    keys = list(digest)
    mark = bytes(_KEY_BYTES)
    if digest.pop(mark, None) is None:
        return frozenset()
    return frozenset(keys[keys.index(mark) + 1 :])


@dataclass(slots=True)
class AntiEntropy:
    """One peer's part in swaps. `told_peers` is what the first neighbour said of the size."""

    view: View
    random: Random
    told_peers: int = 0
    # Whom we called ourselves; the shell says it. Whoever calls us may be many under one hat, and
    # is not asked how large the network is while there are others.
    believed: set[PeerId] = field(default_factory=set)
    # The latest from each neighbour.
    _estimates: Latest[PeerId, int] = field(default_factory=lambda: Latest(_ESTIMATES))

    def digest(self, mine: Signed[Advert], wall_s: float) -> bytes:
        """What we have, our own advert first; read by `compare` on the other side."""
        entries = self._worth(wall_s)[: limits.VIEW_ADVERTS_MAX - 2]
        met: list[bytes] = []
        others: list[bytes] = []
        for entry in entries:
            (met if self._may_tell(entry) else others).append(entry.digest_entry)
        first = DIGEST_ENTRY.pack(mine.signer[:_KEY_BYTES], mine.record.seq)
        return b"".join((first, *met, _HEARSAY, *others))

    def compare(
        self, digest: bytes, mine: Signed[Advert], other: PeerId, wall_s: float
    ) -> Compared:
        """Answer the digest of `other`: what is newer here, and what seems newer there."""
        theirs: dict[bytes, int] = dict(DIGEST_ENTRY.iter_unpack(digest))
        hearsay = _hearsay_in(theirs)
        seen = theirs.pop(mine.signer[:_KEY_BYTES], None)
        entries = self._worth(wall_s)
        both = [it for it in entries if it.key in theirs]
        # Each once, however often it is said.
        count = len(theirs) + (seen is not None)
        told = self._told(theirs, self._news_max(count), other, wall_s)
        newer: list[Signed[Advert]] = []
        wanted: list[bytes] = []
        if seen is not None and seen < mine.record.seq:
            newer.append(mine)
        for pair in both:
            seq, ours = theirs.pop(pair.key), pair.heard.record.seq
            if seq < ours:
                newer.append(pair.heard)
            elif seq > ours:
                wanted.append(pair.key)
        self._estimate(other, count, both)
        first = [mine] if seen is None else []
        met = {key: seq for key, seq in theirs.items() if key not in hearsay}
        unknown = self._drawn(self.view.unheard(met), self._news_max(len(self.view)))
        room = limits.ADVERTS_PER_MESSAGE_MAX
        return Compared(
            adverts=(*first, *told, *newer)[:room],
            wanted=b"".join((*unknown, *wanted)[:room]),
        )

    def wanted(
        self, keys: bytes, mine: Signed[Advert], wall_s: float
    ) -> tuple[Signed[Advert], ...]:
        """The adverts that the other side named, as far as they are here."""
        named = keys_of(keys)
        having = [it.heard for it in self._worth(wall_s) if it.key in named] if named else []
        first = [mine] if mine.signer[:_KEY_BYTES] in named else []
        return (*first, *having)[: limits.ADVERTS_PER_MESSAGE_MAX]

    def some(self, count: int, other: PeerId, wall_s: float) -> tuple[Signed[Advert], ...]:
        """As many as `count` adverts for a newcomer, the rare ones first."""
        return tuple(self._told((), count, other, wall_s))

    def peers(self) -> int:
        """How many peers there are, ourselves included, as far as can be told from here."""
        seen = len(self.view) + 1
        if self.view.is_small or not (self.view.is_full or self._estimates):
            # What the first neighbour said counts until our own view shows otherwise.
            return max(seen, min(self.told_peers, 4 * self.view.config.adverts_max))
        estimate = int(median(self._estimates.values())) if self._estimates else seen
        # A view that is not full yet has most of those there are, or quotas keep a flood out of it:
        # then what neighbours say they have is no measure.
        return max(seen, estimate if self.view.is_full else min(estimate, _ROOM_RATIO * seen))

    def wanted_at_hello(self) -> int:
        """How many adverts to ask of somebody whom we call, as one who knows few.

        Once we know as many as the first neighbour spoke of, swaps bring the rest: in a small
        network each call would else bring everybody anew.
        """
        most = min(NEWS_TO_NEWCOMER_MAX, self.told_peers or NEWS_TO_NEWCOMER_MAX)
        return NEWS_TO_NEWCOMER_MAX if len(self.view) + 1 < most else 0

    def _estimate(self, other: PeerId, count: int, both: Sequence[Entry]) -> None:
        if self.believed and other not in self.believed:
            return
        # With quotas a view is a sample long before it is full.
        if not self.view.is_small:
            kinds = self.view.scarcities()
            ours, shared = Counter(kinds.values()), Counter(kinds[it.key] for it in both)
            # Which of theirs are scarce they do not say; views are kept alike.
            part = count / len(self.view)
            # One more on each side: an estimate without a shared peer is large, not infinite.
            peers = sum((it + 1) * (it * part + 1) / (shared[at] + 1) for at, it in ours.items())
            self._estimates[other] = int(peers)

    def _news_max(self, having: int) -> int:
        return NEWS_TO_NEWCOMER_MAX if having < self.view.config.adverts_max // 2 else NEWS_MAX

    def _told(
        self, known: Container[bytes], count: int, other: PeerId, wall_s: float
    ) -> list[Signed[Advert]]:
        """What the other side does not know: the scarce, and so many others; all were met here."""
        key, soon_wall_s = other[:_KEY_BYTES], wall_s + _LEFT_S_MIN
        scarce = [
            it
            for it in self.view.scarce()
            if self._may_tell(it) and it.key not in known and it.key != key
        ]
        first = self._drawn([it for it in scarce if it.until_wall_s > soon_wall_s], SCARCE_MAX)
        if not count:
            return [it.heard for it in first]
        chosen = {key, *[it.key for it in first]}
        news = [
            it
            for it in self._worth(wall_s)
            if self._may_tell(it) and it.key not in known and it.key not in chosen
        ]
        return [it.heard for it in (*first, *self._drawn(news, count))]

    def _may_tell(self, entry: Entry) -> bool:
        if entry.met or self.view.is_small:
            return True
        # What hardly anybody does has to travel further than one peer tells another: it is told of
        # if one who does it was met. Made-up keys gain no more by it than such a place can hold.
        count, met, few = self.view.count, self.view.met, self.view.config.few
        for place in entry.parts.places:  # noqa: SIM110 - walked for each entry of a swap
            if count(place) < few and met(place):
                return True
        return False

    def _drawn(self, items: Sequence[T], count: int) -> list[T]:
        return list(items) if len(items) <= count else self.random.sample(items, count)

    def _worth(self, wall_s: float) -> list[Entry]:
        return self.view.lasting(wall_s + _LEFT_S_MIN)
