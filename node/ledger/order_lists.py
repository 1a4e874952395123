"""Which orders lie in a bucket of an epoch, as members tell each other. Pure."""

from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field

from wire.checkpoint import ORDER_BUCKETS, bucket_digest, bucket_of, digest_in


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
    """Lists of orders by what they hash to: nobody can tell a wrong one."""

    _lists: dict[bytes, tuple[bytes, ...]] = field(default_factory=lambda: {bucket_digest(()): ()})
    # Of how many orders the own lists were made: they only become more.
    _own: int = 0

    def note(self, orders: Iterable[bytes]) -> None:
        """Remember a list that a member told."""
        listed = tuple(sorted(orders))
        self._lists[bucket_digest(listed)] = listed

    def resolve(
        self, buckets: bytes, applied: Collection[bytes], known: Container[bytes]
    ) -> Resolved:
        """The orders that these buckets stand for, from the lists and from what is applied here."""
        found: list[bytes] = []
        unknown = []
        self._note_own(applied)
        for number in range(ORDER_BUCKETS):
            listed = self._lists.get(digest_in(buckets, number))
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
            self.note(orders)
