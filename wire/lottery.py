"""The lottery: who checks, and which rows, decided by a secret revealed after the commitment.

Ranks are sha256(secret || receipt id || peer id), lowest first. The prover signed the receipt
before the secret was known to it, and the client signed sha256(secret) before the receipt existed,
so neither can steer the draw alone.
"""

import hashlib
from collections.abc import Iterable

from wire.content import ContentId, PeerId

_ROWS = b"baton/1/rows\0"


def rank(secret: bytes, receipt: ContentId, peer: PeerId) -> bytes:
    return hashlib.sha256(secret + receipt + peer).digest()


def draw(secret: bytes, receipt: ContentId, candidates: Iterable[PeerId]) -> list[PeerId]:
    """Every candidate, in the order in which they are to be asked."""
    return sorted(set(candidates), key=lambda peer: rank(secret, receipt, peer))


def rows_to_check(
    secret: bytes, receipt: ContentId, verifier: PeerId, rows: int, count: int
) -> tuple[int, ...]:
    """`count` of `rows` row numbers, in order; another verifier gets others."""
    seed = hashlib.sha256(_ROWS + rank(secret, receipt, verifier)).digest()
    by_hash = sorted(
        range(rows), key=lambda row: hashlib.sha256(seed + row.to_bytes(4, "big")).digest()
    )
    return tuple(sorted(by_hash[:count]))


def rows_due(rows: int) -> int:
    """How many rows a verifier recomputes: an eighth, at least four, all where there are fewer."""
    return min(rows, max(4, -(-rows // 8)), 64)
