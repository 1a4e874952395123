"""Apps: who may ask at a gateway on the word of another peer, the app's owner.

An owner gives out keys. A gateway that is shown one names its hash to the owner's peer, and is told
what the key may do, signed. Keys that are revoked stand in one list of the owner, whose sequence
number only grows.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Amount, Balance
from wire.content import PeerId
from wire.errors import Malformed
from wire.kinds import Kind
from wire.message_base import Message
from wire.schema import Between, Digest, Int, Name, Omitted, Record
from wire.signed import SignedRecord

HASH_BYTES = 32
PER_MINUTE_MAX = 1_000_000
# Requests of which one message says what they came to.
DRAWN_MAX = 64


class AppMode(IntEnum):
    """What opens an app's door. Append only."""

    # A key alone.
    OPEN = 0
    # A key, whose budget each call takes its price from.
    CALL = 1
    # An account that has held so many credits for two checkpoints.
    HOLD = 2
    # An account that has paid for a period.
    SUBSCRIPTION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPolicy(SignedRecord):
    """What an app asks of those who use it, in millionths; its owner signs it.

    `users_pay`: what their tasks cost is paid by those who use it, with each request.
    """

    KIND: ClassVar[Kind] = Kind.APP_POLICY
    SIZE_BYTES_MAX: ClassVar[int] = limits.APP_RECORD_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    network: Name
    app: Name
    mode: AppMode
    price: Balance
    hold: Balance
    users_pay: Annotated[bool, Omitted(False)] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AppKey(SignedRecord):
    """What one key of an app may do at one gateway; the app's owner signs it.

    `key` is the hash of the secret. `share` is how much of its `budget` this gateway may let it
    spend in all, in millionths, so that two gateways never spend the same. `account` is whose
    credits open a door that asks to hold some.
    """

    KIND: ClassVar[Kind] = Kind.APP_KEY
    SIZE_BYTES_MAX: ClassVar[int] = limits.APP_RECORD_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    network: Name
    app: Name
    key: Digest
    gateway: PeerId
    until_wall_s: Int
    per_minute: Annotated[int, Between(1, PER_MINUTE_MAX)]
    budget: Balance
    share: Balance
    account: PeerId | None

    def check(self) -> None:
        """Malformed if more is shared out than there is."""
        if self.share > self.budget:
            raise Malformed("a share of a budget is no more than the budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedKeys(SignedRecord):
    """An owner's word which keys of all its apps are revoked: `digest` is of their hashes."""

    KIND: ClassVar[Kind] = Kind.REVOKED_KEYS
    SIZE_BYTES_MAX: ClassVar[int] = limits.APP_RECORD_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    network: Name
    sequence: Int
    told_at_ms: Int
    digest: Digest


AppRecordBytes = Annotated[bytes, Between(1, limits.APP_RECORD_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPayment(Record):
    """Pay for one request with a key: it costs at most `amount`, in millionths.

    `request` is one for each request. `voucher` is the highest of the owner's channel to the asker,
    and `charged` what that channel was charged, with what is held for requests under way.
    """

    request: Digest
    amount: Amount
    charged: Balance
    voucher: Annotated[bytes, Between(1, limits.VOUCHER_BYTES_MAX)] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppDrawn(Record):
    """What a request came to that its app's owner has paid for."""

    request: Digest
    amount: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAppKey(Message):
    """What may the key with this hash do here, with `share` of its budget in all?

    `spent` is what it has spent here in all, and `calls` how many it made since this was asked
    last. `pay` asks the owner to pay for a request, and `drawn` says what earlier ones came to.
    """

    KIND: ClassVar[Kind] = Kind.ASK_APP_KEY
    key: Digest
    share: Balance
    spent: Balance
    calls: Int
    pay: Annotated[tuple[AppPayment, ...], Between(0, 1), Omitted(())] = ()
    drawn: Annotated[tuple[AppDrawn, ...], Between(0, DRAWN_MAX), Omitted(())] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppKeyTold(Message):
    """A signed AppPolicy, and a signed AppKey for the gateway that asks.

    `voucher` pays for the request that was asked about; `settlement` shows its channel.
    """

    KIND: ClassVar[Kind] = Kind.APP_KEY_TOLD
    policy: AppRecordBytes
    key: AppRecordBytes
    voucher: Annotated[bytes, Between(0, limits.VOUCHER_BYTES_MAX), Omitted(b"")] = b""
    settlement: Annotated[bytes, Between(0, limits.SETTLEMENT_BYTES_MAX), Omitted(b"")] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRevokedKeys(Message):
    """Which keys of your apps are revoked? I have the list with this number; 0: none."""

    KIND: ClassVar[Kind] = Kind.ASK_REVOKED_KEYS
    sequence: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedKeysTold(Message):
    """A signed RevokedKeys, and its hashes one after the other; None if the asker has them."""

    KIND: ClassVar[Kind] = Kind.REVOKED_KEYS_TOLD
    head: AppRecordBytes
    hashes: Annotated[bytes, Between(0, limits.REVOKED_KEYS_BYTES_MAX)] | None

    def check(self) -> None:
        """Malformed unless it is a whole number of hashes."""
        if self.hashes is not None and len(self.hashes) % HASH_BYTES:
            raise Malformed(f"hashes of keys have {HASH_BYTES} bytes each")


MESSAGES = (AskAppKey, AppKeyTold, AskRevokedKeys, RevokedKeysTold)


def joined(hashes: Iterable[bytes]) -> bytes:
    """The hashes of keys in order, one after the other."""
    return b"".join(sorted(hashes))


def split(hashes: bytes) -> frozenset[bytes]:
    """The hashes that `joined` made one of."""
    return frozenset(hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES))


def list_digest(hashes: bytes) -> bytes:
    """What a list of hashes, as `joined` makes it, is named by in a RevokedKeys."""
    return hashlib.sha256(hashes).digest()
