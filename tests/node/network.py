"""A network of whole peers in one process: memory transport, memory store, hash engine.

Everything but the three seams is what a user runs.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import trio

from node.config import NodeConfig
from node.engines.hash_engine import HashEngine
from node.engines.seam import Engine
from node.peer import Node, Parts, open_node
from node.sources import PydocSource, Source, Sources
from p2p.adverts import Seams
from p2p.over_libp2p import MemoryNetwork, MemoryTransport
from p2p.peers import PeersConfig
from store import Store, open_memory_store
from wire.kinds import Role
from wire.signing import SigningKey

D, I, V, S = Role.DATA, Role.INFER, Role.VERIFY, Role.STORE
START_S = 1_800_000_000.0


@dataclass(slots=True)
class Network:
    """Opens peers that find each other through the first of them."""

    stack: AsyncExitStack
    folder: Path
    seed: int = 7
    memory: MemoryNetwork = field(default_factory=MemoryNetwork)
    nodes: list[Node] = field(default_factory=list)
    opened: int = 0

    def seams(self, number: int) -> Seams:
        random = Random(f"{self.seed}:{number}")
        base_s = START_S - trio.current_time()
        return Seams(
            wall_s=lambda: base_s + trio.current_time(),
            random=random,
            entropy=random.randbytes,
        )

    def key(self, number: int) -> SigningKey:
        return SigningKey(Random(f"key:{self.seed}:{number}").randbytes(32))

    @asynccontextmanager
    async def peer(
        self,
        roles: Sequence[Role],
        *,
        engine: Engine | None = None,
        source: Source | None = None,
        store: Store | None = None,
        models: Sequence[str] = ("hash",),
        alter: Callable[[Parts], Parts] = lambda parts: parts,
        number: int | None = None,
        seams: Seams | None = None,
        listen: tuple[str, ...] = ("/memory/0",),
    ) -> AsyncIterator[Node]:
        if number is None:
            number = self.opened
            self.opened += 1
        bootstraps = self.nodes[0].peers.endpoint.addresses[:1] if self.nodes else ()
        config = NodeConfig(
            state=self.folder / str(number),
            peers=PeersConfig(bootstraps=bootstraps, listen=listen),
            roles=frozenset(roles),
            models=tuple(models) if {I, V} & set(roles) else (),
            leave_s=0.1,
        )
        async with AsyncExitStack() as own:
            if store is None:
                store = await own.enter_async_context(open_memory_store(quota_bytes=1 << 30))
            parts = Parts(
                key=self.key(number),
                seams=seams or self.seams(number),
                transport=MemoryTransport(self.memory, wall_ns=lambda: 1),
                store=store,
                engine=engine or HashEngine(),
                sources=source or Sources({"pydoc": PydocSource()}),
            )
            node = await own.enter_async_context(open_node(config, alter(parts)))
            yield node

    async def add(self, *roles: Role, **options: object) -> Node:
        """Open a peer that lives as long as the network."""
        node = await self.stack.enter_async_context(self.peer(roles, **options))  # type: ignore[arg-type]
        self.nodes.append(node)
        return node

    async def settled(self) -> None:
        """Wait until every peer has heard of every other, and of its models."""

        def known(node: Node) -> bool:
            for other in self.nodes:
                if other is node:
                    continue
                advert = node.peers.view.advert_of(other.peers.me)
                if advert is None or len(advert.record.models) < len(other.config.models):
                    return False
            return True

        with trio.fail_after(30):
            while not all(known(node) for node in self.nodes):
                await trio.sleep(0.05)


@asynccontextmanager
async def open_network(folder: Path, *, seed: int = 7) -> AsyncIterator[Network]:
    async with AsyncExitStack() as stack:
        yield Network(stack, folder, seed)


__all__ = ["D", "I", "Network", "S", "V", "open_network", "replace"]
