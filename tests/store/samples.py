"""Bytes to put into stores."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from store import Store
from wire import limits

FULL = limits.BLOCK_BYTES_MAX
Opened = Callable[[int], AbstractAsyncContextManager[Store]]


def content(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes of which no two blocks are alike."""
    words = (size_bytes + 7) // 8
    return b"".join(((seed << 32) + n).to_bytes(8, "big") for n in range(words))[:size_bytes]
