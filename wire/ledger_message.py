"""What peers and members say to each other about the ledger."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Amount, Balance
from wire.checkpoint import DIGEST_BYTES, ORDER_BUCKETS, Buckets
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.kinds import Kind
from wire.ledger import Epoch
from wire.message_base import Message
from wire.schema import Between, Digest, Int, Omitted
from wire.stake import LeavingParts, StakeParts

SignedOrderBytes = Annotated[
    bytes, Between(1, limits.ACCOUNT_ORDER_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)
]
CertificateBytes = Annotated[bytes, Between(1, limits.CERTIFICATE_BYTES_MAX)]
SmallSigned = Annotated[bytes, Between(1, 256 + limits.ENVELOPE_BYTES_MAX)]
Digests = Annotated[bytes, Between(0, limits.BUCKET_ORDERS_MAX * DIGEST_BYTES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOrder(Message):
    """The owner of an account asks a member to vote for an order."""

    KIND: ClassVar[Kind] = Kind.SUBMIT_ORDER
    order: SignedOrderBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Voted(Message):
    """The member's vote; it is durable."""

    KIND: ClassVar[Kind] = Kind.VOTED
    vote: SmallSigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm(Message):
    """Whoever has a certificate asks a member to apply it."""

    KIND: ClassVar[Kind] = Kind.CONFIRM
    certificate: CertificateBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged(Message):
    """The member has applied it."""

    KIND: ClassVar[Kind] = Kind.ACKNOWLEDGED
    acknowledgement: SmallSigned


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAccount(Message):
    """How does an account stand?"""

    KIND: ClassVar[Kind] = Kind.ASK_ACCOUNT
    account: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState(Message):
    """An account as a member sees it now: nobody signs for it.

    `sequence` is that of its next order, `deposits` what it has locked in channels, `stake` and
    `leaving` what it has staked for roles, and what is given back of that and when.
    """

    KIND: ClassVar[Kind] = Kind.ACCOUNT_STATE
    epoch: Epoch
    sequence: Int
    balance: Balance
    deposits: Balance
    channels: Int
    stake: StakeParts = ()
    leaving: LeavingParts = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochNews(Message):
    """Members tell each other what they have signed about the end of an epoch.

    `buckets` say which orders the speaker has applied; `signed` are its seal, its proposals and its
    votes. Answered with the same.
    """

    KIND: ClassVar[Kind] = Kind.EPOCH_NEWS
    epoch: Epoch
    buckets: Buckets
    signed: Annotated[
        tuple[Annotated[bytes, Between(1, limits.PROPOSAL_BYTES_MAX)], ...],
        Between(0, limits.EPOCH_NEWS_MAX),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskBucket(Message):
    """Which orders of an epoch lie in this bucket?

    In the epoch that runs it may name one list by its digest: whoever has it answers with that.
    """

    KIND: ClassVar[Kind] = Kind.ASK_BUCKET
    epoch: Epoch
    bucket: Annotated[int, Between(0, ORDER_BUCKETS - 1)]
    digest: Annotated[bytes, Between(0, DIGEST_BYTES), Omitted(b"")] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketOrders(Message):
    """The digests of the orders, in order, one after the other."""

    KIND: ClassVar[Kind] = Kind.BUCKET_ORDERS
    orders: Digests

    def check(self) -> None:
        """Malformed if they are not a whole number of digests."""
        if len(self.orders) % DIGEST_BYTES:
            raise Malformed(f"digests have {DIGEST_BYTES} bytes each")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCertificates(Message):
    """The certificates of these orders of an epoch, as many as fit one message."""

    KIND: ClassVar[Kind] = Kind.ASK_CERTIFICATES
    epoch: Epoch
    orders: Annotated[bytes, Between(DIGEST_BYTES, limits.CERTIFICATES_ASKED_MAX * DIGEST_BYTES)]

    def check(self) -> None:
        """Malformed if they are not a whole number of digests."""
        if len(self.orders) % DIGEST_BYTES:
            raise Malformed(f"digests have {DIGEST_BYTES} bytes each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates(Message):
    """Those of them that the member has, in the order in which they were asked for."""

    KIND: ClassVar[Kind] = Kind.CERTIFICATES
    certificates: Annotated[tuple[CertificateBytes, ...], Between(0, limits.CERTIFICATES_ASKED_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCheckpoint(Message):
    """How did this epoch end?"""

    KIND: ClassVar[Kind] = Kind.ASK_CHECKPOINT
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReply(Message):
    """The checkpoint; None if the epoch has not ended. `epoch` is the one that runs now."""

    KIND: ClassVar[Kind] = Kind.CHECKPOINT_REPLY
    epoch: Epoch
    checkpoint: Annotated[bytes, Between(1, limits.CHECKPOINT_BYTES_MAX)] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCredits(Message):
    """A newcomer asks a peer to pay the key that calls some credits of this network.

    `solution` is of the work that a sponsor asked for, and empty before it did.
    """

    KIND: ClassVar[Kind] = Kind.ASK_CREDITS
    network: ContentId
    solution: Annotated[bytes, Between(0, 16), Omitted(b"")] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditsGiven(Message):
    """The sponsor has paid so many millionths by an order that is settled."""

    KIND: ClassVar[Kind] = Kind.CREDITS_GIVEN
    amount: Amount
    order: Digest
