"""What a view keeps of one advert: itself, who told of it, and what is asked of it often. Pure."""

from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from wire import limits
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.kinds import Role
from wire.signed import Signed

# What a peer can be asked for: a role, and a model where the role runs one.
Place = tuple[Role, ContentId | None]

# By the bits of an advert: the places of those roles, and which of them run a model. Whoever
# checks needs the model as much as whoever runs it.
_ROLES: list[tuple[tuple[Place, ...], tuple[Role, ...]]] = [
    (
        tuple((role, None) for role in Role if bits >> role & 1),
        tuple(role for role in (Role.INFER, Role.VERIFY) if bits >> role & 1),
    )
    for bits in range(1 << len(Role))
]


# One peer in a digest: the first bytes of its key, and its number.
DIGEST_ENTRY = Struct(f">{limits.DIGEST_KEY_BYTES}sQ")


class ViewParts(NamedTuple):
    """What is asked of an advert often: its peer as digests name it, both as they say it, its end.

    The last two are what is remembered once it is gone, if it ended or only made room.
    """

    places: tuple[Place, ...]
    key: bytes
    digest_entry: bytes
    until_wall_s: int
    ended: tuple[int, int]
    displaced: tuple[int, int]


def parts_of(heard: Signed[Advert]) -> ViewParts:
    advert, key = heard.record, heard.signer[: limits.DIGEST_KEY_BYTES]
    until_wall_s = advert.issued_at_s + advert.ttl_s
    return ViewParts(
        _places_of(advert.roles, tuple([it.model for it in advert.models])),
        key,
        DIGEST_ENTRY.pack(key, advert.seq),
        until_wall_s,
        (advert.seq, until_wall_s),
        # It may be heard again, but nothing older of it.
        (advert.seq - 1, until_wall_s),
    )


class Entry(NamedTuple):
    """An advert in a view; the parts that every swap asks for are at hand.

    `met`: it spoke for itself over a connection. `origin` is what its quota goes by, "" for none.
    """

    heard: Signed[Advert]
    introducer: PeerId | None
    met: bool
    origin: str
    key: bytes
    digest_entry: bytes
    until_wall_s: int
    parts: ViewParts


def entry_of(
    heard: Signed[Advert], parts: ViewParts, introducer: PeerId | None, origin: str, *, met: bool
) -> Entry:
    return Entry(
        heard, introducer, met, origin, parts.key, parts.digest_entry, parts.until_wall_s, parts
    )


@lru_cache(maxsize=4096)
def _places_of(roles: int, models: tuple[ContentId, ...]) -> tuple[Place, ...]:
    """The same tuple for the same offer, for most peers offer what others do."""
    places, running = _ROLES[roles]
    return (*places, *[(role, model) for role in running for model in models])
