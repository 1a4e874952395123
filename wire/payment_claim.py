"""What a payer of credits says of a settled transfer to a gateway: that it is meant as a payment.

Members of the ledger see every transfer; with this only its owner can show one as a payment.
"""

from wire.content import ContentId, PeerId
from wire.signing import SigningKey, check_signature

EXACT = "exact"
# What x402 calls an asset.
CREDITS = "credits"
_DOMAIN = "payment_claim"
_NETWORK_PREFIX = "baton:"


def network_name(genesis: ContentId) -> str:
    """What x402's documents call the network with this genesis: 32 characters of its hash."""
    return _NETWORK_PREFIX + genesis.digest.hex()[:32]


def sign_claim(key: SigningKey, order: bytes) -> bytes:
    """The payer's word about the order with this digest."""
    return key.sign(_DOMAIN, order)


def check_claim(payer: PeerId, order: bytes, claim: bytes) -> None:
    """BadSignature unless the payer signed it."""
    check_signature(payer, _DOMAIN, order, claim)
