"""Peers that keep content, in one process: real peers over memory, each with a store of its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from p2p.adverts import Capacity, Environment
from p2p.blobs import Blobs
from p2p.over_libp2p import MemoryNetwork, MemoryTransport
from p2p.peers import Handler, Peers, PeersConfig, open_peers
from p2p.score import Standing
from store import Store, open_memory_store
from tests.p2p.transports import key_of, until
from wire.content import PeerId
from wire.kinds import Role
from wire.message import Want, WantBlocks

START_S = 1_800_000_000.0


@dataclass(slots=True)
class Keeper:
    """One peer with its blobs."""

    peers: Peers
    blobs: Blobs
    store: Store

    @property
    def me(self) -> PeerId:
        return self.peers.me

    def standing_of(self, other: "Keeper") -> Standing:
        return self.peers.standing(other.me)

    def cost_of(self, other: "Keeper") -> float:
        return self.peers.scores.cost(other.me, trio.current_time())


@dataclass(slots=True)
class Neighbourhood:
    """Opens keepers that meet through the first of them."""

    nursery: trio.Nursery
    memory: MemoryNetwork = field(default_factory=MemoryNetwork)
    keepers: list[Keeper] = field(default_factory=list)
    started_at_s: float = field(default_factory=trio.current_time)

    @asynccontextmanager
    async def open(
        self,
        name: str,
        *,
        want: Handler | None = None,
        store: Store | None = None,
        clock_ahead_s: float = 0.0,
        **config: Any,
    ) -> AsyncIterator[Keeper]:
        """A keeper of that name; `want` answers in place of its blobs."""
        first = self.keepers[0].peers.endpoint.addresses[:1] if self.keepers else ()
        random = Random(name)
        ahead_s = START_S + clock_ahead_s - self.started_at_s
        environment = Environment(
            wall_s=lambda: ahead_s + trio.current_time(),
            random=random,
            entropy=random.randbytes,
        )
        settings: dict[str, Any] = {"bootstraps": first, "listen": ("/memory/0",)}
        transport = MemoryTransport(self.memory, wall_ns=lambda: 1)
        async with AsyncExitStack() as own:
            if store is None:
                store = await own.enter_async_context(open_memory_store(quota_bytes=1 << 30))
            peers = await own.enter_async_context(
                open_peers(
                    transport,
                    key_of(name),
                    PeersConfig(**(settings | config)),
                    environment,
                    lambda: Capacity(roles=1 << Role.STORE),
                )
            )
            blobs = Blobs(store, peers)
            peers.handlers[Want] = want or blobs.on_want
            peers.handlers[WantBlocks] = blobs.on_want_blocks
            yield Keeper(peers, blobs, store)

    async def add(self, name: str, **options: Any) -> Keeper:
        """A keeper that lives as long as the neighbourhood, and has met its first."""

        async def live(task_status: trio.TaskStatus[Keeper]) -> None:
            async with self.open(name, **options) as keeper:
                await keeper.peers.join()
                task_status.started(keeper)
                await trio.sleep_forever()

        keeper: Keeper = await self.nursery.start(live)
        self.keepers.append(keeper)
        return keeper

    async def acquainted(self) -> None:
        """Wait until each has heard of every other."""
        everybody = {it.me for it in self.keepers}

        def done() -> bool:
            return all(
                everybody <= {it.me} | {peer for peer in everybody if it.peers.view.advert_of(peer)}
                for it in self.keepers
            )

        await until(done, 60)


@asynccontextmanager
async def open_neighbourhood() -> AsyncIterator[Neighbourhood]:
    async with trio.open_nursery() as nursery:
        yield Neighbourhood(nursery)
        nursery.cancel_scope.cancel()
