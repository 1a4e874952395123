"""Ordered tables of bytes, inside one transaction: all that the catalog needs of a disk."""

from collections.abc import Sequence
from typing import Protocol

# The catalog's own tables; `store.seam.Table` names the others.
BLOCKS = "blocks"
QUEUE = "queue"
HOLDS = "holds"
PINS = "pins"
COUNTERS = "counters"
# Leaves that are in files, and the files; see `store.placed`.
PLACES = "places"
FILES = "files"

CATALOG_TABLES = (BLOCKS, QUEUE, HOLDS, PINS, COUNTERS, PLACES, FILES)


class Rows(Protocol):
    """One transaction over all tables. Keys are ordered as bytes are."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def size(self, table: str, key: bytes) -> int | None:
        """The bytes of a value without copying it; None where there is none."""
        ...

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write a value under a key of a table, in place of an earlier one."""

    def put_many(self, table: str, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """As `put` for each of these, in order: faster."""
        ...

    def insert(self, table: str, key: bytes, value: bytes) -> bool:
        """As `put`, but False and no change where the key is taken."""
        ...

    def delete(self, table: str, key: bytes) -> bool:
        """Delete a row; False if there was none."""
        ...

    def scan(self, table: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows from `start` on, in order."""
        ...

    def sizes(self, table: str, start: bytes, limit: int) -> list[tuple[bytes, int]]:
        """As `scan`, with the size of each value in place of the value."""
        ...
