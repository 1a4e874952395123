"""One peer of a devnet: it is started, struck by faults, and started again.

The key and the store, which outlive a restart, are here; the running peer is a `node.peer.Node`
like any other.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio
from trio import TaskStatus  # type: ignore[attr-defined]

from node.config import NodeConfig
from node.devnet.accounting import Accounting, CountingTransport
from node.devnet.adversary import (
    HANDLED,
    LIES_ONE_IN,
    DevnetEngine,
    Disk,
    flood,
    memory_store,
    misbehave,
)
from node.devnet.crimes import Crimes
from node.devnet.economy_adversary import TwoOrders, equivocate, pay_never_again, steal
from node.devnet.economy_plan import RELAYED, EconomyPlan, prices_of
from node.devnet.homes import PORT, Homes
from node.devnet.links import FaultyNetwork
from node.devnet.plan import PeerPlan, manifests
from node.devnet.relay_faults import NATURES, BadRules, give_leases_to_all
from node.devnet.relay_load import RelayLoad, WatchedRules, watched
from node.devnet.ring import Ring
from node.devnet.simulated_fetch import SimulatedIngest
from node.ingest.bring import Ingest
from node.paying_config import TypedPrices
from node.peer import Dependencies, Node, open_node
from node.serving.sources import Source
from p2p.adverts import Environment
from p2p.over_libp2p import MemoryTransport
from p2p.peers import PeersConfig
from p2p.relay_limits import RelayLimits
from p2p.transport import Transport
from store import Store, Table, open_store
from wire.errors import BatonError
from wire.kinds import Role
from wire.message import Goodbye, Hello, Message, Ping, Seek, Swap
from wire.signing import SigningKey

QUOTA_BYTES = 1 << 30
# The time at which every run begins, by the wall clock of its peers.
WALL_S = 1_800_000_000.0
LEAVE_S = 5.0
_MANIFESTS = manifests()
# What they do besides, a peer does of its own accord.
ACTING = ("flooder", "equivocator", "ring")
GOSSIP_MESSAGES: tuple[type[Message], ...] = (Hello, Ping, Goodbye, Swap, Seek)


@dataclass(slots=True)
class _Running:
    """A peer that is up."""

    node: Node
    engine: DevnetEngine
    nursery: trio.Nursery
    rules: WatchedRules
    # The peer is frozen or cut off: others cannot reach it.
    struck: bool = False
    # Calling this ends the misbehaviour.
    undo: Callable[[], None] | None = None
    # Cancelling this ends what it does of its own accord.
    acting: trio.CancelScope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedEnvironment:
    """What all peers of a run share."""

    network: FaultyNetwork
    accounting: Accounting
    source: Source
    seed: int
    folder: Path
    on_disk: bool = False
    # Whether data peers fetch from the simulated server.
    fetches: bool = False
    # The share of answers that askers have a closer look at; see `node.asking.background_checks`.
    background_checks: float = 0.0
    # Set if peers use sockets instead of memory.
    tcp: Transport | None = None
    # None in a network without credits.
    economy: EconomyPlan | None = None
    two_orders: TwoOrders = field(default_factory=TwoOrders)
    crimes: Crimes = field(default_factory=lambda: Crimes(lambda _: frozenset()))
    ring: Ring = field(default_factory=lambda: Ring(()))
    # Where peers stand, if some are behind routers.
    homes: Homes | None = None
    started_at_s: float = field(default_factory=trio.current_time)
    # Called with the number of a peer that ended by itself, and why.
    ended: Callable[[int, str], None] = lambda _number, _why: None


@dataclass(slots=True, eq=False)
class DevPeer:
    """One peer, through all its starts."""

    plan: PeerPlan
    key: SigningKey
    around: SharedEnvironment
    disk: Disk = field(default_factory=Disk)
    skew_s: float = 0.0
    natures: set[str] = field(default_factory=set)
    starts: int = 0
    # What it had on disks that were lost.
    lost_stores: list[Store] = field(default_factory=list)
    relay_load: RelayLoad = field(default_factory=RelayLoad)
    # None while the peer is down.
    _running: _Running | None = None
    _store: Store | None = None
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _leave: trio.Event = field(default_factory=trio.Event)
    _ended: trio.Event = field(default_factory=trio.Event)

    @property
    def number(self) -> int:
        return self.plan.number

    @property
    def host(self) -> str:
        return str(self.key.peer)

    @property
    def node(self) -> Node | None:
        """The running peer; None while the peer is down."""
        return None if self._running is None else self._running.node

    @property
    def store(self) -> Store | None:
        """What it keeps; None while a peer with a real disk is down."""
        return self._store if self.node is None else self.node.dependencies.store

    @property
    def is_up(self) -> bool:
        """Whether the peer runs and others can reach it."""
        return self._running is not None and not self._running.struck

    @property
    def is_open(self) -> bool:
        """Whether others can call the peer where it stands."""
        homes = self.around.homes
        return homes is None or homes.site_of(self.number).router is None

    @property
    def reach(self) -> str:
        """How others reach the peer, as it found out itself; "down" while it is down."""
        found = None if self.node is None else self.node.peers.dialing_back.reachability
        return "down" if found is None else found.reach.value

    @property
    def relay_limits(self) -> RelayLimits | None:
        """The bounds of a running peer for what it passes on."""
        return None if self._running is None else self._running.rules.counts.limits

    def look_at_relaying(self) -> None:
        """Take in what the running peer's own counts of relaying say."""
        if self._running is not None:
            self._running.rules.look()

    def environment(self) -> Environment:
        random = Random(f"{self.around.seed}:peer:{self.number}:{self.starts}")
        base_s = WALL_S - self.around.started_at_s
        return Environment(
            wall_s=lambda: base_s + self.skew_s + trio.current_time(),
            random=random,
            entropy=random.randbytes,
        )

    # Living

    async def live(
        self,
        bootstraps: tuple[str, ...],
        task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start, and run until `kill` or `leave` is called; BatonError if it could not start."""
        self._scope, self._leave, self._ended = trio.CancelScope(), trio.Event(), trio.Event()
        self.starts += 1
        up = False
        try:
            with self._scope:
                engine = DevnetEngine(self.plan.unit_s)
                async with self._open(bootstraps, engine) as node, trio.open_nursery() as nursery:
                    up = True
                    rules = watched(node.peers.relaying, self.relay_load)
                    self._is_up(_Running(node, engine, nursery, rules))
                    task_status.started()
                    await self._leave.wait()
                    nursery.cancel_scope.cancel()
        except* BatonError as group:
            if not up:
                raise
            self.around.ended(self.number, str(group.exceptions[0]))
        finally:
            self._running = None
            self._ended.set()

    def _is_up(self, running: _Running) -> None:
        self._running = running
        running.node.peers.endpoint.set_relay_rules(running.rules)
        handlers = running.node.peers.handlers
        for kind in handlers:
            purpose = "gossip" if kind in GOSSIP_MESSAGES else "work"
            handlers[kind] = self.around.accounting.booked(handlers[kind], purpose)
        economy = self.around.economy
        if self.plan.asks and economy is not None and economy.stakes:
            self.around.crimes.watch(running.node, running.nursery)
        for adversary in tuple(self.natures):
            self._take_on(running, adversary)

    @asynccontextmanager
    async def _open(self, bootstraps: tuple[str, ...], engine: DevnetEngine) -> AsyncIterator[Node]:
        around, environment = self.around, self.environment()
        folder = around.folder / str(self.number)
        economy, relays = around.economy, around.homes is not None and self.is_open
        config = NodeConfig(
            state=folder,
            peers=PeersConfig(bootstraps=bootstraps, listen=(self._stand(),)),
            roles=self.plan.roles if economy is None else economy.roles_of(self.plan),
            genesis=None if economy is None else economy.genesis,
            prices=TypedPrices() if economy is None else prices_of(self.plan, relays=relays),
            relay_pay_max=0 if economy is None else RELAYED,
            models=tuple(str(_MANIFESTS[it].id) for it in self.plan.models),
            # Whoever asks tries verifiers too, with copies of answers that are wrong on purpose.
            background_checks=around.background_checks,
            leave_s=LEAVE_S,
        )
        number = int(environment.wall_s() * 1e9)
        transport: Transport = MemoryTransport(around.network, wall_ns=lambda: number)
        async with AsyncExitStack() as stack:
            if around.on_disk:
                await trio.to_thread.run_sync(lambda: folder.mkdir(parents=True, exist_ok=True))
                opened = open_store(folder, quota_bytes=QUOTA_BYTES)
                store: Store = await stack.enter_async_context(opened)
            else:
                store = self._store = self._store or memory_store(self.disk, QUOTA_BYTES)
            for name in self.plan.models:
                manifest = _MANIFESTS[name]
                await store.put(manifest.to_bytes(), pin="model")
                await store.write(Table.MODELS, manifest.id, manifest.to_bytes())
            dependencies = Dependencies(
                key=self.key,
                environment=environment,
                transport=CountingTransport(around.tcp or transport, around.accounting),
                store=store,
                engine=engine,
                sources=around.source,
                ingest=self._ingest(environment),
            )
            yield await stack.enter_async_context(open_node(config, dependencies))

    def _stand(self) -> str:
        """Where the peer listens; behind its router, if it has one."""
        around = self.around
        if around.tcp is not None:
            return "/ip4/127.0.0.1/tcp/0"
        if around.homes is None:
            return f"/memory/{self.number + 1}"
        site = around.homes.site_of(self.number)
        around.network.routers.put(self.host, site)
        return f"/ip4/{site.host}/tcp/{PORT}"

    def _ingest(self, environment: Environment) -> Ingest | None:
        if not self.around.fetches or Role.DATA not in self.plan.roles:
            return None
        random = Random(f"{self.around.seed}:fetches:{self.number}")
        return SimulatedIngest(self.natures, random, environment.wall_s)

    # Being struck

    async def kill(self) -> None:
        """End like SIGKILL: no good-bye, nothing finished; the kernel closes the connections."""
        self._scope.cancel()
        await self._ended.wait()

    async def vanish(self) -> None:
        """End like a power cut: connections stay half open."""
        self.around.network.vanish(self.host)
        await self.kill()

    async def leave(self) -> None:
        """Have the peer leave as it does at a signal, and wait until it is gone."""
        self._leave.set()
        await self._ended.wait()

    def lose_disk(self) -> None:
        """Start with an empty disk the next time; a store on a real disk stays as it is."""
        if self._store is not None:
            self.lost_stores.append(self._store)
            self._store = None

    def inject(self, *, struck: bool) -> None:
        """Mark the peer as not reachable for others, or as reachable again."""
        if self._running is not None:
            self._running.struck = struck

    def take_on(self, adversary: str) -> None:
        """Misbehave as `adversary` says from now on, also after a restart."""
        self.natures.add(adversary)
        if self._running is not None:
            self._take_on(self._running, adversary)

    def _take_on(self, running: _Running, adversary: str) -> None:
        if adversary in LIES_ONE_IN:
            running.engine.lies_one_in = LIES_ONE_IN[adversary]
        elif adversary == "slow":
            running.engine.unit_s = self.plan.unit_s * 10
            self.around.network.slow(self.host, slow=True)
        elif adversary in ACTING:
            running.acting = trio.CancelScope()
            running.nursery.start_soon(self._act, adversary, running.node, running.acting)
        elif adversary == "nonpayer":
            running.undo = pay_never_again(running.node)
        elif adversary == "thief":
            random = Random(f"{self.around.seed}:{adversary}:{self.number}")
            running.undo = steal(running.node, random)
        elif adversary in NATURES:
            random = Random(f"{self.around.seed}:{adversary}:{self.number}")
            running.rules.inner = BadRules(running.node.peers.relaying, adversary, random)
            if adversary == "relay_lies":
                running.undo = give_leases_to_all(running.node)
        elif adversary in HANDLED:
            random = Random(f"{self.around.seed}:{adversary}:{self.number}")
            running.undo = misbehave(running.node, adversary, random)

    def put_off(self, adversary: str) -> None:
        """Stop this misbehaviour."""
        self.natures.discard(adversary)
        running = self._running
        if running is None:
            return
        if adversary in LIES_ONE_IN:
            running.engine.lies_one_in = 0
        elif adversary == "slow":
            running.engine.unit_s = self.plan.unit_s
            self.around.network.slow(self.host, slow=False)
        elif adversary in ACTING and running.acting is not None:
            running.acting.cancel()
        elif adversary in NATURES:
            running.rules.inner = running.node.peers.relaying
        if running.undo is not None:
            running.undo()
            running.undo = None

    async def _act(self, adversary: str, node: Node, scope: trio.CancelScope) -> None:
        random = Random(f"{self.around.seed}:{adversary}:{self.number}:{self.starts}")
        with scope:
            if adversary == "flooder":
                await flood(node, random)
            elif adversary == "ring":
                assert node.ledger is not None
                await self.around.ring.run(node.ledger.wallet)
            else:
                await equivocate(node, random, self.around.two_orders)
