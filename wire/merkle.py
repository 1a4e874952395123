"""One signature for many records: a Merkle tree over them, and for each the path to its root. Pure.

The shape is that of RFC 6962: leaves and inner nodes are hashed with different first bytes, so that
neither is ever taken for the other, and a node without a sibling goes up as it is, so that no list
of leaves has the root of a longer one. The count of the leaves is signed together with the root:
from the index and the count it follows how long a path is, and a proof has one form.
"""

import hashlib
from collections.abc import Mapping, Sequence

from wire import limits
from wire.errors import BadSignature

HASH_BYTES = 32

Levels = list[list[bytes]]


def leaf(words: bytes) -> bytes:
    """The 32 bytes that stand in the tree for `words`, which a signature alone would be over."""
    return hashlib.sha256(b"\0" + words).digest()


def levels_of(leaves: Sequence[bytes]) -> Levels:
    """Every level of the tree, the leaves first and the root, alone in its level, last."""
    levels = [list(leaves)]
    while len(level := levels[-1]) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs]
        levels.append(above + level[-1:] if len(level) % 2 else above)
    return levels


def path_of(levels: Levels, index: int) -> bytes:
    """The siblings, from the leaf up, that lead from the leaf at `index` to the root."""
    found = []
    for level in levels[:-1]:
        if (sibling := index ^ 1) < len(level):
            found.append(level[sibling])
        index >>= 1
    return b"".join(found)


def root_of(leaf: bytes, index: int, count: int, path: bytes) -> bytes:
    """The root that `path` leads to; BadSignature unless it is a path from `index` of `count`."""
    if not 2 <= count <= limits.BATCH_RECORDS_MAX or index >= count:
        raise BadSignature(
            f"a proof for record {index} of {count}: there are 2 to {limits.BATCH_RECORDS_MAX},"
            " numbered from 0"
        )
    return _climbed(leaf, index, count, path)


def check_path(leaf: bytes, index: int, count: int, path: bytes, root: bytes) -> None:
    """BadSignature unless `path` leads from a leaf at `index` of any number of leaves to `root`."""
    if not 0 <= index < count:
        raise BadSignature(f"there is no leaf {index} among {count}, numbered from 0")
    if _climbed(leaf, index, count, path) != root:
        raise BadSignature("the path does not lead to the root")


def _climbed(leaf: bytes, index: int, count: int, path: bytes) -> bytes:
    node, at, width = leaf, 0, count
    while width > 1:
        if index ^ 1 < width:
            sibling = path[at : at + HASH_BYTES]
            at += HASH_BYTES
            pair = sibling + node if index & 1 else node + sibling
            node = hashlib.sha256(b"\1" + pair).digest()
        index, width = index >> 1, (width + 1) >> 1
    if at != len(path):
        raise BadSignature(f"a proof's path has {at} bytes here, not {len(path)}")
    return node


def beside(paths: Mapping[int, bytes], count: int) -> bytes:
    """What the leaves at these indexes need besides themselves to give the root of `count`.

    The siblings that they do not give, level by level from the leaves up, from left to right.
    `paths` are the paths of the leaves, as `path_of` gives them.
    """
    found = []
    # Of each node that is known: a path that leads on from it, and how much of it is used.
    known = {index: (paths[index], 0) for index in sorted(paths)}
    width = count
    while width > 1:
        above: dict[int, tuple[bytes, int]] = {}
        for index, (path, at) in known.items():
            sibling, used = index ^ 1, at
            if sibling < width:
                used += HASH_BYTES
                if sibling not in known:
                    found.append(path[at:used])
            above.setdefault(index >> 1, (path, used))
        known, width = above, (width + 1) >> 1
    return b"".join(found)


def paths_of(leaves: Mapping[int, bytes], count: int, beside: bytes) -> tuple[bytes, list[bytes]]:
    """The root of `count` leaves of which some are given, and the path of each of those, in order.

    BadSignature unless they are leaves of such a tree, and `beside` is exactly what they need.
    """
    if not 2 <= count <= limits.BATCH_RECORDS_MAX or not leaves or max(leaves) >= count:
        raise BadSignature(
            f"leaves of {count}: there are 2 to {limits.BATCH_RECORDS_MAX}, numbered from 0"
        )
    level = {index: leaves[index] for index in sorted(leaves)}
    places, paths = list(leaves), [b""] * len(leaves)
    width, used = count, 0
    while width > 1:
        above: dict[int, bytes] = {}
        for index in list(level):
            sibling = index ^ 1
            if sibling >= width:
                above[index >> 1] = level[index]
                continue
            if sibling not in level:
                level[sibling] = beside[used : used + HASH_BYTES]
                used += HASH_BYTES
            if index >> 1 not in above:
                pair = level[index & ~1] + level[index | 1]
                above[index >> 1] = hashlib.sha256(b"\1" + pair).digest()
        for at, index in enumerate(places):
            if index ^ 1 < width:
                paths[at] += level[index ^ 1]
            places[at] = index >> 1
        level, width = above, (width + 1) >> 1
    if used != len(beside):
        raise BadSignature(f"these leaves need {used} bytes of hashes besides, not {len(beside)}")
    return level[0], paths
