"""Signatures: Ed25519, separated by domain, over bytes that are kept as they were signed."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from wire.content import PeerId
from wire.errors import BadSignature, Malformed

SIGNATURE_BYTES = 64
_SEED_BYTES = 32


class SigningKey:
    """A peer's private key. It never leaves the peer's state folder."""

    __slots__ = ("_private", "peer", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _SEED_BYTES:
            raise Malformed(f"a key's seed has {_SEED_BYTES} bytes, not {len(seed)}")
        self.seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.peer = PeerId(self._private.public_key().public_bytes_raw())

    def sign(self, domain: str, body: bytes) -> bytes:
        """64 bytes that bind `body`, in the sense `domain` gives it, to this key."""
        return self._private.sign(separated(domain, body))

    def __repr__(self) -> str:
        return f"SigningKey(of {self.peer})"


def check_signature(peer: PeerId, domain: str, body: bytes, signature: bytes) -> None:
    """BadSignature unless `peer` signed `body` in `domain`."""
    try:
        Ed25519PublicKey.from_public_bytes(peer).verify(signature, separated(domain, body))
    except (InvalidSignature, ValueError) as error:
        raise BadSignature(f"not signed by {peer.short} as {domain}") from error


def separated(domain: str, body: bytes) -> bytes:
    """The very bytes that are signed: `body` in the sense that `domain` gives it."""
    # The zero byte ends the domain, so that no body can continue one domain into another.
    return b"baton/1/" + domain.encode() + b"\0" + body
