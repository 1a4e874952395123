"""Who gets the next leg: a pure ranking by estimated completion.

An advert is a hint, so the ranking only orders whom to ask first; a peer that cannot do it says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from p2p.score import Standing
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.signed import Signed

# A peer that gives no speed is taken to be this slow: asked after those that were measured.
UNITS_PER_S_UNKNOWN = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """What we know of a peer beyond its advert: how it behaved, and what we gave it already."""

    standing: Standing = Standing.GOOD
    under_way: int = 0


@dataclass(frozen=True, slots=True)
class Leg:
    """What is to be done: the model, if any, and how many units of work."""

    model: ContentId | None
    units: int = 1


def expected_s(advert: Advert, leg: Leg, load: Load) -> float:
    """Seconds until this peer would be done with `leg`, by what it says and what we gave it."""
    offer = advert.offer_of(leg.model) if leg.model is not None else None
    speed = (offer.units_per_s if offer else 0.0) or UNITS_PER_S_UNKNOWN
    return advert.queue_s + (load.under_way + 1) * leg.units / speed


def ranked(
    adverts: Sequence[Signed[Advert]],
    leg: Leg,
    loads: Mapping[PeerId, Load],
    random: Random,
) -> list[PeerId]:
    """Peers to ask, best first; banned ones are not asked at all.

    Equals stand in drawn order, so that many askers do not all choose the same.
    """
    rows = []
    for heard in adverts:
        load = loads.get(heard.signer, Load())
        if load.standing is Standing.BANNED:
            continue
        full = heard.record.free_slots <= load.under_way
        key = (
            load.standing is Standing.UNWELCOME,
            full,
            round(expected_s(heard.record, leg, load), 2),
            random.random(),
        )
        rows.append((key, heard.signer))
    return [peer for _, peer in sorted(rows)]
