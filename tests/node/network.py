"""A network of whole peers in one process: memory transport, memory store, hash engine.

Everything but the three seams is what a user runs.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.config import NodeConfig
from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.interface import Engine
from node.paying_config import SERVICES, Sponsoring, TypedPrices
from node.peer import Dependencies, Node, open_node
from node.serving.sources import PydocSource, Source, Sources
from p2p.adverts import Capacity, Environment
from p2p.blobs import Blobs
from p2p.over_libp2p import MemoryNetwork, MemoryTransport
from p2p.peers import Handler, Peers, PeersConfig, open_peers
from p2p.typed_call import TypedCall
from store import Store, open_memory_store
from wire.advert import ModelOffer
from wire.content import PeerId
from wire.kinds import Role
from wire.ledger import Genesis
from wire.membership import Invite
from wire.message import Message, Want, WantBlocks
from wire.ownership import Ownership
from wire.signed import Signed
from wire.signing import SigningKey

D, I, V, S = Role.DATA, Role.INFER, Role.VERIFY, Role.STORE  # noqa: E741
START_S = 1_800_000_000.0


@dataclass(slots=True)
class Outsider:
    """A peer without roles of its own: what it answers is up to the test."""

    peers: Peers
    blobs: Blobs
    store: Store
    # What it was asked, in order.
    asked: list[Message] = field(default_factory=list)

    @property
    def key(self) -> SigningKey:
        return self.peers.key

    def answer(self, kind: type[Message], handler: Handler) -> None:
        """Have `handler` answer messages of this kind, and note each."""

        async def noting(call: TypedCall, message: Message) -> None:
            self.asked.append(message)
            await handler(call, message)

        self.peers.handlers[kind] = noting


def _sells(roles: Sequence[Role], prices: TypedPrices) -> bool:
    """Whether a peer with these roles does what has a price."""
    return bool({I, V} & set(roles)) or set(prices.models) <= set(SERVICES)


@dataclass(slots=True)
class Network:
    """Opens peers that find each other through the first of them."""

    stack: AsyncExitStack
    folder: Path
    seed: int = 7
    memory: MemoryNetwork = field(default_factory=MemoryNetwork)
    nodes: list[Node] = field(default_factory=list)
    opened: int = 0
    # Where peers live that a test kills; `open_network` gives it.
    nursery: trio.Nursery | None = None
    # All peers have one wall clock.
    started_at_s: float = field(default_factory=trio.current_time)
    _scopes: dict[PeerId, trio.CancelScope] = field(default_factory=dict)

    def environment(self, number: int) -> Environment:
        random = Random(f"{self.seed}:{number}")
        base_s = START_S - self.started_at_s
        return Environment(
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
        alter: Callable[[Dependencies], Dependencies] = lambda dependencies: dependencies,
        number: int | None = None,
        environment: Environment | None = None,
        listen: tuple[str, ...] = ("/memory/0",),
        background_checks: float = 0.0,
        judges: bool = False,
        genesis: Genesis | None = None,
        prices: TypedPrices | None = None,
        relay_pay_max: int = 0,
        sponsoring: Sponsoring | None = None,
        invite: tuple[Signed[Invite], SigningKey] | None = None,
        owner: SigningKey | None = None,
    ) -> AsyncIterator[Node]:
        if number is None:
            number = self.opened
            self.opened += 1
        bootstraps = self.nodes[0].peers.endpoint.addresses[:1] if self.nodes else ()
        config = NodeConfig(
            state=self.folder / str(number),
            peers=PeersConfig(
                bootstraps=bootstraps,
                listen=listen,
                network="baton" if genesis is None else str(genesis.id),
                ownership=None
                if owner is None
                else Ownership.signed_by(owner, self.key(number).peer),
            ),
            roles=frozenset(roles),
            # Who has the model for itself alone can look for itself.
            models=tuple(models) if judges or {I, V} & set(roles) else (),
            # A test that wants answers drawn says so.
            background_checks=background_checks,
            leave_s=0.1,
            genesis=genesis,
            invite=invite,
            sponsoring=sponsoring,
            relay_pay_max=relay_pay_max,
            prices=prices if prices and _sells(roles, prices) else TypedPrices(),
        )
        async with AsyncExitStack() as own:
            if store is None:
                store = await own.enter_async_context(open_memory_store(quota_bytes=1 << 30))
            dependencies = Dependencies(
                key=self.key(number),
                environment=environment or self.environment(number),
                transport=MemoryTransport(self.memory, wall_ns=lambda: 1),
                store=store,
                engine=engine or HashEngine(),
                sources=source or Sources({"pydoc": PydocSource()}),
            )
            node = await own.enter_async_context(open_node(config, alter(dependencies)))
            yield node

    async def add(self, *roles: Role, **options: object) -> Node:
        """Open a peer that lives as long as the network."""
        node = await self.stack.enter_async_context(self.peer(roles, **options))  # type: ignore[arg-type]
        self.nodes.append(node)
        return node

    async def start(self, *roles: Role, **options: Any) -> Node:
        """Open a peer that lives until it is killed, or as long as the network."""
        assert self.nursery is not None

        async def live(task_status: trio.TaskStatus[Node]) -> None:
            with trio.CancelScope() as scope:
                async with self.peer(roles, **options) as node:
                    self._scopes[node.peers.me] = scope
                    task_status.started(node)
                    await trio.sleep_forever()

        node: Node = await self.nursery.start(live)
        self.nodes.append(node)
        return node

    def kill(self, node: Node) -> None:
        """As if its process were killed: no good-bye, nothing finished."""
        self._scopes.pop(node.peers.me).cancel()
        self.nodes.remove(node)

    @asynccontextmanager
    async def outsider(
        self, *roles: Role, number: int | None = None, units_per_s: float = 1e9
    ) -> AsyncIterator[Outsider]:
        """A peer that says whatever a test makes it say, and has met the first."""
        if number is None:
            number = self.opened
            self.opened += 1
        environment = self.environment(number)
        manifest = hash_manifest()
        # So fast, where nothing else is said, that it is asked before everybody else.
        offer = ModelOffer(model=manifest.id, name=manifest.name, units_per_s=units_per_s)
        offering = Capacity(roles=sum(1 << it for it in roles), models=(offer,), free_slots=99)
        config = PeersConfig(
            bootstraps=self.nodes[0].peers.endpoint.addresses[:1], listen=("/memory/0",)
        )
        transport = MemoryTransport(self.memory, wall_ns=lambda: 1)
        async with (
            open_memory_store(quota_bytes=1 << 30) as store,
            open_peers(transport, self.key(number), config, environment, lambda: offering) as peers,
        ):
            blobs = Blobs(store, peers)
            peers.handlers[Want] = blobs.on_want
            peers.handlers[WantBlocks] = blobs.on_want_blocks
            await peers.join()
            outsider = Outsider(peers, blobs, store)
            with trio.fail_after(30):
                while not all(it.peers.view.advert_of(peers.me) for it in self.nodes):
                    await trio.sleep(0.05)
            yield outsider

    async def settled(self, *, within_s: float = 30.0) -> None:
        """Wait until every peer has heard of every other, and of its models."""

        def known(node: Node) -> bool:
            for other in self.nodes:
                if other is node:
                    continue
                advert = node.peers.view.advert_of(other.peers.me)
                if advert is None or len(advert.record.models) < len(other.config.models):
                    return False
            return True

        with trio.fail_after(within_s):
            while not all(known(node) for node in self.nodes):
                await trio.sleep(0.05)


@asynccontextmanager
async def open_network(folder: Path, *, seed: int = 7) -> AsyncIterator[Network]:
    async with trio.open_nursery() as nursery:
        async with AsyncExitStack() as stack:
            yield Network(stack, folder, seed, nursery=nursery)
        nursery.cancel_scope.cancel()


__all__ = ["D", "I", "Network", "Outsider", "S", "V", "open_network", "replace"]
