"""Signatures: Ed25519, separated by domain, over bytes that are kept as they were signed.

Two libraries stand behind this. `cryptography` (OpenSSL) is the reference: what it accepts is a
signature here. libsodium takes half the time and accepts less: no keys of small order, for one. So
libsodium accepts, and only `cryptography` refuses: what libsodium does not take is asked of the
reference, and all peers agree about every signature, whatever they have installed.
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign, crypto_sign_open
from nacl.exceptions import CryptoError

from wire.content import PeerId
from wire.errors import BadSignature, Malformed

SIGNATURE_BYTES = 64
_SEED_BYTES = 32

# Whether a signature of 64 bytes by a key of 32 bytes is one of these words.
Verifier = Callable[[bytes, bytes, bytes], bool]


class SigningKey:
    """A peer's private key. It never leaves the peer's state folder."""

    __slots__ = ("_expanded", "_private", "peer", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _SEED_BYTES:
            raise Malformed(f"a key's seed has {_SEED_BYTES} bytes, not {len(seed)}")
        self.seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.peer = PeerId(self._private.public_key().public_bytes_raw())
        self._expanded = seed + self.peer

    def sign(self, domain: str, body: bytes) -> bytes:
        """64 bytes that bind `body`, in the sense `domain` gives it, to this key."""
        # Ed25519 is deterministic: both libraries write the same bytes.
        return crypto_sign(separated(domain, body), self._expanded)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey(of {self.peer})"


def check_signature(peer: PeerId, domain: str, body: bytes, signature: bytes) -> None:
    """BadSignature unless `peer` signed `body` in `domain`."""
    words = separated(domain, body)
    # The length comes first: libsodium is given signature and words as one piece.
    if len(signature) == SIGNATURE_BYTES and _holds(peer, words, signature):
        return
    raise BadSignature(f"not signed by {peer.short} as {domain}")


def separated(domain: str, body: bytes) -> bytes:
    """The very bytes that are signed: `body` in the sense that `domain` gives it."""
    # The zero byte ends the domain, so that no body can continue one domain into another.
    return b"baton/1/" + domain.encode() + b"\0" + body


def openssl_accepts(key: bytes, words: bytes, signature: bytes) -> bool:
    """What the reference says."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, words)
    except (InvalidSignature, ValueError):
        return False
    return True


def libsodium_accepts(key: bytes, words: bytes, signature: bytes) -> bool:
    """What libsodium says; only for a signature of exactly 64 bytes."""
    try:
        crypto_sign_open(signature + words, key)
    except (CryptoError, ValueError):
        return False
    return True


def is_key(key: PeerId) -> bool:
    """Whether somebody can have the private key: it is a point of the main subgroup."""
    return bool(crypto_core_ed25519_is_valid_point(bytes(key)))


# Made with knowledge of the key: R has a part of order two. It satisfies the equation times eight,
# which some libraries check instead (and a later libsodium may), and not the equation itself.
_ONLY_TIMES_EIGHT = (
    bytes.fromhex("50584106c66171dbe6901bd187252a0d704a02a1080f80c486575d07e5e4b4fe"),
    b"one equation, not eight",
    bytes.fromhex(
        "85b3f2ac54bb21b92ad954b2cc4a6b845462885097801f5f6ae75a0920b57914"
        "45cfd818a6c5cbba643647e403e6a2b0471279c352554e5eee93ac733e465808"
    ),
)


def verifier_with(fast: Verifier) -> Verifier:
    """`fast` before the reference; the reference alone if `fast` accepts what that refuses."""
    if fast(*_ONLY_TIMES_EIGHT):
        return openssl_accepts
    return lambda *signed: fast(*signed) or openssl_accepts(*signed)


_holds = verifier_with(libsodium_accepts)
