"""The peers of a devnet: keys, roles, models and speeds, all drawn from the seed.

Pure. The mixture is a guess at a real network: few peers bring in data, most run models, the rest
only check. Some models are rare; where there are enough peers, at least ten run each model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from node.engines.hash_engine import hash_manifest
from wire.kinds import Role
from wire.model import Manifest
from wire.signing import SigningKey

PEERS_MIN = 8
DIMENSIONS = 32
# How likely a peer runs each model; how many peers run each at least, if there are so many.
RARITY: Mapping[str, float] = {"common": 0.7, "uncommon": 0.3, "rare": 0.02}
RUNNERS_MIN = 10
# How long an ordinary peer takes for a text or a token.
UNIT_S_MIN, UNIT_S_MAX = 0.02, 0.05
ASKERS_MAX = 24
# So that three of them agree though one is struck.
FETCHERS_MIN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPlan:
    """The plan for one peer."""

    number: int
    roles: frozenset[Role]
    models: tuple[str, ...]
    unit_s: float
    # Whether this peer submits tasks; it then does nothing for others but keep content.
    asks: bool


def manifests() -> dict[str, Manifest]:
    """The models of a devnet, by name."""
    return {name: hash_manifest(f"hash-{name}", DIMENSIONS) for name in RARITY}


def key_of(seed: int, number: int) -> SigningKey:
    return SigningKey(Random(f"{seed}:key:{number}").randbytes(32))


def plan_peers(count: int, seed: int, *, fetches: bool = False) -> tuple[PeerPlan, ...]:
    """`count` peers; the last of them are the askers. More bring data where prices are fetched."""
    random = Random(f"{seed}:peers")
    askers = max(2, min(ASKERS_MAX, count // 12))
    workers = count - askers
    data = max(FETCHERS_MIN, workers // 4) if fetches else max(2, workers // 10)
    roles = [frozenset({Role.DATA, Role.STORE})] * data
    checkers = max(2, workers * 3 // 10)
    roles += [frozenset({Role.VERIFY, Role.STORE})] * checkers
    roles += [frozenset({Role.INFER, Role.VERIFY, Role.STORE})] * (workers - data - checkers)
    random.shuffle(roles)
    running = [number for number, mine in enumerate(roles) if Role.VERIFY in mine]
    models = _models(random, running)
    peers = [
        PeerPlan(
            number=number,
            roles=mine,
            models=models.get(number, ()),
            unit_s=round(random.uniform(UNIT_S_MIN, UNIT_S_MAX), 4),
            asks=False,
        )
        for number, mine in enumerate(roles)
    ]
    peers += [
        PeerPlan(
            number=number,
            roles=frozenset({Role.STORE}),
            # Every other one has the models itself, and can look for itself; the rest cannot.
            models=tuple(RARITY) if number % 2 else (),
            unit_s=UNIT_S_MIN,
            asks=True,
        )
        for number in range(workers, count)
    ]
    return tuple(peers)


def _models(random: Random, running: Sequence[int]) -> dict[int, tuple[str, ...]]:
    runners = {
        name: {number for number in running if random.random() < share}
        for name, share in RARITY.items()
    }
    for numbers in runners.values():
        lacking = max(0, min(RUNNERS_MIN, len(running)) - len(numbers))
        numbers.update(random.sample(sorted(set(running) - numbers), lacking))
    # A peer that runs models runs at least one.
    idle = set(running) - set().union(*runners.values())
    runners["common"] |= idle
    return {number: tuple(name for name in RARITY if number in runners[name]) for number in running}
