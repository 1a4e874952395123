"""A swarm that begins as if it had run for long.

Most peers start connected, each with a view drawn at random from all others; the rest join as in
any other swarm. This skips the minutes in which thousands of empty views fill; runs of smaller
swarms measure those. All that happens after the start goes through the same cores.
"""

from random import Random

from p2p.dialing import Dial
from p2p.gossip_rate import GossipRateConfig, GossipRateLimit
from tests.sim.peer import Peer
from tests.sim.swarm import LOOK_CONTENT_S, Swarm
from wire.advert import Advert
from wire.signed import Signed

# How many connections each peer has begun; others have begun as many with it.
_CALLED = 6
# One of so many peers joins cold.
_COLD_OF = 100


def warm(swarm: Swarm, seed: int) -> list[Peer]:
    """Start most of the peers; returns those that have yet to join."""
    random = Random(f"{seed}:warm")
    count = len(swarm.peers) - len(swarm.peers) // _COLD_OF
    there, later = swarm.peers[:count], swarm.peers[count:]
    for peer in there:
        addresses = random.sample(swarm.bootstraps, min(3, len(swarm.bootstraps)))
        peer.start(0.0, addresses)
        peer.quick_swaps = 0
        for address in addresses:
            peer.dialing.succeeded(Dial(None, (address,)), swarm.by_address[address].key)
    adverts = _adverts(there, random)
    _connect(swarm, there, random)
    _fill(there, adverts, random)
    _begin(swarm, there, random)
    return later


def _adverts(there: list[Peer], random: Random) -> list[Signed[Advert]]:
    """The last advert of each peer, made at some moment of the period before now."""
    pace = GossipRateLimit(GossipRateConfig(), there[0].view.config.adverts_max)
    period_s, ttl_s = pace.period_s(len(there)), pace.ttl_s(len(there))
    return [it.spoke(random.uniform(0.0, period_s), ttl_s) for it in there]


def _connect(swarm: Swarm, there: list[Peer], random: Random) -> None:
    for peer in there:
        for other in random.sample(there, _CALLED):
            if other is not peer and other.key not in peer.neighbours:
                swarm.introduce(peer, other)
    for peer in there:
        for key in peer.neighbours:
            peer.hear((swarm.by_key[key].mine(0.0),), key, 0.0)


def _fill(there: list[Peer], adverts: list[Signed[Advert]], random: Random) -> None:
    """Fill each view with as many adverts as it has room for, heard at some time before."""
    numbers = range(len(there))
    for peer in there:
        for number in random.sample(numbers, min(len(there), peer.view.config.adverts_max)):
            if number != peer.number:
                peer.hear((adverts[number],), adverts[number].signer, 0.0)


def _begin(swarm: Swarm, there: list[Peer], random: Random) -> None:
    """Give each peer one digest of another, from which it can estimate the network's size."""
    for peer in there:
        other = random.choice(there)
        told = other.swapping.digest(other.mine(0.0), other.wall_s(0.0))
        peer.swapping.compare(told, peer.mine(0.0), other.key, peer.wall_s(0.0))
        every_s = peer.pace.swap_every_s(peer.swapping.peers())
        swarm.begin(peer, LOOK_CONTENT_S * random.random(), every_s * random.random())
    for peer in there:
        peer.heard = 0
