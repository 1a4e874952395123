"""Two homes behind relays that ask for credits, in one process: what tests of them share."""

from random import Random
from typing import Any

import trio

from node.paying.channels import EarningChannel, PaidChannel
from node.paying_config import TypedPrices, read_prices
from node.peer import Node
from p2p.over_libp2p import Router, Site
from p2p.reachability import Reach
from tests.ledger.test_members import genesis_of
from tests.node.network import I, Network, S
from tests.p2p.internet import home, server
from tests.p2p.transports import until
from wire.kinds import Role

# A credit for a million KiB: 1,024 millionths a MiB.
PRICE = read_prices(["relay=1/1m"], None)
A_MIB, A_MIB_COSTS = 1 << 20, 1024
# Peers by number: servers come first, and the first of them keeps the ledger.
ASKER, KEPT = 10, 11


async def add(network: Network, number: int, site: Site, *roles: Role, **options: Any) -> Node:
    """A peer that stands there."""
    network.memory.routers.put(str(network.key(number).peer), site)
    listen = (f"/ip4/{site.host}/tcp/4747",)
    options = {"genesis": genesis_of(network, 1, ASKER), "models": (), "listen": listen} | options
    return await network.start(*roles, number=number, **options)


async def relays(network: Network, *prices: TypedPrices) -> list[Node]:
    """Servers with these prices, which have found out that they are open."""
    found = []
    for number, asked in enumerate(prices):
        roles = (S, Role.LEDGER) if not number else (S,)
        found.append(await add(network, number, server(number + 1), *roles, prices=asked))
    reaches = [it.peers.dialing_back.reachability for it in found]
    await until(lambda: len(found) == 1 or all(it.reach is Reach.OPEN for it in reaches), 120)
    return found


async def homes(network: Network, count: int = 1, **options: Any) -> tuple[Node, Node]:
    """A peer in one home, and one in another that is kept by so many relays."""
    kept = await add(network, KEPT, at_home(1), I, models=("hash",))
    await until(lambda: len(kept.peers.relaying.relays()) == count, 180)
    asker = await add(network, ASKER, at_home(2), S, **options)
    await until(lambda: knows(asker, kept), 120)
    return asker, kept


def at_home(number: int) -> Site:
    """Behind a router that lets no call of others through."""
    router: Router = home(number, refuses=True)
    return Site("192.168.1.2", router)


def knows(asker: Node, other: Node) -> bool:
    """Whether the asker believes an advert that says through whom the other is called."""
    heard = asker.peers.view.advert_of(other.peers.me)
    return heard is not None and "p2p-circuit" in "".join(heard.record.addresses)


async def get(asker: Node, kept: Node, size_bytes: int, seed: int = 0) -> None:
    """Have so many bytes moved from the one that is kept to the asker."""
    data = Random(seed).randbytes(size_bytes)
    named = await kept.dependencies.store.put(data, pin="test")
    found = await asker.blobs.get(
        named, (kept.peers.me,), deadline_s=120, size_bytes_max=size_bytes
    )
    assert found == data


def used(asker: Node, relays: list[Node]) -> Node:
    """The relay through which the asker's bytes went."""
    (found,) = [it for it in relays if it.peers.relaying.counts.carried_for.get(asker.peers.me)]
    return found


def ends(asker: Node, relay: Node) -> tuple[PaidChannel, EarningChannel]:
    """The two ends of the channel from an asker to a relay."""
    assert asker.paying is not None
    assert relay.paying is not None
    earned = relay.paying.till.channels.of(asker.peers.me)
    assert earned is not None
    return asker.paying.payer.channels.by_peer[relay.peers.me], earned


async def quiet() -> None:
    """Wait until what moved is counted and promised."""
    await trio.sleep(3)


async def add_relay(network: Network, **options: Any) -> Node:
    """The second server, as it was, after it was killed."""
    return await add(network, 1, server(2), S, prices=PRICE, **options)
