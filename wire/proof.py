"""Proofs: what stands where a signature does. Pure.

A proof is 64 bytes, a signature over the record itself; or, where one signature covers many:

    signature of the root, 64 bytes | index u32 | count u32 | path, 32 bytes for each step

The root's signature is made in a domain of its own, over the count and the root (`wire.merkle`), so
that it is never one for a record. A proof tells how many records were signed with this one, and
nothing about the others.
"""

import functools
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence

from wire import limits, merkle
from wire.content import PeerId
from wire.errors import BadSignature, Malformed
from wire.signing import SIGNATURE_BYTES, SigningKey, check_signature, separated

# No kind of record has this name: a test compares them.
BATCH_DOMAIN = "batch"
# Checked roots that are remembered. Whoever fills this with roots of its own costs others a check.
ROOTS_MAX = 1024
# Checked signatures of small records that are remembered.
SMALL_MAX = 1024
_SMALL_BYTES_MAX = 1024

_PLACE = struct.Struct(">II")
_COUNT = struct.Struct(">I")


def prove(items: Sequence[tuple[str, bytes]], key: SigningKey) -> tuple[bytes, ...]:
    """Sign `items`, pairs of a domain and a body, at once: a proof for each, which holds alone.

    The signature of one record is its proof. Malformed for none or too many.
    """
    count = len(items)
    if not 1 <= count <= limits.BATCH_RECORDS_MAX:
        raise Malformed(
            f"one signature covers 1 to {limits.BATCH_RECORDS_MAX} records, not {count}"
        )
    if count == 1:
        ((domain, body),) = items
        return (key.sign(domain, body),)
    levels = merkle.levels_of([merkle.leaf(separated(domain, body)) for domain, body in items])
    (root,) = levels[-1]
    signature = key.sign(BATCH_DOMAIN, _COUNT.pack(count) + root)
    return tuple(
        signature + _PLACE.pack(index, count) + merkle.path_of(levels, index)
        for index in range(count)
    )


def recover_some(
    domain: str,
    bodies: Mapping[int, bytes],
    count: int,
    beside: bytes,
    peer: PeerId,
    signature: bytes,
) -> dict[int, bytes]:
    """The proofs of some of `count` items, by their indexes, from what travels of them.

    `beside` are the hashes that they do not give, as in `wire.merkle`.

    BadSignature unless `peer` signed `count` items at once, these among them at these places.
    """
    leaves = {at: merkle.leaf(separated(domain, body)) for at, body in bodies.items()}
    root, paths = merkle.paths_of(leaves, count, beside)
    _check_root(peer, root, count, signature)
    return {
        at: signature + _PLACE.pack(at, count) + path
        for at, path in zip(leaves, paths, strict=True)
    }


def place_of(proof: bytes) -> tuple[bytes, int, int, bytes] | None:
    """The root's signature, index, count and path in a proof; None in a signature."""
    if len(proof) <= SIGNATURE_BYTES + _PLACE.size:
        return None
    index, count = _PLACE.unpack_from(proof, SIGNATURE_BYTES)
    return proof[:SIGNATURE_BYTES], index, count, proof[SIGNATURE_BYTES + _PLACE.size :]


def check_proof(peer: PeerId, domain: str, body: bytes, proof: bytes) -> None:
    """BadSignature unless `proof` says that `peer` signed `body` in `domain`."""
    if len(proof) == SIGNATURE_BYTES:
        if len(body) <= _SMALL_BYTES_MAX:
            _check_once(_check_small, peer, domain, body, proof)
        else:
            check_signature(peer, domain, body, proof)
        return
    path = proof[SIGNATURE_BYTES + _PLACE.size :]
    if len(proof) < SIGNATURE_BYTES + _PLACE.size or len(path) % merkle.HASH_BYTES:
        raise BadSignature(f"{len(proof)} bytes are neither a signature nor a proof")
    index, count = _PLACE.unpack_from(proof, SIGNATURE_BYTES)
    root = merkle.root_of(merkle.leaf(separated(domain, body)), index, count, path)
    _check_root(peer, root, count, proof[:SIGNATURE_BYTES])


class _Claim:
    """That a signature holds: one claim is another if their digests are equal."""

    __slots__ = ("digest", "words")

    def __init__(self, peer: PeerId, domain: str, body: bytes, signature: bytes) -> None:
        # Key and signature have one length each, so no two claims are the same bytes.
        self.digest = hashlib.sha256(signature + peer + separated(domain, body)).digest()
        self.words: tuple[PeerId, str, bytes, bytes] | None = (peer, domain, body, signature)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Claim) and self.digest == other.digest


def _check_once(
    check: Callable[[_Claim], None], peer: PeerId, domain: str, body: bytes, signature: bytes
) -> None:
    claim = _Claim(peer, domain, body, signature)
    check(claim)
    # What is remembered is the digest: a peer has thousands of these, and the records are long.
    claim.words = None


# An error is not remembered: only what held is. A peer opens a receipt when it comes, and again for
# the answer, its events and its page.
@functools.lru_cache(maxsize=SMALL_MAX)
def _check_small(claim: _Claim) -> None:
    assert claim.words is not None
    check_signature(*claim.words)


@functools.lru_cache(maxsize=ROOTS_MAX)
def _check_signed_root(claim: _Claim) -> None:
    assert claim.words is not None
    check_signature(*claim.words)


def _check_root(peer: PeerId, root: bytes, count: int, signature: bytes) -> None:
    _check_once(_check_signed_root, peer, BATCH_DOMAIN, _COUNT.pack(count) + root, signature)
