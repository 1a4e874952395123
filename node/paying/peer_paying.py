"""Paying and being paid at one peer of a network with credits."""

from dataclasses import dataclass

import trio

from node.paying.own_tariff import OwnTariff
from node.paying.payer import Payer
from node.paying.tariffs import Tariffs
from node.paying.till import Till
from p2p.blobs import Blobs


@dataclass(slots=True)
class PeerPaying:
    """Made by `open_paying`."""

    payer: Payer
    till: Till
    own: OwnTariff


async def open_paying(blobs: Blobs, own: OwnTariff, nursery: trio.Nursery) -> PeerPaying:
    """The two sides of one peer; its own prices are known to it when this returns."""
    payer = Payer(blobs.peers, Tariffs(blobs, own.genesis.id), nursery)
    await own.refresh()
    if own.typed:
        nursery.start_soon(own.run)
    return PeerPaying(payer, Till(blobs.peers.me, own), own)
