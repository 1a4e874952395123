"""Counts of running things, by key; an entry is deleted when its count is zero. Pure."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TypeVar

K = TypeVar("K")


@contextmanager
def counted(counts: MutableMapping[K, int], key: K) -> Iterator[int]:
    """Count one more of `key` for as long as the block runs; yields the count with this one."""
    now = counts[key] = counts.get(key, 0) + 1
    try:
        yield now
    finally:
        counts[key] -= 1
        if not counts[key]:
            # Other peers can make keys for free, so a key at zero must not take memory.
            del counts[key]
