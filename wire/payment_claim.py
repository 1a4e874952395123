"""What a payer of credits says of a settled transfer to a gateway: that it is meant as a payment.

Members of the ledger see every transfer; with this only its owner can show one as a payment.
"""

import base64
import binascii
from collections.abc import Mapping

from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.signing import SigningKey, check_signature

# A transfer that is settled before; a voucher of a channel, of which nothing is settled.
EXACT, BATCH = "exact", "batch-settlement"
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


def bytes_in(payload: Mapping[str, object], name: str, size_bytes_max: int) -> bytes:
    """The bytes that a payment's payload has under this name, in base64; Malformed."""
    text = payload.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= 2 * size_bytes_max:
        raise Malformed(f"the payload has no {name}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{name} is not base64") from error
