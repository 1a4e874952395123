"""What `/metrics` says of a relay that keeps a peer, of that peer, and of who pays for a line."""

from pathlib import Path

import trio
from prometheus_client import generate_latest
from trio.testing import MockClock

from node.gateway.metrics import open_registry
from node.peer import Node
from tests.node.network import open_network
from tests.p2p.transports import until
from tests.paying.relays import A_MIB, PRICE, get, homes, quiet, relays

RELAY, OTHER, KEPT, ASKER = "relay", "other", "kept", "asker"


def page_of(node: Node) -> str:
    """All figures of one peer, as Prometheus reads them."""
    return generate_latest(open_registry(node)).decode()


async def pages_of_relays(folder: Path) -> dict[str, str]:
    """The figures of each after 6 MiB went from the one that is kept to the asker, who pays."""
    async with open_network(folder) as network:
        # Two, so that each may be asked whether the other passes calls on.
        relay, other = await relays(network, PRICE, PRICE)
        asker, kept = await homes(network, 2, relay_pay_max=1_000_000)
        reachability = kept.peers.dialing_back.reachability
        await until(lambda: reachability.confirmed_at_s is not None, 120)
        await get(asker, kept, 6 * A_MIB)
        await quiet()
        nodes = {RELAY: relay, OTHER: other, KEPT: kept, ASKER: asker}
        return {name: page_of(node) for name, node in nodes.items()}


def simulated_pages(folder: Path) -> dict[str, str]:
    """As `pages_of_relays`, for a test that runs no loop."""
    return trio.run(pages_of_relays, folder, clock=MockClock(autojump_threshold=0.0))
