"""One Pay to a payee, and what its answer says of the channel."""

import trio

from node.paying.channels import PaidChannel
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.ledger import Voucher
from wire.payment_message import Paid, Pay
from wire.signed import open_signed

CALL_DEADLINE_S = 10.0


async def pay(
    peers: Peers, channel: PaidChannel, named: ContentId, voucher: bytes | None, *, shows: bool
) -> Paid:
    """Show a payee a voucher, or ask how a channel stands; it `shows` that it was opened."""
    relays = channel.pays_relays
    async with peers.call(channel.payee, deadline_s=stretched(CALL_DEADLINE_S)) as call:
        await call.send(
            Pay(
                channel=channel.name,
                tariff=named,
                voucher=voucher,
                settlement=channel.settlement if shows else None,
                relays=relays,
            )
        )
        paid = await call.expect(Paid)
    channel.relays = relays
    return paid


def hear(channel: PaidChannel, paid: Paid, payer: PeerId, network: ContentId) -> None:
    """Take in what the payee has; WireError for a voucher that is not the payer's."""
    channel.told_at_s = trio.current_time()
    if paid.voucher is None:
        channel.hear(paid.charged, None, paid.relayed)
        return
    found = open_signed(paid.voucher, Voucher)
    if (found.signer, found.record.network, found.record.channel) != (payer, network, channel.name):
        raise Malformed("a voucher that is not this peer's for this channel")
    channel.hear(paid.charged, found.record, paid.relayed)
