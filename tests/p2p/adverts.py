"""Adverts for the tests: signed by keys that are named, each field as it is asked for."""

from typing import Any

from tests.p2p.transports import key_of
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.content import ContentId
from wire.kinds import Role
from wire.signed import Signed, sign

NOW_S = 1_800_000_000.0
MODEL = ContentId.of(b"a model")
ALL_ROLES = sum(1 << role for role in Role)


def advert_of(name: str, **changes: Any) -> Signed[Advert]:
    """What the peer of that name says at NOW_S, but for `changes`."""
    fields: dict[str, Any] = {
        "version": limits.PROTOCOL_VERSION,
        "seq": int(NOW_S * 1000),
        "instance": b"instance",
        "issued_at_s": int(NOW_S),
        "ttl_s": 90,
        "addresses": (f"/memory/1/p2p/{key_of(name).peer}",),
        "roles": ALL_ROLES,
        "models": (ModelOffer(model=MODEL, name="model", units_per_s=100.0),),
        "free_slots": 4,
        "queue_s": 0.0,
        "price": 0,
        "leaving": False,
    }
    return sign(Advert(**(fields | changes)), key_of(name))
