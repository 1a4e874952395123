"""Counts of running things, by key; an entry is deleted when its count is zero. Pure."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TypeVar

K = TypeVar("K")


@contextmanager
def counted(counts: MutableMapping[K, int], key: K) -> Iterator[int]:
    """Count one more of `key` for as long as the block runs; yields the count with this one."""
    now = count_up(counts, key)
    try:
        yield now
    finally:
        count_down(counts, key)


def count_up(counts: MutableMapping[K, int], key: K) -> int:
    """Count one more of `key`; the count with this one."""
    now = counts[key] = counts.get(key, 0) + 1
    return now


def count_down(counts: MutableMapping[K, int], key: K) -> None:
    """Count one less of `key`, which was counted before."""
    counts[key] -= 1
    if not counts[key]:
        # Other peers can make keys for free, so a key at zero must not take memory.
        del counts[key]
