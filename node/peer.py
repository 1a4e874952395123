"""One peer, put together: store, engine, the others, its roles, and its own clients' tasks.

The order of opening is the order of need; closing is the reverse, and nothing outlives the block.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from node.asking.answers import Answers
from node.asking.rechecking import Rechecking
from node.asking.tasks import Path
from node.checking.quorum import Checking
from node.config import NodeConfig
from node.dispatch.dispatcher import Handing
from node.engines.interface import Engine
from node.models.collection import Models
from node.models.loader import ServingModels
from node.models.probing import Probing
from node.serving.data_role import DataRole
from node.serving.fair_queue import Turns
from node.serving.infer_role import InferRole
from node.serving.leg_server import LegServer
from node.serving.nearest import IndexCache
from node.serving.role import LegRole
from node.serving.sources import Source
from node.serving.verify_role import VerifyRole
from node.task.events import Event, Failed
from p2p.adverts import Offering, Seams
from p2p.blobs import Blobs
from p2p.peers import Peers, open_peers
from p2p.transport import Transport
from store import Store, Table
from wire.advert import ModelOffer
from wire.codec import pack, unpack
from wire.content import PeerId
from wire.errors import ModelRefused
from wire.kinds import Role
from wire.message import Check, Offer, Quote, Want
from wire.signing import SigningKey

KNOWN_PEERS_KEPT = 256
SAVE_PEERS_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What comes in through the seams: built in `node.__main__` or by a test, never below."""

    key: SigningKey
    seams: Seams
    transport: Transport
    store: Store
    engine: Engine
    sources: Source


@dataclass(slots=True)
class Node:
    """A running peer. Made by `open_node`."""

    config: NodeConfig
    parts: Parts
    peers: Peers
    blobs: Blobs
    models: Models
    legs: LegServer
    verify: VerifyRole
    path: Path
    probing: Probing
    rechecking: Rechecking
    serving: ServingModels
    started_s: float
    log: list[str] = field(default_factory=list)

    @property
    def model_problems(self) -> dict[str, str]:
        """Why a model that was asked for is not there yet, in words."""
        return self.serving.problems

    def note(self, line: str) -> None:
        """Keep one line of what happened, the latest few."""
        self.log.append(line)
        del self.log[:-64]

    def pause(self, why: str) -> None:
        """Take no work of others while `why` says a reason; what is held is finished."""
        before, self.legs.paused, self.verify.paused = self.legs.paused, why, why
        if bool(why) is not bool(before):
            self.note(f"paused: {why}" if why else "goes on: it is not paused any more")
            self.peers.herald.changed()

    async def leave(self) -> None:
        """Take nothing new, and finish what is held, as far as `leave_s` allows."""
        self.legs.taking = False
        self.peers.herald.changed()
        with trio.move_on_after(self.config.leave_s):
            while self.legs.under_way or self.path.statistics().under_way:
                await trio.sleep(0.05)


@asynccontextmanager
async def open_node(config: NodeConfig, parts: Parts) -> AsyncIterator[Node]:
    """Start a peer and have it meet its network; TransportError or InputError if it cannot."""
    offering = _Offering(config)
    async with (
        open_peers(parts.transport, parts.key, config.peers, parts.seams, offering.now) as peers,
        trio.open_nursery() as nursery,
    ):
        node = _assembled(config, parts, peers, nursery)
        for name in config.models:
            # A name that means nothing is refused before anybody is troubled with us; a file that
            # cannot be run is named, and the others are served.
            with suppress(ModelRefused):
                await node.models.check_meant(name)
        offering.legs, offering.turns = node.legs, node.verify.infer.turns
        offering.probing = node.probing
        peers.handlers[Offer] = node.legs.on_offer
        peers.handlers[Quote] = node.legs.on_quote
        peers.handlers[Want] = node.blobs.on_want
        peers.handlers[Check] = node.verify.on_check
        for peer, addresses in _remembered(parts.store):
            peers.dialing.learn(peer, addresses)
        await peers.join()
        if config.gateway is None and config.roles <= {Role.INFER, Role.VERIFY}:
            node.serving.needed = set(config.models)
        for name in config.models:
            node.serving.start(name)
        nursery.start_soon(_remember_forever, node)
        nursery.start_soon(node.rechecking.run)
        await node.path.resume()
        try:
            yield node
            await node.leave()
        finally:
            nursery.cancel_scope.cancel()


def _assembled(config: NodeConfig, parts: Parts, peers: Peers, nursery: trio.Nursery) -> Node:
    blobs = Blobs(parts.store, peers)
    handing = Handing(peers)
    infer = InferRole(parts.engine, blobs, IndexCache(blobs))
    roles: dict[Role, LegRole] = {}
    if Role.DATA in config.roles:
        roles[Role.DATA] = DataRole(parts.sources, parts.store)
    if Role.INFER in config.roles:
        roles[Role.INFER] = infer
    lines: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, Failed):
            lines.append(f"{event.what}: {event.peer.short}: {event.why}")
            del lines[:-64]

    legs = LegServer(parts.key, parts.seams, parts.store, blobs, handing, roles, watch)
    checking, answers = Checking(peers), Answers(parts.store)
    path = Path(parts.key, parts.seams, parts.store, blobs, handing, checking, answers, nursery)

    def changed(line: str) -> None:
        lines.append(line)
        del lines[:-64]
        peers.herald.changed()

    models = Models(parts.store, blobs, parts.engine, config.state / "models")
    probing = Probing(peers.me, parts.engine, infer, changed)
    return Node(
        config=config,
        parts=parts,
        peers=peers,
        blobs=blobs,
        models=models,
        legs=legs,
        verify=VerifyRole(
            parts.key,
            parts.seams,
            parts.engine,
            infer,
            blobs,
            willing=Role.VERIFY in config.roles,
        ),
        path=path,
        probing=probing,
        rechecking=Rechecking(parts.store, checking, answers, path),
        serving=ServingModels(models, probing, nursery),
        started_s=trio.current_time(),
        log=lines,
    )


@dataclass(slots=True)
class _Offering:
    """What the next advert says of this peer."""

    config: NodeConfig
    legs: LegServer | None = None
    turns: Turns | None = None
    probing: Probing | None = None

    def now(self) -> Offering:
        taking = self.legs is None or (self.legs.taking and not self.legs.paused)
        models = tuple(
            ModelOffer(
                model=it.model,
                name=it.manifest.name,
                units_per_s=min(it.units_per_s, 1e9),
            )
            for it in (self.probing.offered() if self.probing and taking else ())
        )
        return Offering(
            roles=self.config.role_bits if taking else 0,
            models=models,
            # With those who wait for their turn.
            free_slots=max(0, min(self.turns.free_slots, 65_535)) if self.turns and taking else 0,
            queue_s=min(self.turns.queue_s, 1e6) if self.turns else 0.0,
        )


def _remembered(store: Store) -> list[tuple[PeerId, tuple[str, ...]]]:
    rows = store.scan(Table.PEERS, limit=KNOWN_PEERS_KEPT)
    return [(PeerId(key), tuple(unpack(value))) for key, value in rows]


async def _remember_forever(node: Node) -> None:
    """Keep where others were, so that a restart finds its network without the bootstrap."""
    kept: dict[PeerId, tuple[str, ...]] = dict(_remembered(node.parts.store))
    while True:
        await trio.sleep(SAVE_PEERS_EVERY_S)
        known = dict(list(node.peers.dialing.known().items())[:KNOWN_PEERS_KEPT])
        for peer in kept.keys() - known.keys():
            node.parts.store.write_soon(Table.PEERS, peer, None)
        for peer, addresses in known.items():
            if kept.get(peer) != addresses:
                node.parts.store.write_soon(Table.PEERS, peer, pack(list(addresses)))
        kept = known
