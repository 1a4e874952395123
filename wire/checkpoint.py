"""The end of an epoch: what each member has applied, one agreement on it, and the checkpoint.

The orders of an epoch lie in ORDER_BUCKETS buckets, by the first bits of their digests. A list of
digests, one for each bucket, tells two members in which they differ, and what a list of orders has
to hash to.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Balance
from wire.content import ContentId
from wire.errors import Malformed
from wire.kinds import Kind
from wire.ledger import Epoch, Members, Signatures
from wire.schema import Between, Digest, Int, Omitted, Record
from wire.signed import SignedRecord
from wire.usage import UseDigest
from wire.vrf import PROOF_BYTES

ORDER_BUCKETS = 16
DIGEST_BYTES = 32
Buckets = Annotated[bytes, Between(ORDER_BUCKETS * DIGEST_BYTES, ORDER_BUCKETS * DIGEST_BYTES)]
HeaderBytes = Annotated[bytes, Between(1, limits.CHECKPOINT_HEADER_BYTES_MAX)]
Round = Annotated[int, Between(0, 2**32)]


def bucket_of(order: bytes) -> int:
    """The bucket in which an order's digest lies."""
    return order[0] * ORDER_BUCKETS >> 8


def bucket_digest(orders: Iterable[bytes]) -> bytes:
    """The digest of the orders of one bucket, in whatever order they come."""
    return hashlib.sha256(b"".join(sorted(orders))).digest()


def buckets_of(orders: Iterable[bytes]) -> bytes:
    """The digests of all buckets of these orders, one after the other."""
    buckets: list[list[bytes]] = [[] for _ in range(ORDER_BUCKETS)]
    for order in orders:
        buckets[bucket_of(order)].append(order)
    return b"".join(map(bucket_digest, buckets))


def digest_in(buckets: bytes, bucket: int) -> bytes:
    """The digest of one bucket."""
    return buckets[bucket * DIGEST_BYTES : (bucket + 1) * DIGEST_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal(SignedRecord):
    """A member's word that in this epoch it has applied these orders, and applies no more."""

    KIND: ClassVar[Kind] = Kind.SEAL
    SIZE_BYTES_MAX: ClassVar[int] = limits.SEAL_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    network: ContentId
    epoch: Epoch
    count: Int
    buckets: Buckets
    # Where a jury waits to be drawn: the proof of this member's secret (`wire.vrf`), which its key
    # alone gives, and no other one.
    secret: Annotated[bytes, Between(0, PROOF_BYTES), Omitted(b"")] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class JuryDraw(Record):
    """What the end of an epoch says of juries.

    `secrets_of` are the members, as bits, whose secrets are to draw juries at the next end;
    `beacon` is what the secrets of this one came to, empty where one was missing; `juries` is the
    digest of the juries that it drew (`wire.jury`).
    """

    secrets_of: Annotated[int, Between(0, 2**limits.LEDGER_MEMBERS_MAX - 1)]
    beacon: Annotated[bytes, Between(0, DIGEST_BYTES), Omitted(b"")] = b""
    juries: Annotated[bytes, Between(0, DIGEST_BYTES), Omitted(b"")] = b""


NO_DRAW = JuryDraw(secrets_of=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointHeader(Record):
    """The state of the ledger at the end of an epoch, and which orders have led to it.

    `previous` is the id of the header before, None at the end of epoch 0. `members` keep the next
    epoch.
    """

    SIZE_BYTES_MAX: ClassVar[int] = limits.CHECKPOINT_HEADER_BYTES_MAX

    network: ContentId
    epoch: Epoch
    previous: ContentId | None
    count: Int
    buckets: Buckets
    state: Digest
    balances: Balance
    deposits: Balance
    fund: Balance
    members: Members
    # What all accounts have staked, and what the rows of that hash to (`wire.stake.table_digest`):
    # who does not keep the ledger checks a table of stakes by it.
    stakes: Annotated[Balance, Omitted(0)] = 0
    stake_table: Annotated[bytes, Between(0, DIGEST_BYTES), Omitted(b"")] = b""
    # Of what was redeemed in the epoch: `wire.usage`.
    usage: UseDigest = b""
    # What the authors of open motions have put up.
    bonds: Annotated[Balance, Omitted(0)] = 0
    # Where a jury waits, or one was drawn.
    draw: Annotated[tuple[JuryDraw, ...], Between(0, 1), Omitted(())] = ()

    def check(self) -> None:
        """Malformed unless exactly the first has none before it, and digests are whole."""
        if (self.previous is None) is not (self.epoch == 0):
            raise Malformed("every checkpoint but the first names the one before")
        if len(self.usage) not in (0, DIGEST_BYTES):
            raise Malformed(f"a digest has {DIGEST_BYTES} bytes")

    @property
    def jury_draw(self) -> JuryDraw:
        """What it says of juries; nothing where it does not."""
        return self.draw[0] if self.draw else NO_DRAW

    @property
    def supply(self) -> int:
        """All credits there are, in millionths."""
        return self.balances + self.deposits + self.fund + self.stakes + self.bonds

    @property
    def id(self) -> ContentId:
        """What members agree on."""
        return ContentId.of(self.to_bytes())


class AgreementPhase(IntEnum):
    """The two votes of a round."""

    PREVOTE = 0
    PRECOMMIT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementVote(SignedRecord):
    """A member's vote in one round on the end of an epoch; `header` is None against all."""

    KIND: ClassVar[Kind] = Kind.AGREEMENT_VOTE
    SIZE_BYTES_MAX: ClassVar[int] = 256

    network: ContentId
    epoch: Epoch
    round: Round
    phase: AgreementPhase
    header: ContentId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal(SignedRecord):
    """What the leader of a round proposes: a header, and the seals whose orders it has.

    If it was proposed before, `valid_round` is the round in which `prevotes` were for it.
    """

    KIND: ClassVar[Kind] = Kind.PROPOSAL
    SIZE_BYTES_MAX: ClassVar[int] = limits.PROPOSAL_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    network: ContentId
    epoch: Epoch
    round: Round
    header: HeaderBytes
    seals: Annotated[
        tuple[Annotated[bytes, Between(1, limits.SEAL_BYTES_MAX)], ...],
        Between(1, limits.LEDGER_MEMBERS_MAX),
    ]
    valid_round: Round | None
    prevotes: Signatures | None

    def check(self) -> None:
        """Malformed unless an earlier round and its prevotes come together."""
        if (self.valid_round is None) is not (self.prevotes is None):
            raise Malformed("a round and its prevotes come together")
        if self.valid_round is not None and self.valid_round >= self.round:
            raise Malformed("prevotes are of an earlier round")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Record):
    """A header, and the precommits of one round for it by more than two thirds of the weight."""

    SIZE_BYTES_MAX: ClassVar[int] = limits.CHECKPOINT_BYTES_MAX

    header: HeaderBytes
    round: Round
    signatures: Signatures
