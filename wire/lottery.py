"""The lottery: who checks, and which rows, decided by a secret revealed after the commitment.

Ranks are sha256(secret || receipt id || peer id), lowest first. The prover signed the receipt
before the secret was known to it, and the client signed sha256(secret) before the receipt existed,
so neither can steer the draw alone.
"""

import hashlib
from collections.abc import Iterable

from wire import limits
from wire.content import ContentId, PeerId

_ROWS = b"baton/1/rows\0"


def secret_hash_of(seed: bytes) -> bytes:
    """What a client signs: the end of a chain of secrets, one for each attempt.

    A check reveals its secret to the verifiers, and so to whoever listens. An attempt after that
    draws by the secret before it in the chain, which nobody can work out from the one revealed
    (one-time passwords after Lamport, "Password Authentication with Insecure Communication", 1981).
    """
    return _hashed(seed, limits.ATTEMPTS_MAX)


def secret_of(seed: bytes, attempt: int) -> bytes:
    """The secret that attempt number `attempt`, counted from 1, reveals."""
    return _hashed(seed, limits.ATTEMPTS_MAX - attempt)


def attempt_of(secret: bytes, secret_hash: bytes) -> int | None:
    """The number of the attempt that this secret is for; None if it is no secret of the task."""
    for attempt in range(1, limits.ATTEMPTS_MAX + 1):
        secret = hashlib.sha256(secret).digest()
        if secret == secret_hash:
            return attempt
    return None


def _hashed(secret: bytes, times: int) -> bytes:
    for _ in range(times):
        secret = hashlib.sha256(secret).digest()
    return secret


def rank(secret: bytes, receipt: ContentId, peer: PeerId) -> bytes:
    return hashlib.sha256(secret + receipt + peer).digest()


def draw(secret: bytes, receipt: ContentId, candidates: Iterable[PeerId]) -> list[PeerId]:
    """Every candidate, in the order in which they are to be asked."""
    return sorted(set(candidates), key=lambda peer: rank(secret, receipt, peer))


def rows_to_check(
    secret: bytes, receipt: ContentId, verifier: PeerId, rows: int, count: int
) -> tuple[int, ...]:
    """`count` of `rows` row numbers, in order; each verifier gets different ones."""
    seed = hashlib.sha256(_ROWS + rank(secret, receipt, verifier)).digest()
    by_hash = sorted(
        range(rows), key=lambda row: hashlib.sha256(seed + row.to_bytes(4, "big")).digest()
    )
    return tuple(sorted(by_hash[:count]))


def rows_due(rows: int) -> int:
    """How many rows a verifier recomputes: an eighth, at least four, all where there are fewer."""
    return min(rows, max(4, -(-rows // 8)), 64)
