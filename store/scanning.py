"""Whole tables, page by page, and what the keys of the pins table stand for."""

from collections.abc import Iterator

from store.rows import PINS, Rows
from store.seam import Pin
from wire.content import ContentId

_PAGE_ROWS = 256


def every_size(rows: Rows, table: str) -> Iterator[tuple[bytes, int]]:
    """Every key with the size of its value. The table may not change meanwhile."""
    at = b""
    while page := rows.sizes(table, at, _PAGE_ROWS):
        yield from page
        at = page[-1][0] + b"\0"


def every_row(rows: Rows, table: str) -> Iterator[tuple[bytes, bytes]]:
    """Every row. The table may not change meanwhile."""
    at = b""
    while page := rows.scan(table, at, _PAGE_ROWS):
        yield from page
        at = page[-1][0] + b"\0"


def read_pin(key: bytes) -> Pin:
    """The pin that a row of the pins table stands for."""
    # Ids differ in length by the prefix, and no prefix is the beginning of another.
    length = len(ContentId.of_tree(b"")) if key[1] & 0x80 else len(ContentId.of(b""))
    return Pin(ContentId(key[:length]), key[length:].decode())


def every_pin(rows: Rows) -> Iterator[Pin]:
    for key, _ in every_size(rows, PINS):
        yield read_pin(key)
