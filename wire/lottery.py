"""The lottery: who checks, and which rows, decided by a secret revealed after the commitment.

Ranks are sha256(secret || receipt id || peer id), lowest first. The prover signed the receipt
before the secret was known to it, and the client signed sha256(secret) before the receipt existed,
so neither can steer the draw alone. What candidates contribute (`wire.contribution`) is hashed too,
so that both together cannot.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from wire import limits
from wire.content import ContentId, PeerId

_ROWS = b"baton/1/rows\0"
_PARTS = b"baton/1/parts\0"
_SPOT = b"baton/1/spot\0"
_CANDIDATES = b"baton/1/candidates\0"
# A verifier recomputes at least so many rows, or all where there are fewer.
ROWS_MIN = 4


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


def is_drawn(secret: bytes, receipt: ContentId) -> bool:
    """Whether an answer at the level spot is checked, by its attempt's secret and last receipt."""
    ticket = hashlib.sha256(_SPOT + secret + receipt).digest()
    return int.from_bytes(ticket[:8], "big") % limits.SPOT_ONE_IN == 0


def rank(secret: bytes, receipt: ContentId, peer: PeerId, mix: bytes = b"") -> bytes:
    """`mix` is what candidates contributed to this draw (`wire.contribution`)."""
    return hashlib.sha256(secret + receipt + mix + peer).digest()


def draw(secret: bytes, receipt: ContentId, candidates: Iterable[PeerId]) -> list[PeerId]:
    """Every candidate, in the order in which they are to be asked."""
    return sorted(set(candidates), key=lambda peer: rank(secret, receipt, peer))


def weighted_draw(
    secret: bytes, receipt: ContentId, weights: Mapping[PeerId, int], mix: bytes = b""
) -> list[PeerId]:
    """Every candidate, in the order in which they are to be asked, the weightier ones likelier."""
    return weighted_order(weights, lambda peer: rank(secret, receipt, peer, mix))


def candidates_drawn(
    secret: bytes, receipt: ContentId, weights: Mapping[PeerId, int]
) -> list[PeerId]:
    """Those that may be drawn, in the order in which they stay if there is no room for all.

    It is another lot than that of the draw, and neither can be known when a key is made: so no key
    is better than another, and only weight helps.
    """
    return weighted_order(
        weights, lambda peer: hashlib.sha256(_CANDIDATES + secret + receipt + peer).digest()
    )


def weighted_order(
    weights: Mapping[PeerId, int], ticket_of: Callable[[PeerId], bytes]
) -> list[PeerId]:
    """These peers by lot, which for each is decided by a hash, the weightier ones likelier.

    The first is any of them with a probability in proportion to its weight, and so is the next of
    those that are left (after Efraimidis and Spirakis, "Weighted random sampling with a reservoir",
    2006). Who has no weight comes after all that have any; where nobody has, the lowest hash wins.
    """

    def key(peer: PeerId) -> tuple[bool, int, bytes]:
        ticket, weight = ticket_of(peer), weights[peer]
        first = int.from_bytes(ticket[:8], "big") + 1
        return weight <= 0, (_bits_below(first) << 32) // weight if weight > 0 else 0, ticket

    return sorted(weights, key=key)


def _bits_below(number: int) -> int:
    """64 less the binary logarithm of a number from 1 to 2**64, in units of 2**-32.

    In whole numbers, because an auditor has to come to the same order on any machine.
    """
    whole = number.bit_length() - 1
    mantissa = number << 63 >> whole
    part = 0
    for _ in range(32):
        mantissa = mantissa * mantissa >> 63
        part <<= 1
        if mantissa >> 64:
            mantissa >>= 1
            part |= 1
    return (64 << 32) - (whole << 32 | part)


def rows_to_check(
    secret: bytes, receipt: ContentId, verifier: PeerId, rows: int, count: int
) -> tuple[int, ...]:
    """`count` of `rows` row numbers, in order; each verifier gets different ones.

    Peers that speak no version with parts (`rows_of_part`) draw so, and receipts of theirs are
    kept.
    """
    seed = hashlib.sha256(_ROWS + rank(secret, receipt, verifier)).digest()
    by_hash = sorted(
        range(rows), key=lambda row: hashlib.sha256(seed + row.to_bytes(4, "big")).digest()
    )
    return tuple(sorted(by_hash[:count]))


def rows_due(rows: int) -> int:
    """How many rows a verifier without a part recomputes: an eighth, at least `ROWS_MIN`."""
    return min(rows, max(ROWS_MIN, -(-rows // 8)), 64)


def rows_of_part(
    secret: bytes, receipt: ContentId, rows: int, part: int, parts: int
) -> tuple[int, ...]:
    """The row numbers of part `part` of `parts`, counted from 1, in order; all parts are all rows.

    Verifiers that take different parts find every wrong row, where as many rows drawn by each for
    itself overlap. If some of them lie, either way only what the honest ones look at is found: a
    part is as large as such a draw, and its rows are as little known to whoever signed the receipt.
    """
    seed = hashlib.sha256(_PARTS + secret + receipt).digest()
    shuffled = sorted(
        range(rows), key=lambda row: hashlib.sha256(seed + row.to_bytes(4, "big")).digest()
    )
    begin = (part - 1) * rows // parts
    count = part_size(rows, parts)
    return tuple(sorted(shuffled[(begin + at) % rows] for at in range(count)))


def part_size(rows: int, parts: int) -> int:
    """How many rows one part of `parts` has: its share rounded up, and at least `ROWS_MIN`."""
    return min(rows, max(ROWS_MIN, -(-rows // parts)))


@dataclass(frozen=True, slots=True)
class Share:
    """What one verifier has to recompute of a leg: a part of the rows, and rows in dispute.

    With no parts its own key draws an eighth of the rows, as all peers did before there were parts.
    """

    part: int = 0
    parts: int = 0
    rows: frozenset[int] = frozenset()

    def due(
        self, secret: bytes, receipt: ContentId, verifier: PeerId, rows: int
    ) -> tuple[int, ...]:
        """The row numbers, in order; `rows` is how many the leg has, at most PASSAGES_MAX."""
        if not self.parts:
            return rows_to_check(secret, receipt, verifier, rows, rows_due(rows))
        own = rows_of_part(secret, receipt, rows, self.part, self.parts)
        return tuple(sorted({*own, *self.rows}))


OWN_DRAW = Share()
