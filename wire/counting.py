"""Counting what is under way, by key: up, down, and no entry left behind at zero. Pure."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TypeVar

K = TypeVar("K")


@contextmanager
def counted(counts: MutableMapping[K, int], key: K) -> Iterator[int]:
    """Count one more of `key` for as long as the block runs; how many there are with it."""
    now = counts[key] = counts.get(key, 0) + 1
    try:
        yield now
    finally:
        counts[key] -= 1
        if not counts[key]:
            # Keys of others cost them nothing: what is not under way takes no room.
            del counts[key]
