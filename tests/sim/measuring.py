"""Measures a swarm at one moment, with knowledge of all peers that no single peer has."""

from dataclasses import dataclass
from random import Random
from statistics import mean, median

from p2p.discovery import TOLD_MAX, Search, fits
from tests.sim.peer import Broken, Peer
from tests.sim.population import Rare, model_of
from tests.sim.swarm import Swarm
from wire.advert import Advert
from wire.content import PeerId
from wire.kinds import Role
from wire.signed import Signed

# A view is complete if it has so many candidates for each role and model.
CANDIDATES = 8
# At most so many peers are looked at each time.
_SAMPLE = 400

Place = tuple[Role, object]


@dataclass(frozen=True, slots=True)
class Searched:
    """How searches for rare models went."""

    found_ratio: float
    hops: float
    asked: float
    asked_most: int


def sample(swarm: Swarm) -> list[Peer]:
    """Some of the peers that are up and can hear; the same ones at each call."""
    there = [it for it in swarm.peers if it.awake and it.number not in swarm.links.deaf]
    there = [it for it in there if not it.flooding]
    return there[:: max(1, len(there) // _SAMPLE)]


def complete_ratio(swarm: Swarm) -> float:
    """The share of views that have eight living candidates for each role and model with eight.

    If the network fits one view, a view must have all candidates where there are fewer than eight.
    """
    needed, views = _needed(swarm), sample(swarm)
    return sum(_is_complete(swarm, it, needed) for it in views) / len(views)


def all_complete(swarm: Swarm) -> bool:
    """Whether `complete_ratio` is 1; this stops at the first view that is not complete."""
    needed = _needed(swarm)
    return all(_is_complete(swarm, it, needed) for it in sample(swarm))


def _needed(swarm: Swarm) -> dict[Place, int]:
    needed = _providers(swarm)
    if len(swarm.peers) <= swarm.peers[0].view.config.adverts_max:
        return needed
    return {it: count for it, count in needed.items() if count > CANDIDATES}


def _is_complete(swarm: Swarm, peer: Peer, needed: dict[Place, int]) -> bool:
    mine = set(_places(peer))
    wall_s = peer.wall_s(swarm.loop.now_at_s)
    for place, living in needed.items():
        role, model = place
        found = peer.view.candidates(role, model, wall_s)  # type: ignore[arg-type]
        count = sum(_is_there(swarm, it.signer) for it in found)
        if count < min(CANDIDATES, living - (place in mine)):
            return False
    return True


def _providers(swarm: Swarm) -> dict[Place, int]:
    counts: dict[Place, int] = {}
    for peer in swarm.peers:
        if peer.awake and peer.number not in swarm.links.deaf and not swarm.links.part:
            for place in _places(peer):
                counts[place] = counts.get(place, 0) + 1
    return counts


def _places(peer: Peer) -> list[Place]:
    roles = [role for role in Role if peer.offer.roles >> role & 1]
    running = [role for role in roles if role in (Role.INFER, Role.VERIFY)]
    return [
        *((role, None) for role in roles),
        *((role, it.model) for role in running for it in peer.offer.models),
    ]


def _is_there(swarm: Swarm, key: PeerId) -> bool:
    peer = swarm.by_key.get(key)
    return peer is not None and peer.awake


def ghosts_ratio(swarm: Swarm) -> float:
    """The share of the adverts in views whose peers are dead or gone.

    Broken if such a peer has been dead for longer than its last advert could be valid.
    """
    now_at_s, ghosts, entries = swarm.loop.now_at_s, 0, 0
    for peer in sample(swarm):
        for heard in peer.view.living(peer.wall_s(now_at_s)):
            entries += 1
            other = swarm.by_key.get(heard.signer)
            if other is None or other.up:
                continue
            ghosts += 1
            # The advert's maker rounded its time down to the second.
            if now_at_s > other.ends_s - peer.skew_s + 1:
                raise Broken(f"peer {peer.number} still lists peer {other.number}, who is dead")
    return ghosts / max(1, entries)


def flooded(swarm: Swarm) -> tuple[float, float]:
    """The share of made-up adverts in views, and the share of real adverts that views still have.

    The second is compared with a view that has all real peers, or is full of them.
    """
    there = sum(it.awake for it in swarm.peers) - 1
    shares, held = [], []
    for peer in sample(swarm):
        keys = [it.signer for it in peer.view.living(0.0)]
        real = sum(key in swarm.by_key for key in keys)
        shares.append(1 - real / max(1, len(keys)))
        held.append(real / min(there, peer.view.config.adverts_max))
    return mean(shares), mean(held)


def made_up_verifiers(swarm: Swarm) -> float:
    """The share of made-up peers among the verifiers in a view; the mean over views."""
    shares = []
    for peer in sample(swarm):
        found = peer.view.candidates(Role.VERIFY, None, peer.wall_s(swarm.loop.now_at_s))
        made_up = sum(it.signer not in swarm.by_key for it in found)
        shares.append(made_up / max(1, len(found)))
    return mean(shares)


def mixed_ratio(swarm: Swarm, part: dict[int, int]) -> float:
    """How much of the other part views have, compared with the whole network; 1 is fully mixed."""
    there = [it for it in swarm.peers if it.awake]
    ratios = []
    for peer in sample(swarm):
        mine = part.get(peer.number, 0)
        others = sum(part.get(it.number, 0) != mine for it in there) / (len(there) - 1)
        keys = [it.signer for it in peer.view.living(peer.wall_s(swarm.loop.now_at_s))]
        numbers = [swarm.by_key[key].number for key in keys if key in swarm.by_key]
        across = sum(part.get(it, 0) != mine for it in numbers) / max(1, len(numbers))
        ratios.append(across / others if others else 1.0)
    return mean(ratios)


def estimates(swarm: Swarm) -> tuple[float, float, float]:
    """Peers' estimates of the network's size, relative to the truth: percentiles 10, 50, 90."""
    there = sum(it.up for it in swarm.peers)
    said = sorted(it.swapping.peers() / there for it in sample(swarm))
    return said[len(said) // 10], median(said), said[len(said) * 9 // 10]


def check_bounds(swarm: Swarm) -> None:
    """Check the bound of everything that peers keep; Broken if one is exceeded."""
    for peer in sample(swarm):
        if len(peer.dialing.known()) > peer.known_max:
            raise Broken(f"peer {peer.number} knows {len(peer.dialing.known())} addresses")
        if len(peer.view) > peer.view.config.adverts_max:
            raise Broken(f"peer {peer.number}: its view has {len(peer.view)} adverts")


def search(swarm: Swarm, rare: Rare, random: Random, count: int = 200) -> Searched | None:
    """Search now for models of `rare`, as `p2p.discovery` searches."""
    names = [it for it in rare.names() if _has_provider(swarm, it)]
    if not names:
        return None
    askers = sample(swarm)
    hops, asked, found = [], [], 0
    for _ in range(count):
        one = Search(Role.INFER, model_of(random.choice(names)))
        asker = random.choice(askers)
        wall_s = asker.wall_s(swarm.loop.now_at_s)
        if asker.view.candidates(one.role, one.model, wall_s):
            found += 1
            hops.append(0)
            asked.append(0)
            continue
        connected = list(asker.neighbours)
        random.shuffle(connected)
        one.begin(connected)
        while chosen := one.round():
            for key in chosen:
                one.told(_answer(swarm, swarm.by_key.get(key), asker, one, random))
        alive = [it for it in one.found if _is_there(swarm, it)]
        found += bool(alive)
        hops.append(one.hops)
        asked.append(len(one.asked))
    return Searched(found / count, mean(hops), mean(asked), max(asked))


def _has_provider(swarm: Swarm, name: str) -> bool:
    model = model_of(name)
    return any(it.awake and any(of.model == model for of in it.offer.models) for it in swarm.peers)


def _answer(
    swarm: Swarm, peer: Peer | None, asker: Peer, one: Search, random: Random
) -> list[Signed[Advert]]:
    if peer is None or not peer.awake:
        return []
    wall_s = peer.wall_s(swarm.loop.now_at_s)
    able = peer.view.candidates(one.role, one.model, wall_s)
    mine = peer.mine(swarm.loop.now_at_s)
    if fits(mine, one.role, one.model):
        able.append(mine)
    known = [it for it in able or peer.view.living(wall_s) if it.signer != asker.key]
    return known if len(known) <= TOLD_MAX else random.sample(known, TOLD_MAX)
