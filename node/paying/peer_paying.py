"""Paying and being paid at one peer of a network with credits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from node.ledger.wallet import Wallet
from node.paying.earning_channels import EarningChannels
from node.paying.own_lines import OwnLines
from node.paying.own_tariff import OwnTariff
from node.paying.payer import Payer
from node.paying.paying_channels import PayingChannels
from node.paying.relay_bytes import RelayPayer
from node.paying.relay_till import RelayTill
from node.paying.request_vouchers import RequestVouchers
from node.paying.settling_up import SettlingUp
from node.paying.tariffs import Tariffs
from node.paying.till import Till
from p2p.blobs import Blobs
from wire.payment_message import Pay


@dataclass(slots=True)
class PeerPaying:
    """Made by `open_paying`."""

    payer: Payer
    till: Till
    own: OwnTariff
    request_vouchers: RequestVouchers
    relays: RelayPayer

    def statistics(self) -> Mapping[str, Any]:
        """For `status`."""
        paying, earning = self.payer.channels, self.till.channels
        used = (*paying.by_peer.values(), *paying.by_gateway.values())
        return {
            "channels": len(used),
            "spent": sum(it.charged for it in used),
            "promised": sum(it.signed for it in used),
            "earning_channels": len(earning.by_name),
            "earned": sum(min(it.charged, it.highest) for it in earning.by_name.values()),
            # For bytes that relays passed on.
            "relays_paid": sum(it.relayed for it in used),
            "unredeemed": sum(it.unredeemed for it in earning.by_name.values()),
            "vouchers_signed": paying.vouchers,
            "vouchers_taken": earning.vouchers,
            "orders": paying.orders + earning.orders,
            "refused_unpaid": self.till.unpaid,
            "relays": self.relays.as_map(),
        }


async def open_paying(
    blobs: Blobs, own: OwnTariff, wallet: Wallet, nursery: trio.Nursery, relay_pay_max: int = 0
) -> PeerPaying:
    """The two sides of one peer; its own prices are known to it when this returns.

    Relays are paid up to `relay_pay_max` millionths for a million KiB.
    """
    peers = blobs.peers
    paying = PayingChannels(peers, own.store, wallet, nursery)
    paying.load()
    earning = EarningChannels(peers, own.store, wallet, own)
    earning.load()
    payer = Payer(peers, Tariffs(blobs, own.genesis.id, nursery), paying)
    settling_up, relays = SettlingUp(payer), RelayPayer(payer, relay_pay_max)
    # Nobody is about to say what he opened.
    await settling_up.find_forgotten(at_once=True)
    peers.handlers[Pay] = earning.on_pay
    peers.relay_cost, peers.dialing.skips = relays.relay_cost, relays.are_dear
    await own.refresh()
    if peers.relaying.free is not None:
        peers.relaying.till = RelayTill(earning)
    if own.typed:
        nursery.start_soon(own.run)
    nursery.start_soon(earning.redeem_forever)
    nursery.start_soon(earning.keep_forever)
    nursery.start_soon(settling_up.reclaim_forever)
    nursery.start_soon(settling_up.keep_forever)
    nursery.start_soon(relays.run)
    nursery.start_soon(OwnLines(peers).run)
    till, vouchers = Till(peers.me, own, earning), RequestVouchers(paying)
    return PeerPaying(payer, till, own, vouchers, relays)
