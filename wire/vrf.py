"""A verifiable random function over a peer's own key: ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381).

Only who has the private key can compute its output for some words, there is one output for them,
and the proof shows anybody that this is it. An Ed25519 signature would not do: its signer can make
many for the same words.

A peer's key serves for both, as the ciphersuite's key is made as one of Ed25519. The nonces of the
two cannot meet: that of a proof is hashed from a point of 32 bytes, and everything that is signed
begins with a domain and is never as short (`wire.signing.separated`).
"""

import hashlib

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)
from nacl.exceptions import CryptoError

from wire.content import PeerId
from wire.errors import BadSignature
from wire.signing import SigningKey

PROOF_BYTES = 80
OUTPUT_BYTES = 64
_POINT_BYTES = 32
_CHALLENGE_BYTES = 16
_SUITE = b"\x03"
# The field's prime, and the order of the group.
_PRIME = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493


def prove(key: SigningKey, words: bytes) -> bytes:
    """The proof of this key's output for `words`, PROOF_BYTES long; always the same one."""
    scalar, nonce_key = _expanded(key)
    point = _point_of(key.peer, words)
    gamma = crypto_scalarmult_ed25519_noclamp(scalar, point)
    nonce = crypto_core_ed25519_scalar_reduce(hashlib.sha512(nonce_key + point).digest())
    challenge = _challenge(
        key.peer,
        point,
        gamma,
        crypto_scalarmult_ed25519_base_noclamp(nonce),
        crypto_scalarmult_ed25519_noclamp(nonce, point),
    )
    product = crypto_core_ed25519_scalar_mul(_scalar(challenge), scalar)
    return gamma + challenge + crypto_core_ed25519_scalar_add(product, nonce)


def output_of(peer: PeerId, words: bytes, proof: bytes) -> bytes:
    """The output of a peer's key for `words`, OUTPUT_BYTES long; BadSignature if the proof is none.

    Points that are not encoded in the one way, not on the curve, or not of the main subgroup are
    refused, whether they are the key or in the proof.
    """
    try:
        return _checked(peer, words, proof)
    except CryptoError as error:
        raise BadSignature(f"no proof of a random value by {peer.short}") from error


def _checked(peer: PeerId, words: bytes, proof: bytes) -> bytes:
    gamma, challenge, response = proof[:32], proof[32:48], proof[48:]
    if len(proof) != PROOF_BYTES or int.from_bytes(response, "little") >= _ORDER:
        raise BadSignature(f"no proof of a random value by {peer.short}: it is malformed")
    point, factor = _point_of(peer, words), _scalar(challenge)
    # Multiplying refuses every point that is not a canonical one of the main subgroup.
    left = crypto_core_ed25519_sub(
        crypto_scalarmult_ed25519_base_noclamp(response),
        crypto_scalarmult_ed25519_noclamp(factor, peer),
    )
    right = crypto_core_ed25519_sub(
        crypto_scalarmult_ed25519_noclamp(response, point),
        crypto_scalarmult_ed25519_noclamp(factor, gamma),
    )
    if _challenge(peer, point, gamma, left, right) != challenge:
        raise BadSignature(f"no proof of a random value by {peer.short}")
    return hashlib.sha512(_SUITE + b"\x03" + _times_eight(gamma) + b"\x00").digest()


def _point_of(peer: PeerId, words: bytes) -> bytes:
    """The point that words stand for under a key: the first of many tries that is on the curve."""
    for attempt in range(256):
        tried = hashlib.sha512(_SUITE + b"\x01" + peer + words + bytes([attempt, 0])).digest()
        found = tried[:_POINT_BYTES]
        if int.from_bytes(found, "little") & (2**255 - 1) >= _PRIME:
            continue
        try:
            return _times_eight(found)
        except CryptoError:
            continue
    raise BadSignature("these words stand for no point")


def _times_eight(point: bytes) -> bytes:
    for _ in range(3):
        point = crypto_core_ed25519_add(point, point)
    return point


def _challenge(peer: PeerId, *points: bytes) -> bytes:
    said = _SUITE + b"\x02" + peer + b"".join(points) + b"\x00"
    return hashlib.sha512(said).digest()[:_CHALLENGE_BYTES]


def _scalar(challenge: bytes) -> bytes:
    return challenge + bytes(_POINT_BYTES - _CHALLENGE_BYTES)


def _expanded(key: SigningKey) -> tuple[bytes, bytes]:
    """The scalar of an Ed25519 key (RFC 8032, 5.1.5), and what its nonces are hashed from."""
    hashed = hashlib.sha512(key.seed).digest()
    low = int.from_bytes(hashed[:32], "little")
    scalar = (low & ~7 & (2**254 - 1) | 2**254) % _ORDER
    return scalar.to_bytes(32, "little"), hashed[32:]
