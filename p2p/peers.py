"""A peer among peers: the door, the neighbours, what is believed of the others, put together."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from p2p.admission import refuse_claim
from p2p.adverts import Advertiser, Capacity, Environment
from p2p.anti_entropy import AntiEntropy
from p2p.dial_back import DialingBack
from p2p.dialing import Dialing
from p2p.discovery import Discovery
from p2p.gossip_rate import GossipRateConfig, GossipRateLimit
from p2p.handshake_log import HandshakeLog
from p2p.ip_address import for_neighbours
from p2p.joining import NETWORK_DEFAULT, Joining
from p2p.lan import LanDiscovery, LanService
from p2p.members import Members, PrivateNetwork, open_members
from p2p.neighbours import Neighbours
from p2p.peer_rpc import Handler, PeerRpc
from p2p.port_mapping import PortRouter
from p2p.punching import Punching
from p2p.reachability import Reachability
from p2p.recovery import Recovery
from p2p.relay_checks import RelayChecks
from p2p.relaying import Relaying
from p2p.routes import outgoing_hosts
from p2p.seeds import SeedDiscovery, SeedService
from p2p.streams import open_streams
from p2p.transport import Transport
from p2p.view import View
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.membership import ClaimInvite
from wire.message import Goodbye, Hello, Ping, Seek, Swap
from wire.ownership import Ownership
from wire.reach import DialBack, Reserve
from wire.signed import Signed
from wire.signing import SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersConfig:
    """How a peer takes its place in a network."""

    network: str = NETWORK_DEFAULT
    bootstraps: tuple[str, ...] = ()
    # Names in the DNS that tell of peers, and whether they may tell of private addresses.
    seed_names: tuple[str, ...] = ()
    private_seeds: bool = False
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    advert_ttl_s: int = 90
    # Each neighbour is heard once in a while: at ten of them, both swapping, twice a minute.
    swap_every_s: float = 5.0
    dial_deadline_s: float = 8.0
    # Whether a start at which no bootstrap answers goes on, and calls them for ever.
    keep_calling: bool = False
    # Whether this peer passes calls on to peers behind routers, once it is open itself.
    relays: bool = True
    # Whose this peer is, as its adverts are to say.
    ownership: Ownership | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """By what a peer finds others and is found, beside the network; None: not by that."""

    # Peers of the local network find each other.
    lan: LanService | None = None
    # Calls from outside come in by a port of the home router.
    router: PortRouter | None = None
    # Who answers for the names that the user gave.
    seeds: SeedService | None = None

    def only(self, *, lan: bool, router: bool) -> "Surroundings":
        """Without what the user does not want."""
        return replace(self, lan=self.lan if lan else None, router=self.router if router else None)


NO_SURROUNDINGS = Surroundings()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersStatistics:
    """Counts since the start."""

    adverts_heard: int
    adverts_refused: Mapping[str, int]
    calls_served: int
    calls_failed: int
    # After which time something on the way ends connections, if it does.
    cut_after_s: float | None


@dataclass(slots=True, kw_only=True)
class Peers(PeerRpc):
    """Made by `open_peers`."""

    config: PeersConfig
    advertiser: Advertiser
    handshake_log: HandshakeLog
    anti_entropy: AntiEntropy
    neighbours: Neighbours = field(init=False)
    discovery: Discovery = field(init=False)
    dialing_back: DialingBack = field(init=False)
    relaying: Relaying = field(init=False)
    relay_checks: RelayChecks = field(init=False)
    recovery: Recovery = field(init=False)
    punching: Punching = field(init=False)
    # None in an open network.
    members: Members | None = None
    # None where the local network is not spoken to.
    lan: LanDiscovery | None = None
    # None where the user named no names.
    seeds: SeedDiscovery | None = None

    def __post_init__(self) -> None:
        # They call through this peer's own streams, so they are made with it.
        self.neighbours = Neighbours(
            self,
            self.config.network,
            self.advertiser,
            self.handshake_log,
            bootstraps=self.config.bootstraps,
            keep_calling=self.config.keep_calling,
        )
        self.discovery = Discovery(self, self.advertiser)
        reachability = Reachability(self.me, self.environment.random)
        self.dialing_back = DialingBack(self, self.neighbours, self.advertiser, reachability)
        self.relaying = Relaying(self, self.neighbours, self.advertiser, self.dialing_back)
        self.relaying.willing = self.config.relays
        self.relay_checks = RelayChecks(self, self.neighbours, self.dialing_back, self.relaying)
        self.punching = Punching(self, self.relaying)
        self.recovery = Recovery(self.neighbours, self.dialing_back, self.relaying)
        self.dialing_back.kept = self.relaying.addresses
        self.neighbours.held = self.relaying.held
        self.neighbours.is_called = self.dialing_back.is_called
        self.advertiser.announced = self.dialing_back.announced
        self.advertiser.ownership = self.config.ownership
        self.advertiser.problem = self.blame
        self.advertiser.same_key = self.neighbours.on_same_key
        self.advertiser.from_future = self._note_clock
        self.handlers |= {
            Hello: self.neighbours.on_hello,
            Ping: self.neighbours.on_ping,
            Swap: self.neighbours.on_swap,
            Goodbye: self.neighbours.on_part,
            Seek: self.discovery.on_seek,
            DialBack: self.dialing_back.on_dial_back,
            Reserve: self.relaying.on_reserve,
            ClaimInvite: refuse_claim,
        }

    def _note_clock(self, peer: PeerId, ahead_s: float) -> None:
        words = self.handshake_log.whose_clock(ahead_s, f"the clock of {peer.short}")
        self.note_problem(f"clock of {peer}", f"an advert is refused: {words}")

    def statistics(self) -> PeersStatistics:
        """Adverts heard and refused, calls served and failed, since the peer started."""
        return PeersStatistics(
            adverts_heard=self.advertiser.heard,
            adverts_refused=dict(self.advertiser.refused),
            calls_served=self.served,
            calls_failed=self.failed,
            cut_after_s=self.neighbours.connection_ages.cut_after_s(),
        )

    def answered_last_minute(self) -> tuple[int, int]:
        """Of how many connected peers how many saw and answered us in the last minute: (n, m)."""
        there = self.connected()
        return self.handshake_log.answered_within(there, trio.current_time(), 60.0), len(there)

    def mine(self) -> Signed[Advert]:
        """What we say of ourselves."""
        return self.advertiser.mine(self.endpoint)

    def reach_map(self) -> dict[str, object]:
        """How others reach this peer, and how its network changed, for `status`."""
        parts = (
            self.dialing_back,
            self.relaying,
            self.relay_checks,
            self.punching,
            self.recovery,
        )
        return {name: value for it in parts for name, value in it.as_map().items()}

    def joining(self) -> Joining:
        """How another machine joins this network."""
        members = self.members
        return Joining(
            address=for_neighbours(self.endpoint.addresses, outgoing_hosts()),
            network=self.config.network,
            is_private=members is not None,
            is_owner=members is not None and members.is_owner,
        )

    def look_around(self, around: Surroundings) -> None:
        """Be ready to find others by what is there."""
        config = self.config
        if around.lan is not None:
            self.lan = LanDiscovery(self, config.network, around.lan, outgoing_hosts)
            self.punching.nearby = self.lan.where
        if around.seeds is not None and config.seed_names:
            self.seeds = SeedDiscovery(
                self, config.seed_names, around.seeds, private=config.private_seeds
            )
            self.recovery.seeds = self.seeds

    def found_maps(self) -> dict[str, Callable[[], Mapping[str, object]]]:
        """How others are found, by name, for `status`."""
        parts = {"local_network": self.lan, "seeds": self.seeds, "membership": self.members}
        return {name: it.as_map for name, it in parts.items() if it is not None}

    async def join(self) -> None:
        """Meet one bootstrap or known peer; Unreachable, naming each tried, if none answers."""
        await self.neighbours.join()

    async def seek(
        self, role: Role, model: ContentId | None, *, deadline_s: float
    ) -> list[Signed[Advert]]:
        """Look further than the view for who plays `role` with `model`; empty if nobody does."""
        return await self.discovery.seek(role, model, deadline_s=deadline_s)


@asynccontextmanager
async def open_peers(
    transport: Transport,
    key: SigningKey,
    config: PeersConfig,
    environment: Environment,
    capacity: Callable[[], Capacity],
    private: PrivateNetwork | None = None,
    around: Surroundings = NO_SURROUNDINGS,
) -> AsyncIterator[Peers]:
    """Take part in a network for as long as the block runs; `await peers.join()` to meet it.

    In a private network nobody is answered, and nobody asked, who shows no membership.
    """
    peers = _assembled(key, config, environment, capacity)
    if private is not None:
        peers.members = open_members(peers, peers.neighbours, private)
    peers.look_around(around)
    neighbours, advertiser = peers.neighbours, peers.advertiser
    async with open_streams(transport, key, config.listen, serve=peers.serve) as streams:
        peers.streams = streams
        streams.endpoint.watch(neighbours.on_connection)
        streams.endpoint.watch(peers.dialing_back.on_connection)
        streams.endpoint.watch(peers.relaying.on_connection)
        streams.endpoint.watch(peers.recovery.on_connection)
        streams.endpoint.set_relay_rules(peers.relaying)
        async with trio.open_nursery() as nursery:
            if peers.members is None:
                nursery.start_soon(advertiser.listen_forever, streams.endpoint)
            else:
                nursery.start_soon(peers.members.keep_up_forever)
            nursery.start_soon(advertiser.speak_forever, streams.endpoint)
            nursery.start_soon(neighbours.keep_up_forever)
            nursery.start_soon(neighbours.swap_forever)
            nursery.start_soon(peers.dialing_back.ask_forever)
            nursery.start_soon(peers.relaying.keep_up_forever)
            nursery.start_soon(peers.relay_checks.keep_up_forever)
            nursery.start_soon(peers.recovery.watch_forever)
            nursery.start_soon(peers.punching.keep_up_forever)
            if around.router is not None:
                nursery.start_soon(peers.dialing_back.map_forever, around.router)
            if peers.lan is not None:
                nursery.start_soon(peers.lan.run_forever)
            if peers.seeds is not None:
                nursery.start_soon(peers.seeds.run_forever)
            try:
                yield peers
                await neighbours.leave()
                await advertiser.say_good_bye(streams.endpoint)
            finally:
                nursery.cancel_scope.cancel()


def _assembled(
    key: SigningKey, config: PeersConfig, environment: Environment, capacity: Callable[[], Capacity]
) -> Peers:
    instance = environment.entropy(8)
    view = View(key.peer, instance)
    dialing = Dialing(key.peer, environment.random)
    for address in config.bootstraps:
        dialing.add_bootstrap(address)
    anti_entropy = AntiEntropy(view, environment.random)
    advertiser = Advertiser(
        key,
        instance,
        f"baton/1/{config.network}/adverts",
        environment,
        capacity,
        view,
        dialing,
        anti_entropy,
        GossipRateLimit(
            GossipRateConfig(ttl_s=config.advert_ttl_s, swap_s=config.swap_every_s),
            view.config.adverts_max,
        ),
    )
    return Peers(
        key=key,
        environment=environment,
        view=view,
        dialing=dialing,
        dial_deadline_s=config.dial_deadline_s,
        config=config,
        advertiser=advertiser,
        handshake_log=HandshakeLog(key.peer, instance, trio.current_time(), environment.wall_s()),
        anti_entropy=anti_entropy,
    )


__all__ = [
    "NO_SURROUNDINGS",
    "Capacity",
    "Handler",
    "Peers",
    "PeersConfig",
    "PeersStatistics",
    "Surroundings",
    "open_peers",
]
