"""Peers of a simulated internet: on servers, in homes behind routers, behind a carrier's NAT."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from p2p.adverts import Capacity, Environment
from p2p.over_libp2p import MemoryNetwork, MemoryTransport, Router, Site
from p2p.peers import Peers, PeersConfig, open_peers
from tests.p2p.keepers import START_S
from tests.p2p.transports import key_of

PORT = 4747


def server(number: int) -> Site:
    """A machine of the open internet; each is of another network."""
    return Site(f"45.{number}.0.10")


def home(number: int, **settings: Any) -> Router:
    """The router of a home."""
    return Router(f"46.{number}.0.1", **settings)


@dataclass(slots=True)
class Internet:
    """Opens peers; every one meets the first through its address."""

    nursery: trio.Nursery
    stack: AsyncExitStack
    memory: MemoryNetwork = field(default_factory=MemoryNetwork)
    peers: dict[str, Peers] = field(default_factory=dict)
    scopes: dict[str, trio.CancelScope] = field(default_factory=dict)
    started_at_s: float = field(default_factory=trio.current_time)

    async def add(self, name: str, site: Site, *, join: bool = True, **config: Any) -> Peers:
        """A peer that stands there, until the test ends or it is killed."""
        peers: Peers = await self.nursery.start(self._live, name, site, config)
        if join:
            await peers.join()
        return peers

    def kill(self, name: str) -> None:
        """End like SIGKILL: the connections close, and nobody hears a good-bye."""
        self.scopes.pop(name).cancel()
        self.peers.pop(name)

    async def _live(
        self,
        name: str,
        site: Site,
        config: dict[str, Any],
        task_status: trio.TaskStatus[Peers] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        key, random = key_of(name), Random(name)
        self.memory.routers.put(str(key.peer), site)
        ahead_s = START_S - self.started_at_s
        environment = Environment(
            wall_s=lambda: ahead_s + trio.current_time(), random=random, entropy=random.randbytes
        )
        first = next(iter(self.peers.values()), None)
        bootstraps = first.endpoint.addresses[:1] if first else ()
        settings = {"bootstraps": bootstraps, "listen": (f"/ip4/{site.host}/tcp/{PORT}",)}
        transport = MemoryTransport(self.memory, wall_ns=lambda: 1)
        with trio.CancelScope() as self.scopes[name]:
            async with open_peers(
                transport, key, PeersConfig(**(settings | config)), environment, Capacity
            ) as peers:
                self.peers[name] = peers
                task_status.started(peers)
                await trio.sleep_forever()


@asynccontextmanager
async def open_internet() -> AsyncIterator[Internet]:
    """An internet without anybody; all who were added end with it."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        yield Internet(nursery, stack)
        nursery.cancel_scope.cancel()
