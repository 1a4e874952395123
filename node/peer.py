"""One peer, put together: store, engine, other peers, its roles, and its own clients' tasks.

Parts are opened before what needs them and closed in reverse; nothing outlives the block.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from node.apps.owner_role import AppOwner
from node.asking.answers import Answers
from node.asking.background_checks import BackgroundChecks
from node.asking.canaries import Canaries
from node.asking.copies import Copying
from node.asking.disputing import Disputing
from node.asking.jury_duty import JuryDuty
from node.asking.log_watch import LogWatch
from node.asking.own_judge import OwnJudge
from node.asking.rechecking import Rechecking
from node.asking.record_files import RecordFiles
from node.asking.tasks import TaskRunner
from node.checking.check_order import CheckOrders
from node.checking.contributions import Contributions
from node.checking.quorum import Checking
from node.checking.settling import Settling
from node.config import NodeConfig
from node.dispatch.directory import PeerDirectory
from node.dispatch.dispatcher import Dispatcher
from node.dispatch.layer_chain import LayerChains
from node.dispatch.orders import Orders
from node.engines.interface import Engine
from node.engines.proving.interface import Proofs
from node.ingest.bring import Ingest
from node.ledger.peer_ledger import PeerLedger, open_ledger
from node.models.collection import Models, offer_of
from node.models.exact_files import ExactFiles
from node.models.loader import ModelLoader
from node.models.probing import Probing
from node.paying.own_tariff import OwnTariff
from node.paying.peer_paying import PeerPaying, open_paying
from node.paying_config import RELAY
from node.private_network import belonging
from node.remembering import remember_forever, remembered
from node.serving.check_server import CheckServer
from node.serving.contest_role import ContestRole
from node.serving.contribute_role import ContributeRole
from node.serving.data_role import data_role
from node.serving.infer_role import InferRole
from node.serving.keep_role import KeepRole
from node.serving.leg_server import LegServer
from node.serving.log_book import LogBook
from node.serving.log_role import LogRole
from node.serving.nearest import IndexCache
from node.serving.offer_server import OfferServer
from node.serving.order_server import OrderServer
from node.serving.role import LegRole
from node.serving.sources import Source
from node.serving.stage_server import StageServer
from node.serving.verify_role import VerifyRole
from node.task.events import Event, Failed
from p2p.adverts import Capacity, Environment
from p2p.blobs import Blobs
from p2p.free_bytes import FreeBytes
from p2p.notes import Notes
from p2p.peers import NO_SURROUNDINGS, Peers, Surroundings, open_peers
from p2p.transport import Transport
from store import Store
from wire.calibration import Calibration
from wire.check_message import Check
from wire.checks import OpenChecks
from wire.content import ContentId
from wire.dispute import Contest
from wire.errors import ModelRefused
from wire.kinds import Role
from wire.message import Keep, Offer, Quote
from wire.order import Open
from wire.signing import SigningKey
from wire.stage import StageOpen

# Who may have a peer paused, those with more to say first.
OWNER, MACHINE = "owner", "machine"
LINES_KEPT = 64


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The implementations behind the interfaces: made in `node.__main__` or a test, passed down."""

    key: SigningKey
    environment: Environment
    transport: Transport
    store: Store
    engine: Engine
    sources: Source
    # What the engine asks for layers that it does not have.
    chains: LayerChains = field(default_factory=LayerChains)
    # Brings in outside data; None where the peer brings in only `sources`.
    ingest: Ingest | None = None
    # What honest engines differ by, where the owner had it measured.
    calibrations: Mapping[ContentId, Calibration] = field(default_factory=dict)
    # Proofs of small models; None where this peer makes and checks none.
    proofs: Proofs | None = None
    # By what the peer finds others, and is found, beside the network itself.
    around: Surroundings = NO_SURROUNDINGS


@dataclass(slots=True)
class Node:
    """A running peer. Made by `open_node`."""

    config: NodeConfig
    dependencies: Dependencies
    peers: Peers
    blobs: Blobs
    models: Models
    leg_server: LegServer
    offer_server: OfferServer
    order_server: OrderServer
    stage_server: StageServer
    verify_role: VerifyRole
    check_server: CheckServer
    contest_role: ContestRole
    keep_role: KeepRole
    copying: Copying
    tasks: TaskRunner
    probing: Probing
    rechecking: Rechecking
    background_checks: BackgroundChecks
    log_watch: LogWatch
    loader: ModelLoader
    started_at_s: float
    notes: Notes
    app_owner: AppOwner = field(init=False)
    # None in a network without a genesis.
    ledger: PeerLedger | None = None
    paying: PeerPaying | None = None
    # What is built on a peer, such as its gateway, adds its own part to `status` under a name.
    status_sources: dict[str, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)
    leave_asked: trio.Event = field(default_factory=trio.Event)
    _pauses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.app_owner = AppOwner(self.peers, self.dependencies.store, self.config.state)
        if self.config.genesis is not None and self.config.prices:
            # Until `begin_paying` work would be free.
            self._set_paused("its prices are not known yet")
            if RELAY in self.config.prices.models:
                self.peers.relaying.free = FreeBytes()

    @property
    def model_problems(self) -> dict[str, str]:
        """Why a model that was asked for is not there yet, in words."""
        return self.loader.problems

    def note(self, line: str) -> None:
        """Add a line to the log of this peer; the latest few are kept."""
        self.notes.note(line)

    def pause(self, why: str, *, by: str = MACHINE) -> None:
        """Take no work of others while OWNER or MACHINE has a reason; what is held is finished."""
        before, self._pauses[by] = self.leg_server.paused, why
        why = self._pauses.get(OWNER) or self._pauses.get(MACHINE, "")
        self._set_paused(why)
        if bool(why) is not bool(before):
            self.note(f"paused: {why}" if why else "goes on: it is not paused any more")
            self.peers.advertiser.changed()

    def _set_paused(self, why: str) -> None:
        self.leg_server.paused = self.verify_role.paused = self.keep_role.paused = why

    def begin_paying(self, paying: PeerPaying) -> None:
        """Pay others from now on, and ask for what this peer's owner wants."""
        self.paying = paying
        self.leg_server.dispatcher.directory.payer = self.tasks.checking.payer = paying.payer
        self.app_owner.pays.vouchers = paying.request_vouchers
        self.leg_server.till = self.verify_role.till = self.keep_role.till = paying.till
        self._set_paused(self._pauses.get(OWNER) or self._pauses.get(MACHINE, ""))
        self.peers.advertiser.changed()

    async def leave(self) -> None:
        """Take no new work, and finish what was taken, for at most `leave_s`."""
        self.leg_server.taking = False
        self.peers.advertiser.changed()
        with trio.move_on_after(self.config.leave_s):
            while self.leg_server.under_way or self.tasks.statistics().under_way:
                await trio.sleep(0.05)


@asynccontextmanager
async def open_node(config: NodeConfig, dependencies: Dependencies) -> AsyncIterator[Node]:
    """Start a peer and connect it to its network; TransportError or InputError if it cannot."""
    config, private = belonging(config, dependencies.key, dependencies.store)
    capacity = _Capacity(config)
    async with (
        open_peers(
            dependencies.transport,
            dependencies.key,
            config.peers,
            dependencies.environment,
            capacity.now,
            private,
            dependencies.around,
        ) as peers,
        trio.open_nursery() as nursery,
    ):
        node = _assembled(config, dependencies, peers, nursery)
        for name in config.models:
            # An unknown name is refused before others are met; a file that fails is reported.
            with suppress(ModelRefused):
                await node.models.check_meant(name, config.layers)
        capacity.node = node
        offers = node.offer_server
        peers.handlers |= {Offer: offers.on_offer, Quote: offers.on_quote}
        peers.handlers[Open] = node.order_server.on_open
        peers.handlers |= node.blobs.handlers()
        peers.handlers |= {Check: node.verify_role.on_check, OpenChecks: node.check_server.on_open}
        peers.handlers |= {Contest: node.contest_role.on_contest, Keep: node.keep_role.on_keep}
        peers.handlers[StageOpen] = node.stage_server.on_open
        peers.handlers |= node.log_watch.role.handlers() | node.app_owner.handlers()
        peers.handlers |= ContributeRole(peers, node.verify_role.willing).handlers()
        dependencies.chains.attach(peers, nursery)
        for peer, addresses in remembered(dependencies.store):
            peers.dialing.remember(peer, addresses)
        await peers.join()
        node.status_sources |= peers.found_maps()
        if config.genesis is not None:
            store, keeps = dependencies.store, Role.LEDGER in config.roles
            node.ledger = await open_ledger(peers, store, config.genesis, nursery, keeps=keeps)
            node.ledger.keep_evidence(node.log_watch.files.write, nursery)
            node.tasks.checking.weight = node.ledger.stakes.verifier_weight
            await node.ledger.faucet.start(config.sponsoring)
            node.status_sources |= node.ledger.sources()
            node.app_owner.ledger = node.ledger
            nursery.start_soon(JuryDuty(node.ledger, OwnJudge(node.verify_role)).run)
            own = OwnTariff(
                peers, dependencies.store, config.genesis, config.prices, node.models.made_ready.get
            )
            wallet, most = node.ledger.wallet, config.relay_pay_max
            node.begin_paying(await open_paying(node.blobs, own, wallet, nursery, most))
            node.status_sources["paying"] = node.paying.statistics if node.paying else dict
        if config.gateway is None and config.roles <= {Role.INFER, Role.VERIFY}:
            node.loader.needed = set(config.models)
        for name in config.models:
            node.loader.start(name)
        nursery.start_soon(node.leg_server.finishing.run)
        nursery.start_soon(remember_forever, dependencies.store, peers.dialing, node.note)
        for part in (node.rechecking, node.background_checks, node.keep_role, node.log_watch):
            nursery.start_soon(part.run)
        await node.tasks.resume()
        try:
            yield node
            await node.leave()
        finally:
            dependencies.chains.detach()
            nursery.cancel_scope.cancel()


def _assembled(
    config: NodeConfig, dependencies: Dependencies, peers: Peers, nursery: trio.Nursery
) -> Node:
    blobs, answers = Blobs(dependencies.store, peers), Answers(dependencies.store)
    dispatcher = Dispatcher(PeerDirectory(peers, nursery, orders=Orders(peers, nursery)))
    infer = InferRole(dependencies.engine, blobs, IndexCache(blobs), dependencies.proofs)
    verifies = Role.VERIFY in config.roles
    lines = Notes(LINES_KEPT, trio.current_time)

    def watch(event: Event) -> None:
        if isinstance(event, Failed):
            lines.note(f"{event.what}: {event.peer.short}: {event.why}")

    leg_server = LegServer(
        dependencies.key,
        dependencies.environment,
        dependencies.store,
        blobs,
        dispatcher,
        _roles(config, dependencies, infer, blobs),
        watch,
        peers.handshake_log.whose_clock,
    )
    checking = Checking(peers, CheckOrders(peers, nursery), Contributions(peers, nursery))
    models = Models(dependencies.store, blobs, dependencies.engine, config.state / "models")
    exact_files, files = ExactFiles(models), RecordFiles(config.state / "receipts")
    judge = OwnJudge(_verify_role(config, dependencies, infer, blobs))
    disputing = Disputing(Settling(peers), blobs, exact_files, files, models.learn, judge)
    tasks = TaskRunner(
        dependencies.key,
        dependencies.environment,
        dependencies.store,
        blobs,
        dispatcher,
        checking,
        answers,
        nursery,
        disputing,
    )

    def changed(line: str) -> None:
        lines.note(line)
        peers.advertiser.changed()

    rechecking = Rechecking(dependencies.store, checking, answers, tasks)
    probing = Probing(peers.me, dependencies.engine, infer, changed, dependencies.chains)
    return Node(
        config=config,
        dependencies=dependencies,
        peers=peers,
        blobs=blobs,
        models=models,
        leg_server=leg_server,
        offer_server=OfferServer(leg_server),
        order_server=OrderServer(legs=leg_server),
        stage_server=StageServer(dependencies.engine, leg_server, peers, dependencies.key),
        verify_role=judge.verify_role,
        check_server=CheckServer(verify_role=judge.verify_role, peers=peers),
        contest_role=ContestRole(dependencies.key, blobs, exact_files, verifies=verifies),
        keep_role=KeepRole(blobs, willing=Role.STORE in config.roles),
        copying=Copying(blobs, dispatcher.directory),
        tasks=tasks,
        probing=probing,
        rechecking=rechecking,
        background_checks=_background_checks(config, dependencies, rechecking),
        log_watch=_log_watch(config, peers, leg_server, answers, nursery),
        loader=ModelLoader(models, probing, nursery, infer.prepare_proofs),
        started_at_s=trio.current_time(),
        notes=lines,
    )


def _roles(
    config: NodeConfig, dependencies: Dependencies, infer: InferRole, blobs: Blobs
) -> dict[Role, LegRole]:
    data = data_role(dependencies.sources, dependencies.ingest, blobs)
    roles: dict[Role, LegRole] = {Role.DATA: data, Role.INFER: infer}
    return {role: roles[role] for role in roles if role in config.roles}


def _verify_role(
    config: NodeConfig, dependencies: Dependencies, infer: InferRole, blobs: Blobs
) -> VerifyRole:
    return VerifyRole(
        dependencies.key,
        dependencies.environment,
        dependencies.engine,
        infer,
        blobs,
        willing=Role.VERIFY in config.roles,
        calibrations=dependencies.calibrations,
    )


def _log_watch(
    config: NodeConfig, peers: Peers, server: LegServer, answers: Answers, nursery: trio.Nursery
) -> LogWatch:
    role = LogRole(server.finishing.log, LogBook(lambda it: peers.view.advert_of(it) is not None))
    return LogWatch(
        peers,
        role,
        answers,
        RecordFiles(config.state / "receipts"),
        nursery,
        peers.environment.random,
    )


def _background_checks(
    config: NodeConfig, dependencies: Dependencies, rechecking: Rechecking
) -> BackgroundChecks:
    share = config.background_checks
    secret = dependencies.environment.entropy(32) if share else b""
    checking, canaries = rechecking.checking, Canaries(rechecking.checking)
    return BackgroundChecks(checking, rechecking.answers, rechecking, share, secret, canaries)


@dataclass(slots=True)
class _Capacity:
    """What the next advert says of this peer."""

    config: NodeConfig
    # None until the node is made: the first advert is needed before that.
    node: Node | None = None

    def now(self) -> Capacity:
        if (node := self.node) is None:
            return Capacity(roles=self.config.role_bits, models=(), free_slots=0, queue_s=0.0)
        taking = node.leg_server.taking and not node.leg_server.paused
        fair_queue = node.verify_role.infer_role.fair_queue
        own = None if node.paying is None else node.paying.own
        return Capacity(
            roles=self.config.role_bits if taking else 0,
            models=tuple(map(offer_of, node.probing.offered() if taking else ())),
            free_slots=max(0, min(fair_queue.free_slots, 65_535)) if taking else 0,
            queue_s=min(fair_queue.queue_s, 1e6),
            tariff=None if own is None or own.now is None else own.now.id,
            price=0 if own is None else own.price,
            stake=0 if node.ledger is None else node.ledger.stakes.row(node.peers.me).bonded,
        )
