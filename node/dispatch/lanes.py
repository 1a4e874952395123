"""Lanes: which tasks of this peer belong to one of its clients, and whose task is next. Pure.

A peer that serves takes turns among the lanes of one asker, within what that asker has anyway. What
a lane is called says nothing of the client, and nothing at all after a restart.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from wire import limits

T = TypeVar("T")


@dataclass(slots=True)
class Lanes:
    """The lanes of this peer's clients; `entropy` gives so many secret bytes."""

    entropy: Callable[[int], bytes]
    _secret: bytes = b""

    def of(self, owner: bytes) -> bytes:
        """The lane of a client; that of the peer's own owner, who has no name, is empty."""
        if not owner:
            return b""
        if not self._secret:
            self._secret = self.entropy(32)
        found = hashlib.blake2b(owner, digest_size=limits.LANE_BYTES_MAX, key=self._secret)
        return found.digest()


@dataclass(slots=True)
class LaneQueue(Generic[T]):
    """Items that wait, each in a lane; lanes take turns, and within a lane the first is next."""

    # The lane whose turn it is comes first.
    _lanes: dict[bytes, dict[T, None]] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        return (item for lane in self._lanes.values() for item in lane)

    def put(self, lane: bytes, item: T) -> None:
        """Have an item wait as the last of its lane."""
        self._lanes.setdefault(lane, {})[item] = None
        self._count += 1

    def pop(self) -> T:
        """The next item, which waits no more; there is one."""
        lane, items = next(iter(self._lanes.items()))
        item = next(iter(items))
        self.discard(lane, item)
        if items:
            del self._lanes[lane]
            self._lanes[lane] = items
        return item

    def discard(self, lane: bytes, item: T) -> None:
        """Have an item wait no more, if it did."""
        items = self._lanes.get(lane)
        if items is None or item not in items:
            return
        del items[item]
        self._count -= 1
        if not items:
            del self._lanes[lane]
