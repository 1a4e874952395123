"""The tree of a growing log is the tree over all its leaves, whenever it is looked at."""

import hashlib
import itertools

import pytest

from node.serving.log_tree import FAN, LogEdge, Rows, edge_of, path_in
from wire import merkle
from wire.errors import BadSignature


def leaves(count: int) -> list[bytes]:
    return [hashlib.sha256(it.to_bytes(8, "big")).digest() for it in range(count)]


class Kept:
    """Rows as a store has them, and a log grown in steps of a few sizes."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.edge = LogEdge()

    def grow(self, more: list[bytes]) -> None:
        self.edge, changed = self.edge.added(more)
        self.rows |= changed

    def read(self, level: int, number: int) -> bytes:
        return self.rows[level, number]


@pytest.fixture(scope="module")
def grown() -> tuple[Kept, list[bytes]]:
    kept, all_leaves = Kept(), leaves(FAN * FAN + 700)
    steps = itertools.cycle((1, 2, 255, 256, 1000))
    at = 0
    while at < len(all_leaves):
        step = next(steps)
        kept.grow(all_leaves[at : at + step])
        at += step
    return kept, all_leaves


SIZES = (1, 2, 3, 255, 256, 257, 511, 512, 513, 1000, FAN * FAN, FAN * FAN + 1, FAN * FAN + 700)


@pytest.mark.parametrize("size", SIZES)
def test_its_root_is_that_of_all_leaves(grown: tuple[Kept, list[bytes]], size: int) -> None:
    kept, all_leaves = grown
    root = merkle.levels_of(all_leaves[:size])[-1][0]
    assert edge_of(size, kept.read).root == root
    for index in {0, size // 3, size // 2, size - 1}:
        path = path_in(index, size, kept.read)
        merkle.check_path(all_leaves[index], index, size, path, root)
        for wrong in (path + bytes(32), path[:-1], bytes(len(path))):
            if wrong != path:
                with pytest.raises(BadSignature):
                    merkle.check_path(all_leaves[index], index, size, wrong, root)
        with pytest.raises(BadSignature):
            merkle.check_path(all_leaves[index], size, size, path, root)
        if size > 1:
            with pytest.raises(BadSignature):
                merkle.check_path(all_leaves[index], index ^ 1, size, path, root)


def test_it_is_the_same_however_it_grew(grown: tuple[Kept, list[bytes]]) -> None:
    kept, all_leaves = grown
    at_once = LogEdge().added(all_leaves)[0]
    assert at_once == kept.edge == edge_of(len(all_leaves), kept.read)


def test_in_hand_it_holds_no_more_than_a_row_for_each_level(
    grown: tuple[Kept, list[bytes]],
) -> None:
    kept, _ = grown
    assert len(kept.edge.rows) == 3
    assert all(len(row) < FAN * 32 for row in kept.edge.rows)
