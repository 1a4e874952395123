"""Proofs: what stands where a signature does. Pure.

A proof is 64 bytes, a signature over the record itself; or, where one signature covers many:

    signature of the root, 64 bytes | index u32 | count u32 | path, 32 bytes for each step

The root's signature is made in a domain of its own, over the count and the root (`wire.merkle`), so
that it is never one for a record. A proof tells how many records were signed with this one, and
nothing about the others.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence

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
_DIGEST_BYTES = 32
_BUCKET_BYTES = 4 * _DIGEST_BYTES

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
            _small_held.check_once(peer, domain, body, proof)
        else:
            check_signature(peer, domain, body, proof)
        return
    path = proof[SIGNATURE_BYTES + _PLACE.size :]
    if len(proof) < SIGNATURE_BYTES + _PLACE.size or len(path) % merkle.HASH_BYTES:
        raise BadSignature(f"{len(proof)} bytes are neither a signature nor a proof")
    index, count = _PLACE.unpack_from(proof, SIGNATURE_BYTES)
    root = merkle.root_of(merkle.leaf(separated(domain, body)), index, count, path)
    _check_root(peer, root, count, proof[:SIGNATURE_BYTES])


class _Held:
    """Which signatures held, as digests, in bytes that are all there from the beginning.

    A table that fills would grow for hours in a peer that little reaches. Chance gives a digest its
    bucket of four: nearly all of the latest `digests_max / 4` are found again.
    """

    __slots__ = ("_bytes",)

    def __init__(self, digests_max: int) -> None:
        # No zeros: pages of these are not there until something is written. No digest is this.
        self._bytes = bytearray(b"\xff" * (digests_max * _DIGEST_BYTES))

    def check_once(self, peer: PeerId, domain: str, body: bytes, signature: bytes) -> None:
        # Key and signature have one length each, so no two claims are the same bytes.
        digest = hashlib.sha256(signature + peer + separated(domain, body)).digest()
        buckets = len(self._bytes) // _BUCKET_BYTES
        begin = int.from_bytes(digest[:4], "big") % buckets * _BUCKET_BYTES
        bucket = self._bytes[begin : begin + _BUCKET_BYTES]
        if digest not in bucket:
            # An error is not remembered: only what held is.
            check_signature(peer, domain, body, signature)
            self._bytes[begin : begin + _BUCKET_BYTES] = digest + bucket[:-_DIGEST_BYTES]


# A peer opens a receipt when it comes, and again for the answer, its events and its page.
_small_held = _Held(SMALL_MAX)
_roots_held = _Held(ROOTS_MAX)


def _check_root(peer: PeerId, root: bytes, count: int, signature: bytes) -> None:
    _roots_held.check_once(peer, BATCH_DOMAIN, _COUNT.pack(count) + root, signature)
