"""Which peer gets the next leg: by estimated completion, and without a herd. Pure.

An advert is a hint, so the estimate only says whom to ask. Two peers are drawn, faster ones more
often, and the better of the two is taken. This is nearly as good as asking all, and askers with the
same (even old) knowledge do not all choose the same peer (Mitzenmacher: "The Power of Two Choices
in Randomized Load Balancing", 1996; "How Useful Is Old Information?", 1997).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median

from p2p.score import Standing
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.signed import Signed

# The speed assumed for a peer that gives none: slow, so that measured peers are asked first.
UNITS_PER_S_UNKNOWN = 1.0
# A smaller difference counts as none: it is less than the fixed cost of a leg.
DIFFERENCE_S = 0.01
# How much more often a faster peer is drawn. With 1, work is in proportion to speed, and a slow
# peer is asked too often while no peer is busy. Simulated with 100 peers of three speeds and
# adverts ten seconds old: p99 of 1.0 s at 30 % load and 2.5 s at 90 %; 30 s if the advertised queue
# counts too.
EAGERNESS = 1.5
# The weight of a peer that said it is full: it may be idle by now, and would stay idle until its
# next advert if nobody asked. Its quote costs little and is up to date.
FULL_WEIGHT = 0.25
# The dearest peer is drawn so much less often than one that asks for nothing and is as fast.
PRICE_WEIGHT = 0.75


@dataclass(frozen=True, slots=True)
class PeerLoad:
    """What we know of a peer beyond its advert: how it behaved, and the work we gave it already.

    `observed` is how long it took for a unit when it worked for us, and how far to trust that
    against its advert, from 0 to 1. `delivered`: it did such legs for us before. `benched`: it took
    legs of ours without doing them, and is still asked last for that.
    """

    standing: Standing = Standing.GOOD
    under_way: int = 0
    round_trip_s: float = 0.0
    observed: tuple[float, float] | None = None
    delivered: bool = False
    benched: bool = False


_UNKNOWN = PeerLoad()


@dataclass(frozen=True, slots=True)
class Leg:
    """What is to be done: the model, if any, and how many units of work."""

    model: ContentId | None
    units: int = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that could do a leg, and the estimated time that it needs."""

    peer: PeerId
    unwelcome: bool
    full: bool
    # Seconds until it would be done; of these the work itself; and until done if it were idle.
    expected_s: float
    work_s: float
    idle_s: float
    # We measured its speed, so we do not depend on its advert alone.
    observed: bool = False
    # It did such legs for us before.
    delivered: bool = False
    # What it asks for the leg at most, in millionths.
    price: int = 0


def expected_s(advert: Advert, leg: Leg, load: PeerLoad, unit_s_min: float = 0.0) -> float:
    """Seconds until this peer would be done with `leg`, by its advert and our measurements.

    A peer without measurements counts as taking at least `unit_s_min` for a unit.
    """
    work_s = _work_s(advert, leg, load, unit_s_min)
    return load.round_trip_s + advert.queue_s + (load.under_way + 1) * work_s


def candidates(
    adverts: Iterable[Signed[Advert]], leg: Leg, loads: Mapping[PeerId, PeerLoad]
) -> list[Candidate]:
    """The peers that may be asked: those that are not banned.

    A claim costs nothing, so a peer that was not measured counts as no faster than the median of
    those that were.
    """
    known = [(it, loads.get(it.signer, _UNKNOWN)) for it in adverts]
    measured = [load.observed[0] for _, load in known if load.observed is not None]
    unit_s_min = median(measured) if measured else 0.0
    found = []
    for heard, load in known:
        if load.standing is Standing.BANNED:
            continue
        work_s = _work_s(heard.record, leg, load, unit_s_min)
        found.append(
            Candidate(
                heard.signer,
                load.standing is Standing.UNWELCOME or load.benched,
                heard.record.free_slots <= load.under_way,
                expected_s(heard.record, leg, load, unit_s_min),
                work_s,
                load.round_trip_s + work_s,
                load.observed is not None,
                load.delivered,
            )
        )
    return found


def ranked(
    adverts: Sequence[Signed[Advert]],
    leg: Leg,
    loads: Mapping[PeerId, PeerLoad],
    random: Random,
) -> list[PeerId]:
    """Peers to ask, best first; banned ones are not asked at all.

    Equals stand in random order, so that many askers do not all choose the same. Strangers come
    after peers that delivered, whatever they claim.
    """
    rows = [
        (
            (it.unwelcome, it.full, not it.delivered, round(it.expected_s, 2), random.random()),
            it.peer,
        )
        for it in candidates(adverts, leg, loads)
    ]
    return [peer for _, peer in sorted(rows)]


def drawn(
    choices: Sequence[Candidate], random: Random, count: int = 2, *, eagerness: float = EAGERNESS
) -> list[Candidate]:
    """Draw some of the best kind of `choices`, faster ones more often; the best drawn is first.

    With `eagerness` 0 all are equally likely.
    """
    if not choices:
        return []
    best = min(it.unwelcome for it in choices)
    left = [it for it in choices if it.unwelcome == best]
    taken: list[Candidate] = []
    while left and len(taken) < count:
        # The weight is by speed and not by the advertised queue: that is old, and all askers would
        # choose the peers that were idle a while ago.
        dearest = max(it.price for it in left)
        weights = [
            (it.idle_s + DIFFERENCE_S) ** -eagerness
            * (FULL_WEIGHT if it.full else 1.0)
            * (1 - PRICE_WEIGHT * it.price / dearest if dearest else 1.0)
            for it in left
        ]
        (one,) = random.choices(left, weights)
        left.remove(one)
        taken.append(one)
    # The sort is stable, so equals stay in the order in which they were drawn.
    return sorted(taken, key=lambda it: round(it.expected_s / DIFFERENCE_S))


def _work_s(advert: Advert, leg: Leg, load: PeerLoad, unit_s_min: float) -> float:
    offer = advert.offer_of(leg.model) if leg.model is not None else None
    unit_s = 1 / ((offer.units_per_s if offer else 0.0) or UNITS_PER_S_UNKNOWN)
    if load.observed is None:
        unit_s = max(unit_s, unit_s_min)
    else:
        observed_s, trust = load.observed
        unit_s = trust * observed_s + (1 - trust) * unit_s
    return leg.units * unit_s
