"""Orders that somebody shows to be settled: the signatures of the ledger's members. Pure."""

from dataclasses import dataclass

from node.ledger.committee import Committee
from node.ledger.committees import Committees
from node.ledger.payment_channel import channel_name
from node.paying.channels import PaidChannel
from wire.content import ContentId, PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.ledger import (
    AccountOrder,
    Acknowledgement,
    Certificate,
    Opening,
    Settlement,
    Vote,
    order_digest,
)
from wire.signed import Signed, open_signed


@dataclass(frozen=True, slots=True)
class ShownOrder:
    """An order that its owner signed, with what is said to be members' signatures about it."""

    order: Signed[AccountOrder]
    certificate: Certificate
    settlement: Settlement

    def check(self, network: ContentId, committee: Committee) -> None:
        """WireError unless it is settled; Refused for an order of another network."""
        record, digest = self.order.record, order_digest(self.order)
        if record.network != network:
            raise Refused("the order is of another network", code=RefusalCode.STRANGER)
        committee.check(Vote.of(self.order, digest), self.certificate.votes)
        applied = Acknowledgement(network=network, epoch=record.epoch, order=digest)
        committee.check(applied, self.settlement.acknowledgements)


def read_shown(raw: bytes) -> ShownOrder:
    """The order in a settlement, which is not checked yet; WireError."""
    settlement = Settlement.from_bytes(raw)
    certificate = Certificate.from_bytes(settlement.certificate)
    return ShownOrder(open_signed(certificate.order, AccountOrder), certificate, settlement)


def opened_by(order: Signed[AccountOrder], settlement: bytes) -> list[PaidChannel]:
    """The channels that a settled order has opened, as nothing was paid in them."""
    digest = order_digest(order)
    return [
        PaidChannel(
            *(opening.payee, channel_name(digest, number), opening.deposit, opening.expiry),
            settlement,
            is_new=True,
        )
        for number, opening in enumerate(order.record.open)
    ]


def opening_in(
    raw: bytes, committees: Committees, payer: PeerId, payee: PeerId, name: bytes
) -> Opening:
    """What opens this channel in a settled order; WireError or Refused if it is none."""
    shown = read_shown(raw)
    order, digest = shown.order, order_digest(shown.order)
    count = len(order.record.open)
    number = next((it for it in range(count) if channel_name(digest, it) == name), None)
    opening = None if number is None else order.record.open[number]
    if order.signer != payer or opening is None or opening.payee != payee:
        raise Refused("the order opens no such channel to this peer", code=RefusalCode.MALFORMED)
    shown.check(committees.genesis.id, committees.of(order.record.epoch))
    return opening
