"""What each peer offers: roles, a few models that many run, and rare ones that two or three run."""

import hashlib
from dataclasses import dataclass
from random import Random

from wire import limits
from wire.advert import ModelOffer
from wire.content import ContentId, PeerId
from wire.kinds import Role

# How likely a peer plays a role.
_ROLES = {
    Role.DATA: 0.3,
    Role.INFER: 0.6,
    Role.VERIFY: 0.5,
    Role.STORE: 0.2,
    Role.GATEWAY: 0.1,
}
COMMON_MODELS = 8
START_WALL_S = 1_800_000_000


def model_of(name: str) -> ContentId:
    return ContentId.of(name.encode())


def key_of(name: str) -> PeerId:
    return PeerId(hashlib.sha256(name.encode()).digest())


def address_of(number: int, key: PeerId) -> str:
    """A made-up address of realistic length."""
    return f"/ip4/10.0.{number >> 8}.{number & 255}/tcp/4001/p2p/{key}"


@dataclass(frozen=True, slots=True)
class Rare:
    """How many rare models there are, and how many peers run each."""

    models: int = 0
    providers: int = 2

    def names(self) -> list[str]:
        return [f"rare {it}" for it in range(self.models)]


@dataclass(frozen=True, slots=True)
class Offer:
    """What one peer offers, for as long as it lives."""

    roles: int
    models: tuple[ModelOffer, ...]


def offers(peers: int, seed: int, rare: Rare) -> list[Offer]:
    """One for each peer, by number."""
    random = Random(f"{seed}:offers")
    common = [f"common {it}" for it in range(COMMON_MODELS)]
    # Popularity falls as that of words in a language: the eighth model is run by an eighth of the
    # peers that run the first.
    weights = [1 / (it + 1) for it in range(COMMON_MODELS)]
    roles, names = [], []
    for _ in range(peers):
        played = [role for role, likely in _ROLES.items() if random.random() < likely]
        roles.append(sum(1 << it for it in played or [Role.DATA]))
        runs = Role.INFER in played or Role.VERIFY in played
        count = random.randint(1, 3) if runs else 0
        names.append(list(dict.fromkeys(random.choices(common, weights, k=count))))
    for name in rare.names():
        for number in random.sample(range(peers), min(peers, rare.providers)):
            roles[number] |= 1 << Role.INFER
            names[number] = [*names[number], name][-limits.ADVERT_MODELS_MAX :]
    return [
        Offer(bits, tuple(ModelOffer(model=model_of(it), name=it, units_per_s=1.0) for it in some))
        for bits, some in zip(roles, names, strict=True)
    ]
