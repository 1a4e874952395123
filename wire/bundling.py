"""Cutting many items into messages of a standing order, each within the bounds of one. Pure."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from wire import limits

T = TypeVar("T")

# What the fields of one item take besides its bytes, at most.
ITEM_BYTES = 512


def cut(
    sized: Iterable[tuple[T, int]], items_max: int = limits.BUNDLE_ITEMS_MAX
) -> Iterator[list[T]]:
    """The items, each given with the size in bytes of what it carries, in runs that fit a message.

    A run has at least one item, and no more than `items_max`.
    """
    run: list[T] = []
    run_bytes = 0
    for item, size_bytes in sized:
        cost_bytes = size_bytes + ITEM_BYTES
        full = len(run) == items_max
        if run and (full or run_bytes + cost_bytes > limits.BUNDLE_BYTES_MAX):
            yield run
            run, run_bytes = [], 0
        run.append(item)
        run_bytes += cost_bytes
    if run:
        yield run
