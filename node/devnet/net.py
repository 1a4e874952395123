"""A network in one process: `open_devnet` opens it, faults strike it, a sampler watches it.

Peers start in waves, each through a peer that is up already. Each fault happens at its time, in a
task of its own; the sampler looks at a part of the network once a second.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from node.devnet.accounting import Accounting
from node.devnet.agreements import AgreementLoad
from node.devnet.config import DevnetConfig
from node.devnet.crimes import Crimes
from node.devnet.economy import STRAYS_FIRST, Economy
from node.devnet.economy_plan import EconomyPlan, is_of_economy, plan_economy
from node.devnet.economy_stakes import Stakes
from node.devnet.economy_watch import EconomyWatch
from node.devnet.faults import Fault, FaultScope, plan
from node.devnet.homes import Homes
from node.devnet.injection import end, inject
from node.devnet.invariants import Violations
from node.devnet.links import FaultyNetwork
from node.devnet.load import OpenLoopLoad
from node.devnet.machine import Machine, check_memory
from node.devnet.peer import WALL_S, DevPeer, SharedEnvironment
from node.devnet.plan import key_of, plan_peers
from node.devnet.population import Population
from node.devnet.ring import Ring
from node.devnet.sampling import Sampler
from node.devnet.tasks import MadeUpSource, first_request
from node.devnet.virtual_time import repeatable
from node.task.events import ignore_event
from p2p.reachability import Reach
from p2p.transport import Transport
from wire.content import PeerId
from wire.errors import BatonError
from wire.kinds import Role

# How many peers start in a second, and at once; how long starting may take.
ARRIVALS_PER_S = 25.0
STARTING_AT_ONCE = 32
# How long we wait until the views of a new network are complete.
SETTLE_S_MAX = 180.0
CLOSE_S = 30.0
REACHED = (Reach.OPEN, Reach.MAPPED, Reach.KEPT)

# So many of the latest lines of the log are shown.
LINES_KEPT = 64


@dataclass(slots=True)
class Devnet:
    """A running network: its population, the load on it, and the faults that strike it."""

    config: DevnetConfig
    machine: Machine
    population: Population
    violations: Violations
    load: OpenLoopLoad
    sampler: Sampler
    agreements: AgreementLoad
    # None in a network without credits.
    economy: Economy | None = None
    faults: tuple[Fault, ...] = ()
    # When the load began; None before.
    began_at_s: float | None = None
    # When a fault of many peers last began or ended; and how long starting took.
    struck_at_s: float = -math.inf
    start_s: float = 0.0
    # At the end of a run: from the start of a new peer to the answer to its first task.
    first_task_s: float | None = None
    # A log of what happened, in words.
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))

    @property
    def passed_s(self) -> float:
        """Seconds since the load began, or 0."""
        return 0.0 if self.began_at_s is None else trio.current_time() - self.began_at_s

    @property
    def around(self) -> SharedEnvironment:
        """What all peers share: the links, the clock's start, the accounting."""
        return self.population.around

    @property
    def peers(self) -> list[DevPeer]:
        """All peers that were ever started, by number."""
        return self.population.peers

    def living(self) -> list[DevPeer]:
        """The peers that are up."""
        return self.population.living()

    # Starting

    async def start(self) -> None:
        """Start all peers of the plan in waves; then wait until they know of each other."""
        started_at_s = trio.current_time()
        config = self.config
        for one in plan_peers(config.peers, config.seed, fetches=config.fetches):
            key = key_of(self.config.seed, one.number)
            self.peers.append(DevPeer(one, key, self.around))
        self.load.askers = [it for it in self.peers if it.plan.asks]
        await self.population.start_one(self.peers[0])
        places = trio.CapacityLimiter(STARTING_AT_ONCE)

        async def begin(peer: DevPeer) -> None:
            async with places:
                await self.population.start_one(peer)

        async with trio.open_nursery() as nursery:
            for peer in self.peers[1:]:
                await trio.sleep(1 / ARRIVALS_PER_S)
                nursery.start_soon(begin, peer)
        with trio.move_on_after(SETTLE_S_MAX):
            while not (self._is_reached() and self.sampler.is_complete(self.living())):
                await trio.sleep(1.0)
        self.start_s = trio.current_time() - started_at_s

    def _is_reached(self) -> bool:
        """Whether every peer has found out how others reach it, and they do."""
        return not self.config.nat or all(it.reach in REACHED for it in self.living())

    # Running

    async def run(self) -> None:
        """Run the load and the faults for as long as configured, and until every task has ended."""
        config = self.config
        if self.economy is not None:
            await self.economy.stakes.lay(self.peers)
        self.began_at_s = trio.current_time()
        self.sampler.begin(self.around)
        # It is planned with the genesis, and misbehaves in one way.
        whale = None if self.around.economy is None else self.around.economy.whale
        self.faults = plan(
            [it for it in config.faults if self.economy is None or not is_of_economy(it)],
            config.seed,
            config.seconds,
            [it.number for it in self.peers if not it.plan.asks and it.number != whale],
            [it.number for it in self.peers if it.plan.asks],
            [it.number for it in self.peers if Role.DATA in it.plan.roles],
            [it.number for it in self.peers if it.is_open and not it.plan.asks],
        )
        if self.economy is not None:
            self.faults = self.economy.plan(config.faults, self.faults)
            self.economy.begin()
        self.sampler.faults = self.faults
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._strike_all)
            nursery.start_soon(self._sample_forever)
            if self.economy is not None and (strays := self.economy.strays).askers:
                # Nobody waits for these: they end with the run.
                share = len(strays.askers) / max(1, len(self.load.askers))
                nursery.start_soon(strays.run, config.rate * share, config.seconds)
            async with trio.open_nursery() as loads:
                loads.start_soon(self.load.run, config.rate, config.seconds)
                if config.fetches:
                    loads.start_soon(self.agreements.run, self.load.askers, config.seconds)
            await trio.sleep_until(self.began_at_s + config.seconds)
            await self._converged()
            if self.economy is not None:
                await self.economy.finish()
            nursery.cancel_scope.cancel()
        self.first_task_s = await self._first_task()

    async def _first_task(self) -> float | None:
        """How long a new peer waits for its first answer; None if no answer came."""
        started_at_s = trio.current_time()
        newcomer = await self.population.add_like(self.load.askers[0])
        if newcomer.node is None:
            return None
        path = newcomer.node.tasks
        request = replace(first_request(self.config.deadline_s), price_max=self.load.price_max)
        try:
            await path.watch(await path.submit(request), ignore_event)
        except BatonError as error:
            self.note(f"a newcomer's first task: {error}")
            return None
        return trio.current_time() - started_at_s

    async def _converged(self) -> None:
        """Give the living peers two advert periods to know enough of the others."""
        until_at_s = self.struck_at_s + 2 * self.config.period_s
        while self.sampler.is_waiting and trio.current_time() < until_at_s:
            await trio.sleep(1.0)
        self.sampler.sample(self.population, self.load, self.passed_s, whole=True)

    async def _strike_all(self) -> None:
        assert self.began_at_s is not None
        async with trio.open_nursery() as nursery:
            for fault in self.faults:
                await trio.sleep_until(self.began_at_s + fault.at_s)
                nursery.start_soon(self.inject, fault)

    async def inject(self, fault: Fault) -> None:
        """Start one fault, and end it after its time. The plan need not have this fault."""
        if self.economy is not None and fault.name == "partition":
            await self.economy.near_the_end()
        if fault.scope is FaultScope.EVENT:
            self._struck()
        whom = (
            f" {len(fault.peers)} peers" if fault.peers else f" {fault.amount:.0%} of all packets"
        )
        self.note(f"{fault.name} strikes{whom}")
        if fault.scope is FaultScope.MEMBERS and self.economy is not None:
            await self.economy.restart(fault)
            return
        await inject(self.population, fault)
        if fault.for_s != math.inf and fault.scope is not FaultScope.RATE:
            await trio.sleep(fault.for_s)
            await end(self.population, fault)
            self.note(f"{fault.name} is over")
            if fault.scope is FaultScope.EVENT:
                self._struck()

    def _struck(self) -> None:
        self.struck_at_s = trio.current_time()
        self.sampler.struck(self.struck_at_s)

    def note(self, line: str) -> None:
        """Add a line to the log, which keeps the latest few."""
        self.log.append(f"{self.passed_s:6.1f} s  {line}")

    async def _sample_forever(self) -> None:
        assert self.began_at_s is not None
        while True:
            self.sampler.sample(self.population, self.load, self.passed_s)
            if self.economy is not None:
                self.economy.look()
            await trio.sleep(1.0)

    async def close(self) -> None:
        """End every peer at once, as if killed."""
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_S, shield=True):
            async with trio.open_nursery() as nursery:
                for peer in self.peers:
                    if peer.node is not None:
                        nursery.start_soon(peer.kill)


@asynccontextmanager
async def open_devnet(
    config: DevnetConfig,
    machine: Machine,
    *,
    folder: Path,
    tcp: Transport | None = None,
    watch: Callable[[Devnet], None] = lambda _net: None,
) -> AsyncIterator[Devnet]:
    """A network whose peers are up and know of each other; nothing of it outlives the block.

    Under the clock of `virtual_time` it runs in virtual time, and does the same for the same seed,
    unless `config` asks for disks or sockets: their threads take real time. InputError where the
    machine lacks memory. `watch` is called with the network before its peers start.
    """
    check_memory(config.peers, machine)
    machine.collect_seldom()
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    accounting = Accounting(machine.monotonic_s, machine.cpu_s)
    trio.lowlevel.add_instrument(accounting)
    net: Devnet | None = None
    violations = Violations(lambda: 0.0 if net is None else net.passed_s)
    began_at_s = trio.current_time()
    alike = repeatable(config.seed, lambda: WALL_S - began_at_s + trio.current_time())
    try:
        async with AsyncExitStack() as stack:
            if not config.in_real_time:
                stack.enter_context(alike)
            nursery = await stack.enter_async_context(trio.open_nursery())
            economy = _economy_of(config)
            crimes = Crimes(lambda key: _natures(net, key))
            around = SharedEnvironment(
                network=FaultyNetwork(config.seed),
                accounting=accounting,
                source=MadeUpSource(),
                seed=config.seed,
                folder=folder,
                on_disk=config.on_disk,
                fetches=config.fetches,
                tcp=tcp,
                homes=Homes(config.nat, config.peers, config.seed) if config.nat else None,
                background_checks=1.0 if config.tries_verifiers else 0.0,
                economy=economy,
                ring=Ring(() if economy is None else economy.ring),
                crimes=crimes,
                ended=lambda number, why: violations.note("a peer ends when told to", number, why),
            )
            nursery.start_soon(around.network.run)
            net = Devnet(
                config,
                machine,
                Population(config.seed, around, nursery),
                violations,
                OpenLoopLoad((), violations, config.seed, config.deadline_s),
                Sampler(config.seed, violations),
                AgreementLoad(config.seed),
            )
            net.economy = _opened_economy(net)
            watch(net)
            await net.start()
            try:
                yield net
            finally:
                await net.close()
                nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(accounting)
    left = trio.lowlevel.current_statistics().tasks_living - tasks_before
    if left > 0:
        violations.note("nothing outlives its nursery", None, f"{left} tasks are left")


def _economy_of(config: DevnetConfig) -> EconomyPlan | None:
    if config.economy is None:
        return None
    peers = plan_peers(config.peers, config.seed, fetches=config.fetches)
    return plan_economy(config.economy, config.seed, peers, config.faults)


def _natures(net: Devnet | None, key: PeerId) -> frozenset[str]:
    """How a peer was ever told to misbehave."""
    if net is None or net.economy is None:
        return frozenset()
    number = net.economy.watch.plan.numbers.get(key)
    return frozenset(it.name for it in net.faults if number in it.peers)


def _opened_economy(net: Devnet) -> Economy | None:
    around = net.around
    if around.economy is None:
        return None
    config, nobody = net.config, Violations(lambda: net.passed_s)
    strays = OpenLoopLoad((), nobody, config.seed, config.deadline_s, "strays", STRAYS_FIRST)
    watch = EconomyWatch(around.economy, net.violations)
    stakes = Stakes(watch, net.violations, around.crimes, around.ring)
    return Economy(watch, net.population, net.violations, net.load, strays, stakes)
