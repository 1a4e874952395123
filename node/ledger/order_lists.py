"""Which orders lie in a bucket of an epoch, as members tell each other. Pure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field

from wire import limits
from wire.checkpoint import ORDER_BUCKETS, bucket_digest, bucket_of, digest_in
from wire.content import PeerId

# Of what one member told, lists of so many orders are kept together: those of a full epoch.
TOLD_ORDERS_MAX = ORDER_BUCKETS * (limits.BUCKET_ORDERS_MAX + 1)
_NOTHING = bucket_digest(())


@dataclass(slots=True)
class Resolved:
    """What is known of the orders that buckets of digests stand for.

    `orders` are all of them; None while some `buckets` are unknown, or some are `missing`.
    """

    orders: tuple[bytes, ...] | None
    buckets: list[int]
    missing: list[bytes]


def in_bucket(orders: Iterable[bytes], bucket: int) -> list[bytes]:
    """Those of the orders that lie in one bucket, in order."""
    return sorted(it for it in orders if bucket_of(it) == bucket)


@dataclass(slots=True)
class OrderLists:
    """Lists of orders by what they hash to: nobody can tell a wrong one.

    Anybody can make up orders, though: of each member its latest lists are kept, and a list goes
    once nobody is left whose it is. One that is needed after all is fetched again.
    """

    _lists: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    # Who told which lists, the latest last; how many told each; and how many orders each told.
    _told: dict[PeerId | None, dict[bytes, None]] = field(default_factory=lambda: defaultdict(dict))
    _tellers: Counter[bytes] = field(default_factory=Counter)
    _sizes: Counter[PeerId | None] = field(default_factory=Counter)
    # Of how many orders the own lists were made: they only become more.
    _own: int = 0

    def note(self, orders: Iterable[bytes], teller: PeerId | None) -> None:
        """Remember a list that a member told; None for this member itself."""
        listed = tuple(sorted(orders))
        digest, told = bucket_digest(listed), self._told[teller]
        if digest in told:
            told[digest] = told.pop(digest)
            return
        self._lists[digest] = listed
        told[digest] = None
        self._tellers[digest] += 1
        self._sizes[teller] += _size_of(listed)
        while self._sizes[teller] > TOLD_ORDERS_MAX:
            self._forget(next(iter(told)), teller)

    def listed(self, bucket: int, digest: bytes, applied: Iterable[bytes]) -> Collection[bytes]:
        """The list of a bucket that hashes so, if it is known here; else what is applied of it.

        What a member has sealed has to be learnt from others than it too: it may tell some alone.
        """
        known = self._lists.get(digest)
        return in_bucket(applied, bucket) if known is None else known

    def _forget(self, digest: bytes, teller: PeerId | None) -> None:
        del self._told[teller][digest]
        self._sizes[teller] -= _size_of(self._lists[digest])
        self._tellers[digest] -= 1
        if not self._tellers[digest]:
            del self._tellers[digest], self._lists[digest]

    def resolve(
        self, buckets: bytes, applied: Collection[bytes], known: Container[bytes]
    ) -> Resolved:
        """The orders that these buckets stand for, from the lists and from what is applied here."""
        found: list[bytes] = []
        unknown = []
        self._note_own(applied)
        for number in range(ORDER_BUCKETS):
            digest = digest_in(buckets, number)
            listed = () if digest == _NOTHING else self._lists.get(digest)
            if listed is None:
                unknown.append(number)
            else:
                found += listed
        missing = [it for it in found if it not in known]
        whole = tuple(sorted(found)) if not unknown and not missing else None
        return Resolved(whole, unknown, missing)

    def _note_own(self, applied: Collection[bytes]) -> None:
        if len(applied) == self._own:
            return
        self._own = len(applied)
        own: list[list[bytes]] = [[] for _ in range(ORDER_BUCKETS)]
        for order in applied:
            own[bucket_of(order)].append(order)
        for orders in own:
            self.note(orders, None)


def _size_of(listed: tuple[bytes, ...]) -> int:
    """What a list counts: one of none is kept too."""
    return len(listed) + 1
