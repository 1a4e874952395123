"""The tree over a log that only grows, kept in rows of 256 nodes. Pure.

Row 0 of a level has its first 256 nodes; a row that is full is one node of the level above. So a
log of a million leaves grows with one row in hand for each of three levels, and a path in it takes
a few rows to make. The tree is that of `wire.merkle`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from wire import merkle

FAN_BITS = 8
FAN = 1 << FAN_BITS
ROW_BYTES = FAN * merkle.HASH_BYTES

# The bytes of a row as they are kept, by its level and its number; shorter where it is not full.
ReadRow = Callable[[int, int], bytes]
Rows = dict[tuple[int, int], bytes]


@dataclass(frozen=True, slots=True)
class LogEdge:
    """The end of a log, where it grows: of each level the row that is not full, lowest first."""

    size: int = 0
    rows: tuple[bytes, ...] = ()

    def added(self, leaves: Iterable[bytes]) -> tuple["LogEdge", Rows]:
        """The edge with these leaves more, and every row that changed, by level and number."""
        rows, size = [bytearray(it) for it in self.rows], self.size
        changed: Rows = {}
        touched: set[int] = set()
        for leaf in leaves:
            size += 1
            level, node = 0, leaf
            while True:
                if level == len(rows):
                    rows.append(bytearray())
                row = rows[level]
                row += node
                touched.add(level)
                if len(row) < ROW_BYTES:
                    break
                # The row's last node is number `size >> …` of its level, less one.
                number = ((size >> (FAN_BITS * level)) - 1) >> FAN_BITS
                changed[level, number] = bytes(row)
                node = _root(_split(row))
                row.clear()
                level += 1
        for level in touched:
            if rows[level]:
                number = (size >> (FAN_BITS * level)) >> FAN_BITS
                changed[level, number] = bytes(rows[level])
        return LogEdge(size, tuple(map(bytes, rows))), changed

    @property
    def root(self) -> bytes:
        """The root over all leaves; there has to be one."""
        node: bytes | None = None
        for row in self.rows:
            nodes = _split(row) + ([] if node is None else [node])
            node = _root(nodes) if nodes else None
        assert node is not None, "an empty log has no root"
        return node


def edge_of(size: int, read: ReadRow) -> LogEdge:
    """The edge of a log of `size` leaves, from its rows."""
    rows, level = [], 0
    while size >> (FAN_BITS * level):
        nodes = size >> (FAN_BITS * level)
        number, count = nodes >> FAN_BITS, nodes % FAN
        rows.append(read(level, number)[: count * merkle.HASH_BYTES] if count else b"")
        level += 1
    return LogEdge(size, tuple(rows))


def path_in(index: int, size: int, read: ReadRow) -> bytes:
    """The path from leaf `index` to the root over the first `size` leaves of a log."""
    path, level, at = b"", 0, index
    while True:
        nodes = _nodes(level, at >> FAN_BITS, size, read)
        path += merkle.path_of(merkle.levels_of(nodes), at % FAN)
        # As many nodes as the level has, with the one that is not full.
        if -(-size // (1 << FAN_BITS * level)) <= FAN:
            return path
        level, at = level + 1, at >> FAN_BITS


def _nodes(level: int, number: int, size: int, read: ReadRow) -> list[bytes]:
    """The nodes of one row, as they are in a log of `size` leaves."""
    whole = size >> (FAN_BITS * level)
    begin = number << FAN_BITS
    count = max(0, min(FAN, whole - begin))
    found = _split(read(level, number)[: count * merkle.HASH_BYTES]) if count else []
    if level and begin <= whole < begin + FAN and size % (1 << FAN_BITS * level):
        found.append(_root(_nodes(level - 1, whole, size, read)))
    return found


def _split(row: bytes | bytearray) -> list[bytes]:
    return [bytes(row[at : at + merkle.HASH_BYTES]) for at in range(0, len(row), merkle.HASH_BYTES)]


def _root(nodes: Sequence[bytes]) -> bytes:
    return merkle.levels_of(nodes)[-1][0]
