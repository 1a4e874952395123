"""One signature for many records: a Merkle tree over them, and for each the path to its root. Pure.

The shape is that of RFC 6962: leaves and inner nodes are hashed with different first bytes, so that
neither is ever taken for the other, and a node without a sibling goes up as it is, so that no list
of leaves has the root of a longer one. The count of the leaves is signed together with the root:
from the index and the count it follows how long a path is, and a proof has one form.
"""

import hashlib
from collections.abc import Sequence

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
