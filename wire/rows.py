"""Rows of a table that were answered together: what the asker signs of them, and a proof for each.

The leaf of a row is over its number, what was asked for it and what was answered. Who has the
signed root, one row and its path knows that the asker had that answer for that row, without any
other row. That a peer gave these answers is in the receipts, which are named here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits, merkle
from wire.codec import pack_plain
from wire.content import ContentId
from wire.errors import BadSignature, Malformed
from wire.kinds import Kind
from wire.schema import Between, Digest, Int
from wire.signed import SignedRecord

RowNumber = Int


@dataclass(frozen=True, slots=True)
class RowDigest:
    """One row: its number in the table, from 0, and the hashes of its question and its answer."""

    number: int
    source: bytes
    output: bytes

    @classmethod
    def of(cls, number: int, source: bytes, output: bytes) -> "RowDigest":
        """The digest of a row with this question and this answer."""
        return cls(number, hashlib.sha256(source).digest(), hashlib.sha256(output).digest())

    @property
    def hashes(self) -> bytes:
        """The two hashes, 64 bytes: what is kept of a row whose number is known."""
        return self.source + self.output

    @property
    def leaf(self) -> bytes:
        """The 32 bytes that stand for the row in its bundle's tree."""
        return merkle.leaf(pack_plain([self.number, self.source, self.output]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBundle(SignedRecord):
    """Rows `first` to `last` of a table, of which `rows` were answered, and the root over those.

    `answers` are the receipts: one for all rows, or one for each, in their order.
    """

    KIND: ClassVar[Kind] = Kind.ROW_BUNDLE
    SIZE_BYTES_MAX: ClassVar[int] = 16 << 10

    model: ContentId
    first: RowNumber
    last: RowNumber
    rows: Annotated[int, Between(1, limits.BUNDLE_ROWS_MAX)]
    root: Digest
    answers: Annotated[tuple[ContentId, ...], Between(1, limits.BUNDLE_ROWS_MAX)]

    def check(self) -> None:
        """Malformed unless so many rows lie in that range, under one receipt or one for each."""
        if not self.rows <= self.last - self.first + 1 <= limits.BUNDLE_ROWS_MAX:
            raise Malformed(f"{self.rows} rows do not lie between {self.first} and {self.last}")
        if len(self.answers) not in (1, self.rows):
            raise Malformed(f"{len(self.answers)} receipts for {self.rows} rows")


def digests_of(numbers: Sequence[int], hashes: bytes) -> list[RowDigest]:
    """Rows by their numbers, and the hashes of each; Malformed for too many or too few hashes."""
    half, wide = merkle.HASH_BYTES, 2 * merkle.HASH_BYTES
    if len(hashes) != wide * len(numbers):
        raise Malformed(f"{len(hashes)} bytes are not the hashes of {len(numbers)} rows")
    return [
        RowDigest(number, hashes[at : at + half], hashes[at + half : at + wide])
        for number, at in zip(numbers, range(0, len(hashes), wide), strict=True)
    ]


def hashed_rows(
    numbers: Sequence[int], sources: Sequence[bytes], outputs: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """The hashes of rows, as `digests_of` reads them, and the root over them.

    What `RowDigest.of` and `root_of_rows` give, in half the time: each row of a table passes here.
    """
    sha256, hashes, leaves = hashlib.sha256, list[bytes](), list[bytes]()
    for number, source, output in zip(numbers, sources, outputs, strict=True):
        pair = sha256(source).digest(), sha256(output).digest()
        hashes += pair
        leaves.append(merkle.leaf(pack_plain([number, *pair])))
    (root,) = merkle.levels_of(leaves)[-1]
    return b"".join(hashes), root


def root_of_rows(digests: Sequence[RowDigest]) -> bytes:
    """The root over rows in their order; there is one at least."""
    (root,) = merkle.levels_of([it.leaf for it in digests])[-1]
    return root


def path_of_row(digests: Sequence[RowDigest], index: int) -> bytes:
    """The hashes that lead from one row of a bundle to its root, from the leaf up."""
    return merkle.path_of(merkle.levels_of([it.leaf for it in digests]), index)


def check_row(bundle: RowBundle, row: RowDigest, index: int, path: bytes) -> None:
    """BadSignature unless `path` leads from the row, at `index` of its bundle, to the root."""
    if not bundle.first <= row.number <= bundle.last or index >= bundle.rows:
        raise BadSignature(f"row {row.number} is not one of this bundle")
    if bundle.rows == 1:
        root = row.leaf if not path else b""
    else:
        root = merkle.root_of(row.leaf, index, bundle.rows, path)
    if root != bundle.root:
        raise BadSignature(f"row {row.number} does not lead to the root that was signed")
