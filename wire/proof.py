"""Proofs: what stands where a signature does. Pure.

A proof is 64 bytes, a signature over the record itself; or, where one signature covers many:

    signature of the root, 64 bytes | index u32 | count u32 | path, 32 bytes for each step

The root's signature is made in a domain of its own, over the count and the root (`wire.merkle`), so
that it is never one for a record. A proof tells how many records were signed with this one, and
nothing about the others.
"""

import functools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wire import limits, merkle
from wire.content import PeerId
from wire.errors import BadSignature, Malformed
from wire.signing import SIGNATURE_BYTES, SigningKey, check_signature, separated

# No kind of record has this name: a test compares them.
BATCH_DOMAIN = "batch"
# Checked roots that are remembered. Whoever fills this with roots of its own costs others a check.
ROOTS_MAX = 4096
# Checked signatures of small records that are remembered, with the records.
_SMALL_MAX = 1024
_SMALL_BYTES_MAX = 1024

_PLACE = struct.Struct(">II")
_COUNT = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Proofs:
    """What one signature made: itself, and for each record, in order, the proof that holds alone.

    The signature of one record is its proof; that of many is the signature of their root.
    """

    signature: bytes
    each: tuple[bytes, ...]


def prove(items: Sequence[tuple[str, bytes]], key: SigningKey) -> Proofs:
    """Sign `items`, pairs of a domain and a body, at once; Malformed for none or too many."""
    _count_is_legal(len(items))
    if len(items) == 1:
        ((domain, body),) = items
        signature = key.sign(domain, body)
        return Proofs(signature, (signature,))
    levels = _levels(items)
    (root,) = levels[-1]
    return _proofs(levels, key.sign(BATCH_DOMAIN, _COUNT.pack(len(items)) + root))


def recover(items: Sequence[tuple[str, bytes]], peer: PeerId, signature: bytes) -> Proofs:
    """The proofs of `items` as `peer` made them, from what travels of them: one signature.

    BadSignature unless it is that of exactly these, in this order; Malformed for none or too many.
    """
    _count_is_legal(len(items))
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    if len(items) == 1:
        ((domain, body),) = items
        check_signature(peer, domain, body, signature)
        return Proofs(signature, (signature,))
    levels = _levels(items)
    _check_root(peer, levels[-1][0], len(items), signature)
    return _proofs(levels, signature)


def recover_some(
    domain: str,
    bodies: Mapping[int, bytes],
    count: int,
    beside: bytes,
    peer: PeerId,
    signature: bytes,
) -> dict[int, bytes]:
    """As `recover`, of some of `count` items, by their indexes; `beside` as in `wire.merkle`.

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
        check = _check_small if len(body) <= _SMALL_BYTES_MAX else check_signature
        check(peer, domain, body, proof)
        return
    path = proof[SIGNATURE_BYTES + _PLACE.size :]
    if len(proof) < SIGNATURE_BYTES + _PLACE.size or len(path) % merkle.HASH_BYTES:
        raise BadSignature(f"{len(proof)} bytes are neither a signature nor a proof")
    index, count = _PLACE.unpack_from(proof, SIGNATURE_BYTES)
    root = merkle.root_of(merkle.leaf(separated(domain, body)), index, count, path)
    _check_root(peer, root, count, proof[:SIGNATURE_BYTES])


def _count_is_legal(count: int) -> None:
    if not 1 <= count <= limits.BATCH_RECORDS_MAX:
        raise Malformed(
            f"one signature covers 1 to {limits.BATCH_RECORDS_MAX} records, not {count}"
        )


def _levels(items: Sequence[tuple[str, bytes]]) -> merkle.Levels:
    return merkle.levels_of([merkle.leaf(separated(domain, body)) for domain, body in items])


def _proofs(levels: merkle.Levels, signature: bytes) -> Proofs:
    count = len(levels[0])
    return Proofs(
        signature,
        tuple(
            signature + _PLACE.pack(index, count) + merkle.path_of(levels, index)
            for index in range(count)
        ),
    )


# An error is not remembered: only what held is. A peer opens a receipt when it comes, and again for
# the answer, its events and its page.
@functools.lru_cache(maxsize=_SMALL_MAX)
def _check_small(peer: PeerId, domain: str, body: bytes, signature: bytes) -> None:
    check_signature(peer, domain, body, signature)


@functools.lru_cache(maxsize=ROOTS_MAX)
def _check_root(peer: PeerId, root: bytes, count: int, signature: bytes) -> None:
    check_signature(peer, BATCH_DOMAIN, _COUNT.pack(count) + root, signature)
