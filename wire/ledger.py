"""The ledger's records: genesis, orders of accounts, and what members sign about them.

An account is a key, and only its owner's orders take from it. A member votes for one order of an
account at a time. Votes of more than two thirds of the weight are a certificate; acknowledgements
of as many, by members that have applied it, mean that it is settled. Everything that is signed
names the network and the epoch; the kind of the record is its purpose.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from wire import limits
from wire.amount import AMOUNT_MAX, Amount, Balance
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Oversize
from wire.jury import CaseNotice, JurorFinding, JurySteps, SealedFinding, ShownCase
from wire.kinds import Kind, Role
from wire.motion import Ballot, Motion
from wire.schema import Between, Digest, Int, Name, Omitted, Record
from wire.signed import Signed, SignedRecord
from wire.stake import StakePart

MEMBERS_MAX = limits.LEDGER_MEMBERS_MAX
Epoch = Int
# Of each amount that is redeemed so much goes to the fund.
GROWTH_MILLIONTHS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(Record):
    """A peer that keeps the ledger, and how much its signature weighs."""

    key: PeerId
    weight: Annotated[int, Between(1, 2**32)]


Members = Annotated[tuple[Member, ...], Between(1, MEMBERS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Record):
    """What an account owns from the beginning."""

    account: PeerId
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Genesis(Record):
    """The beginning of a ledger. The content id of its bytes is the name of the network.

    All credits there will ever be are the fund's and the grants'. `account_min` is the least that
    an account is opened with, so that keys that cost nothing fill nobody's disk.
    """

    SIZE_BYTES_MAX: ClassVar[int] = limits.GENESIS_BYTES_MAX

    version: Annotated[int, Between(1, 2**16)]
    name: Name
    nonce: Annotated[bytes, Between(16, 16)]
    epoch_s: Annotated[int, Between(1, 7 * 24 * 3600)]
    account_min: Amount
    fund: Balance
    grants: Annotated[tuple[Grant, ...], Between(0, limits.GRANTS_MAX)]
    members: Members

    def check(self) -> None:
        """Malformed unless keys are in order, each once, and the supply is an amount."""
        for what, keys in (
            ("members", [it.key for it in self.members]),
            ("grants", [it.account for it in self.grants]),
        ):
            if sorted(set(keys)) != keys:
                raise Malformed(f"{what} stand in order of their keys, each once")
        if not 1 <= self.supply <= AMOUNT_MAX:
            raise Malformed(f"a supply of {self.supply} millionths, at most {AMOUNT_MAX}")

    @property
    def supply(self) -> int:
        """All credits of the network, in millionths."""
        return self.fund + sum(it.amount for it in self.grants)

    @property
    def id(self) -> ContentId:
        """The network."""
        return ContentId.of(self.to_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment(Record):
    """So much to that account."""

    to: PeerId
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening(Record):
    """A channel to `payee`: the deposit is locked for it until the end of the epoch `expiry`."""

    payee: PeerId
    deposit: Amount
    expiry: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp(Record):
    """More for a channel of one's own, which may also last longer than before."""

    channel: Digest
    amount: Amount
    expiry: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Redemption(Record):
    """What a payee takes from a channel: up to the total of the payer's voucher, if one is given.

    With `release` the channel ends, and the rest goes back to the payer.
    """

    channel: Digest
    voucher: Annotated[bytes, Between(1, limits.VOUCHER_BYTES_MAX)] | None
    release: bool

    def check(self) -> None:
        if self.voucher is None and not self.release:
            raise Malformed("a redemption has a voucher, or ends the channel, or both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accusation(Record):
    """Evidence against somebody, and what the accuser stands to lose if it comes to nothing.

    The bond goes back at the end of the epoch, unless the evidence takes no stake: then others had
    shown the same before. Whoever copies evidence in the epoch in which it is shown takes nobody's
    bond where that says `with_others`; it is False in ledgers from before this was so.
    """

    evidence: Annotated[bytes, Between(1, limits.ACCUSATION_BYTES_MAX)]
    bond: Amount
    with_others: Annotated[bool, Omitted(False)] = False


def growth_of(redeemed: int, millionths: int = GROWTH_MILLIONTHS) -> int:
    """The part of what is redeemed that goes to the network's fund, for its growth."""
    return redeemed * millionths // 1_000_000


# So much at least is redeemed at once by a voucher that names models: else shares that are rounded
# could come to more than that.
NAMED_REDEMPTION_MIN = 16

_ACTION = Between(0, limits.ACTIONS_MAX)
_PARTS = Between(0, len(Role))
# The lists of an order: a kind of action each.
ACTIONS = (
    *("pay", "open", "top_up", "redeem", "reclaim"),
    *("stake", "unbond", "accuse", "propose", "ballot", "find"),
    "jury",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOrder(SignedRecord):
    """What the owner of an account, who signs, orders; exactly one of the lists is not empty.

    `sequence` counts the orders of an account from 0, over all epochs. An order holds in one epoch.
    Orders of other kinds are further lists.
    """

    KIND: ClassVar[Kind] = Kind.ACCOUNT_ORDER
    SIZE_BYTES_MAX: ClassVar[int] = limits.ACCOUNT_ORDER_BYTES_MAX

    network: ContentId
    epoch: Epoch
    sequence: Int
    pay: Annotated[tuple[Payment, ...], _ACTION, Omitted(())] = ()
    open: Annotated[tuple[Opening, ...], _ACTION, Omitted(())] = ()
    top_up: Annotated[tuple[TopUp, ...], _ACTION, Omitted(())] = ()
    redeem: Annotated[tuple[Redemption, ...], _ACTION, Omitted(())] = ()
    reclaim: Annotated[tuple[Digest, ...], _ACTION, Omitted(())] = ()
    stake: Annotated[tuple[StakePart, ...], _PARTS, Omitted(())] = ()
    unbond: Annotated[tuple[StakePart, ...], _PARTS, Omitted(())] = ()
    accuse: Annotated[tuple[Accusation, ...], Between(0, 1), Omitted(())] = ()
    propose: Annotated[tuple[Motion, ...], Between(0, 1), Omitted(())] = ()
    ballot: Annotated[tuple[Ballot, ...], _ACTION, Omitted(())] = ()
    find: Annotated[tuple[JurorFinding, ...], _ACTION, Omitted(())] = ()
    jury: Annotated[tuple[JurySteps, ...], Between(0, 1), Omitted(())] = ()

    def check(self) -> None:
        """Malformed unless it is of one kind; Oversize if its sum is no amount."""
        if sum(bool(getattr(self, it)) for it in ACTIONS) != 1:
            raise Malformed(f"an order has one kind of action: {', '.join(ACTIONS)}")
        if len(set(self.channels)) != len(self.channels):
            raise Malformed("an order names a channel once")
        roles = [it.role for it in (*self.stake, *self.unbond)]
        if len(set(roles)) != len(roles):
            raise Malformed("an order names a role once")
        if len({it.motion for it in self.ballot}) != len(self.ballot):
            raise Malformed("an order votes on a motion once")
        if len({it.case for it in self.find}) != len(self.find):
            raise Malformed("an order says of a case once what was found")
        if self.spent > AMOUNT_MAX:
            raise Oversize(f"an order of {self.spent} millionths, at most {AMOUNT_MAX}")

    @property
    def action(self) -> str:
        """Which of its lists is not empty, or which step it makes in a case."""
        found = next(it for it in ACTIONS if getattr(self, it))
        return self.jury[0].step if found == "jury" else found

    @property
    def announce(self) -> tuple[CaseNotice, ...]:
        """The case that it announces."""
        return self.jury[0].announce if self.jury else ()

    @property
    def charge(self) -> tuple[ShownCase, ...]:
        """The evidence of a case that it shows."""
        return self.jury[0].charge if self.jury else ()

    @property
    def commit(self) -> tuple[SealedFinding, ...]:
        """What it seals of cases."""
        return self.jury[0].commit if self.jury else ()

    @property
    def channels(self) -> list[bytes]:
        """The channels that it names; it opens others."""
        redeemed = [it.channel for it in self.redeem]
        return [it.channel for it in self.top_up] + redeemed + [*self.reclaim]

    @property
    def spent(self) -> int:
        """What it takes from the account, in millionths."""
        paid = sum(it.amount for it in self.pay) + sum(it.amount for it in self.top_up)
        staked = sum(it.amount for it in self.stake)
        bonds = sum(it.bond for it in self.accuse) + sum(it.bond for it in self.propose)
        bonds += sum(it.bond for it in self.announce)
        return paid + staked + bonds + sum(it.deposit for it in self.open)


def order_digest(order: Signed[AccountOrder]) -> bytes:
    """32 bytes that name an order: of its account and its body, whatever its signature is."""
    return ContentId.of(bytes(order.signer) + order.record.to_bytes()).digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote(SignedRecord):
    """A member's word that it votes for no other order of this account with this sequence."""

    KIND: ClassVar[Kind] = Kind.VOTE
    SIZE_BYTES_MAX: ClassVar[int] = 256

    network: ContentId
    epoch: Epoch
    account: PeerId
    sequence: Int
    order: Digest

    @classmethod
    def of(cls, order: Signed[AccountOrder], digest: bytes | None = None) -> Self:
        """The vote for an order; `digest` is its name, if the caller has it already."""
        record = order.record
        return cls(
            network=record.network,
            epoch=record.epoch,
            account=order.signer,
            sequence=record.sequence,
            order=digest or order_digest(order),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement(SignedRecord):
    """A member's word that it has applied an order, durably, and will name it in its seal."""

    KIND: ClassVar[Kind] = Kind.ACKNOWLEDGEMENT
    SIZE_BYTES_MAX: ClassVar[int] = 256

    network: ContentId
    epoch: Epoch
    order: Digest


Proof = Annotated[bytes, Between(64, limits.ENVELOPE_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures(Record):
    """Signatures of members over one record: bit i of `members` stands for member i of the epoch.

    The proofs stand in the order of the bits.
    """

    members: Annotated[int, Between(1, 2**MEMBERS_MAX - 1)]
    proofs: Annotated[tuple[Proof, ...], Between(1, MEMBERS_MAX)]

    def check(self) -> None:
        if self.members.bit_count() != len(self.proofs):
            raise Malformed(f"{len(self.proofs)} signatures of {self.members.bit_count()} members")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate(Record):
    """An order and the votes for it."""

    SIZE_BYTES_MAX: ClassVar[int] = limits.CERTIFICATE_BYTES_MAX

    order: Annotated[bytes, Between(1, limits.ACCOUNT_ORDER_BYTES_MAX + limits.ENVELOPE_BYTES_MAX)]
    votes: Signatures


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement(Record):
    """A certificate, and that members have applied it: it outlives the epoch."""

    SIZE_BYTES_MAX: ClassVar[int] = limits.SETTLEMENT_BYTES_MAX

    certificate: Annotated[bytes, Between(1, limits.CERTIFICATE_BYTES_MAX)]
    acknowledgements: Signatures


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart(Record):
    """So much of a voucher's total is for work with one model."""

    model: ContentId
    amount: Amount


ModelParts = Annotated[tuple[ModelPart, ...], Between(0, limits.VOUCHER_MODELS_MAX), Omitted(())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher(SignedRecord):
    """A payer's promise out of a channel's deposit. It is cumulative: the highest total counts.

    `tasks` is how many tasks it has paid by then, and `receipt` the last of their receipts.
    `models` say which part of the total was for which model: its author has a share of that.
    """

    KIND: ClassVar[Kind] = Kind.VOUCHER
    SIZE_BYTES_MAX: ClassVar[int] = limits.VOUCHER_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    network: ContentId
    channel: Digest
    total: Amount
    tasks: Int
    receipt: ContentId | None
    models: ModelParts = ()

    def check(self) -> None:
        """Malformed unless models stand in order, each once, and are no more than the total."""
        names = [it.model for it in self.models]
        if sorted(set(names)) != names:
            raise Malformed("the models of a voucher stand in order, each once")
        if sum(it.amount for it in self.models) > self.total:
            raise Malformed("the models of a voucher come to more than its total")
