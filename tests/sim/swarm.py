"""A swarm of peers that connect, swap and disconnect as in `p2p.neighbours`, in one thread.

Baton's shells are written here once more, as calls on a heap; the cores that decide are Baton's
own. The topic for urgent messages is left out: adverts travel by swaps alone, which is the harder
case.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from p2p.neighbours import (
    CONNECTIONS_KEPT,
    CONNECTIONS_MAX,
    QUICK_SWAP_S,
    SWAP_DEADLINE_S,
)
from tests.sim.events import Loop
from tests.sim.faults import Faults
from tests.sim.links import Links
from tests.sim.peer import Peer
from tests.sim.population import Rare, address_of, key_of, offers
from wire import limits
from wire.advert import Advert
from wire.content import PeerId
from wire.kinds import Role
from wire.signed import Signed

DIAL_DEADLINE_S = 8.0
# A silent connection is pinged, and dropped within ten seconds.
SILENT_S = (5.0, 10.0)
# A peer with enough neighbours need not look for more each second.
LOOK_S, LOOK_CONTENT_S = 1.0, 15.0
# All peers have joined after so long.
JOINING_S = 30.0
# How many addresses all peers together remember: only this machine's memory needs this bound.
_KNOWN_MAX, _KNOWN_IN_ALL = 1000, 2_000_000
_HELD_MAX = 256


@dataclass(slots=True)
class Counted:
    """Counts of gossip since the last measurement."""

    digest_bytes: int = 0
    advert_bytes: int = 0
    swaps: int = 0
    changed: int = 0


@dataclass(slots=True)
class Swarm:
    """Made by `swarm_of`. Numbers name peers; keys name them to each other."""

    loop: Loop
    links: Links
    peers: list[Peer]
    bootstraps: list[str]
    random: Random
    by_key: dict[PeerId, Peer]
    by_address: dict[str, Peer]
    counted: Counted = field(default_factory=Counted)
    _connection: int = 0
    _call: int = 0

    # Life and death

    def introduce(self, peer: Peer, other: Peer) -> None:
        """Let two peers know each other before the swarm begins."""
        self._connection += 1
        self._connect(peer, other, self._connection)
        self._connect(other, peer, self._connection)
        peer.view.origins.called.add(other.key)

    def begin(self, peer: Peer, look_s: float, swap_s: float) -> None:
        self.after(look_s, self._look, peer, peer.life)
        self.after(swap_s, self._swap_forever, peer, peer.life)

    def join(self, peer: Peer) -> None:
        count = min(3, len(self.bootstraps))
        peer.start(self.loop.now_at_s, self.random.sample(self.bootstraps, count))
        self._look(peer, peer.life)
        self._swap_forever(peer, peer.life)

    def kill(self, peer: Peer) -> None:
        """The peer's process is gone; its kernel closes the connections."""
        if not peer.up:
            return
        peer.up = peer.frozen = False
        for key, connection in peer.neighbours.items():
            other = self.by_key[key]
            delay_s = self.links.usual_s(peer.number, other.number)
            if self.links.blocked(peer.number, other.number):
                delay_s = self.random.uniform(*SILENT_S)
            self.after(delay_s, self._down, other, peer.key, connection)
        peer.neighbours = {}

    def leave(self, peer: Peer) -> None:
        if not peer.awake:
            return
        for key in list(peer.neighbours):
            self._part(peer, self.by_key[key], peer.good_bye(self.loop.now_at_s))
        peer.up = False

    def freeze(self, peer: Peer) -> None:
        if peer.awake:
            peer.frozen = True
            self.fall_silent(peer)

    def thaw(self, peer: Peer, life: int) -> None:
        """Wake a peer: first it gets the calls that waited, then finds its connections gone."""
        if not peer.frozen or peer.life != life:
            return
        peer.frozen = False
        held, peer.held = peer.held, []
        for call, *arguments in held:
            call(*arguments)  # type: ignore[operator]
        for key, connection in list(peer.neighbours.items()):
            other = self.by_key[key]
            if other.neighbours.get(peer.key) != connection:
                self.after(LOOK_S, self._down, peer, key, connection)

    def fall_silent(self, peer: Peer) -> None:
        """Break the peer's connections at the next ping, if it is still silent then."""
        for key, connection in peer.neighbours.items():
            self.after(self.random.uniform(*SILENT_S), self._pinged, peer, key, connection)

    def _pinged(self, peer: Peer, key: PeerId, connection: int) -> None:
        other = self.by_key[key]
        apart = self.links.blocked(peer.number, other.number)
        apart = apart or self.links.blocked(other.number, peer.number)
        for one, two in ((peer, other), (other, peer)):
            if (apart or two.frozen) and not one.frozen:
                self._down(one, two.key, connection)

    # What a peer does by itself

    def after(self, delay_s: float, call: Any, peer: Peer, *arguments: Any) -> None:
        self.loop.after(delay_s, self._do, peer, peer.life, call, arguments)

    def _do(self, peer: Peer, life: int, call: Any, arguments: tuple[Any, ...]) -> None:
        if not peer.up or peer.life != life:
            return
        if peer.frozen:
            if len(peer.held) < _HELD_MAX:
                peer.held.append((call, peer, *arguments))
            return
        call(peer, *arguments)

    def _look(self, peer: Peer, life: int) -> None:
        self._dial(peer)
        wanted = peer.dialing.config.connections_wanted
        content = len(peer.neighbours) >= wanted
        self.after(LOOK_CONTENT_S if content else LOOK_S, self._look, peer, life)

    def _trim(self, peer: Peer) -> None:
        if len(peer.neighbours) > CONNECTIONS_MAX:
            for key in list(peer.neighbours)[: len(peer.neighbours) - CONNECTIONS_KEPT]:
                self._part(peer, self.by_key[key], peer.mine(self.loop.now_at_s))

    def _dial(self, peer: Peer) -> None:
        for dial in peer.dialing.due(self.loop.now_at_s):
            self._call += 1
            peer.calls[self._call] = dial
            other = self.by_address.get(dial.addresses[0])
            wait_s = DIAL_DEADLINE_S
            if other is None or dial.peer not in (None, other.key):
                # The peer that answers at this address is not the one that was called.
                other = None
            elif not other.up and not self.links.blocked(other.number, peer.number):
                wait_s = 2 * self.links.usual_s(peer.number, other.number)
            if other is not None:
                mine = peer.mine(self.loop.now_at_s)
                wanted = peer.swapping.wanted_at_hello()
                self.send(peer, other, self._hello, mine, wanted, self._call)
            self.after(wait_s, self._not_met, peer, self._call, other)

    def _not_met(self, peer: Peer, call: int, other: Peer | None) -> None:
        dial = peer.calls.pop(call, None)
        if dial is None:
            return
        peer.dialing.failed(dial, self.loop.now_at_s)
        # The other side may have connected all the same; its end closes with ours.
        if other is not None and other.up and other.key not in peer.neighbours:
            self._down(other, peer.key, other.neighbours.get(peer.key, 0))

    def _swap_forever(self, peer: Peer, life: int) -> None:
        now_at_s = self.loop.now_at_s
        peer.expire(now_at_s)
        if peer.neighbours:
            peer.quick_swaps = max(0, peer.quick_swaps - 1)
            key = peer.meetings.longest_unheard(list(peer.neighbours), peer.random)
            digest = peer.swapping.digest(peer.mine(now_at_s), peer.wall_s(now_at_s))
            self.counted.digest_bytes += len(digest)
            self.counted.swaps += 1
            self._used(peer, key)
            self.send(peer, self.by_key[key], self._on_swap, digest)
        every_s = peer.pace.swap_every_s(peer.swapping.peers())
        pause_s = QUICK_SWAP_S if peer.quick_swaps or peer.flooding else every_s
        self.after(pause_s * (0.5 + peer.random.random()), self._swap_forever, peer, life)

    # Messages

    def send(self, source: Peer, target: Peer, call: Any, *arguments: Any) -> None:
        """Send a message: `call(target, source, ...)` runs when it arrives, if it arrives."""
        if not target.up:
            return
        for delay_s in self.links.delays(source.number, target.number, self.loop.now_at_s):
            self.after(delay_s, call, target, source, *arguments)

    def _hello(
        self, peer: Peer, source: Peer, advert: Signed[Advert], wanted: int, call: int
    ) -> None:
        now_at_s = self.loop.now_at_s
        self._hear(peer, (advert,), source.key)
        others = peer.swapping.some(wanted, source.key, peer.wall_s(now_at_s))
        told = (peer.mine(now_at_s), *others)
        self._connection += 1
        self._connect(peer, source, self._connection)
        self.send(peer, source, self._welcome, told, peer.swapping.peers(), call, self._connection)

    def _welcome(
        self,
        peer: Peer,
        source: Peer,
        adverts: Sequence[Signed[Advert]],
        peers: int,
        call: int,
        connection: int,
    ) -> None:
        if call not in peer.calls or source.neighbours.get(peer.key) != connection:
            return
        dial = peer.calls.pop(call)
        peer.view.origins.called.add(source.key)
        self._hear(peer, adverts, source.key)
        peer.swapping.told_peers = peer.swapping.told_peers or peers
        peer.dialing.succeeded(dial, source.key)
        self._connect(peer, source, connection)
        peer.meetings.answered(source.key, self.loop.now_at_s)

    def _on_swap(self, peer: Peer, source: Peer, digest: bytes) -> None:
        wall_s, now_at_s = peer.wall_s(self.loop.now_at_s), self.loop.now_at_s
        told = peer.swapping.compare(digest, peer.mine(now_at_s), source.key, wall_s)
        adverts = self._flood(peer) if peer.flooding else told.adverts
        self.send(peer, source, self._on_newer, adverts, told.wanted, now_at_s)

    def _on_newer(
        self,
        peer: Peer,
        source: Peer,
        adverts: Sequence[Signed[Advert]],
        wanted: bytes,
        swapped_s: float,
    ) -> None:
        now_at_s = self.loop.now_at_s
        mine = peer.mine(now_at_s)
        told = peer.swapping.wanted(wanted, mine, peer.wall_s(now_at_s))
        if peer.flooding:
            told = self._flood(peer)
        self.counted.digest_bytes += len(wanted)
        self._hear(peer, adverts, source.key)
        if now_at_s - swapped_s < SWAP_DEADLINE_S:
            peer.meetings.answered(source.key, now_at_s)
        self.send(peer, source, self._on_last, told)

    def _on_last(self, peer: Peer, source: Peer, adverts: Sequence[Signed[Advert]]) -> None:
        peer.meetings.answered(source.key, self.loop.now_at_s)
        self._used(peer, source.key)
        self._hear(peer, adverts, source.key)

    def _hear(
        self, peer: Peer, adverts: Sequence[Signed[Advert]], introducer: PeerId | None
    ) -> None:
        self.counted.advert_bytes += sum([len(it.raw) for it in adverts])
        changed = peer.hear(adverts, introducer, self.loop.now_at_s)
        self.counted.changed += changed
        self.loop.fold(f"{peer.number} {len(adverts)} {changed} {len(peer.view)}")

    def _flood(self, peer: Peer) -> tuple[Signed[Advert], ...]:
        """As many adverts of made-up keys as a message carries."""
        mine = peer.mine(self.loop.now_at_s)
        count = limits.ADVERTS_PER_MESSAGE_MAX
        if peer.made_up:
            # They offer every model, are renewed like honest ones, and have no address.
            numbers = self.random.sample(range(peer.made_up), min(count, peer.made_up))
            record = replace(mine.record, roles=(1 << len(Role)) - 1, addresses=())
            made_up = (key_of(f"made up {peer.number} {it}") for it in numbers)
            return tuple(Signed(record, key, mine.raw, mine.id) for key in made_up)
        keys = (key_of(f"made up {peer.number} {self.loop.now_at_s} {it}") for it in range(count))
        return tuple(Signed(mine.record, key, mine.raw, mine.id) for key in keys)

    # Connections

    def _used(self, peer: Peer, key: PeerId) -> None:
        connection = peer.neighbours.pop(key, None)
        if connection is not None:
            peer.neighbours[key] = connection

    def _connect(self, peer: Peer, other: Peer, connection: int) -> None:
        peer.neighbours[other.key] = connection
        if len(peer.neighbours) == CONNECTIONS_MAX + 1:
            self.after(LOOK_S, self._trim, peer)
        peer.view.connected.add(other.key)
        peer.dialing.connected(other.key)

    def _part(self, peer: Peer, other: Peer, advert: Signed[Advert]) -> None:
        connection = peer.neighbours[other.key]
        self._gone(peer, other.key)
        self.send(peer, other, self._on_part, advert, connection)

    def _on_part(self, peer: Peer, source: Peer, advert: Signed[Advert], connection: int) -> None:
        self._hear(peer, (advert,), source.key)
        if peer.neighbours.get(source.key) == connection:
            self._gone(peer, source.key)

    def _down(self, peer: Peer, key: PeerId, connection: int) -> None:
        """Handle a broken connection: the peer at the other end may be gone for good."""
        if peer.neighbours.get(key) == connection:
            self._gone(peer, key, lost=True)
            peer.forget(key)

    def _gone(self, peer: Peer, key: PeerId, *, lost: bool = False) -> None:
        del peer.neighbours[key]
        peer.view.connected.discard(key)
        peer.view.origins.called.discard(key)
        peer.dialing.disconnected(key, self.loop.now_at_s, lost=lost)
        if lost or len(peer.neighbours) < peer.dialing.config.connections_wanted:
            self.after(LOOK_S, self._dial, peer)


def swarm_of(peers: int, faults: Faults, seconds: float, rare: Rare) -> Swarm:
    """A swarm of so many peers, none of which is up yet."""
    all_offers = offers(peers, faults.seed, rare)
    known_max = min(_KNOWN_MAX, _KNOWN_IN_ALL // peers)
    members = [
        Peer(number, key_of(f"{number}"), offer, Random(f"{faults.seed}:peer:{number}"), known_max)
        for number, offer in enumerate(all_offers)
    ]
    random = Random(f"{faults.seed}:swarm")
    addresses = [address_of(it.number, it.key) for it in members]
    return Swarm(
        Loop(),
        Links.between(peers, faults, seconds),
        members,
        addresses[: max(3, peers // 250)],
        random,
        {it.key: it for it in members},
        dict(zip(addresses, members, strict=True)),
    )


def join_all(swarm: Swarm, peers: list[Peer]) -> None:
    """Start all peers; the first ones at once, because the others call them."""
    first = len(swarm.bootstraps)
    for peer in peers:
        at_s = 0.0 if peer.number < first else swarm.random.uniform(1.0, JOINING_S)
        swarm.loop.after(at_s, swarm.join, peer)
