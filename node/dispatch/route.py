"""Who gets the next leg: a pure choice by estimated completion, that does not make a herd.

An advert is a hint, so the estimate only says whom to ask. Two are drawn, the better ones more
often, and the better of the two is taken: nearly as good as asking all, and askers that know the
same do not all land on the same peer, not even where what they know is old (Mitzenmacher: "The
Power of Two Choices in Randomized Load Balancing", 1996; "How Useful Is Old Information?", 1997).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median

from p2p.score import Standing
from wire.advert import Advert
from wire.content import ContentId, PeerId
from wire.signed import Signed

# A peer that gives no speed is taken to be this slow: asked after those that were measured.
UNITS_PER_S_UNKNOWN = 1.0
# Less difference than this is none: it is lost in what a leg costs anywhere.
DIFFERENCE_S = 0.01
# How much more often a faster peer is drawn. With 1 each gets work by its speed; a slow one is then
# asked too often where nobody is busy. Simulated: 100 peers of three speeds, adverts ten seconds
# old, p99 of 1.0 s at 30 % load and 2.5 s at 90 %. Drawn by the advertised queue as well: 30 s.
EAGERNESS = 1.5
# Who said that it is full may be done since; where nobody asks it before its next advert it stands
# idle. Its own word at the quote, which costs little, says how it is.
FULL_WEIGHT = 0.25


@dataclass(frozen=True, slots=True)
class PeerLoad:
    """What we know of a peer beyond its advert: how it behaved, and what we gave it already.

    `observed` is how long a unit took it when it worked for us, and how far that is to be trusted
    beside what it says of itself, from 0 to 1. `delivered`: it did such legs for us before.
    `benched`: it sat on legs of ours, and its time is not over.
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
    """A peer that could do a leg, and in how long, as far as can be told from here."""

    peer: PeerId
    unwelcome: bool
    full: bool
    # Until it would be done; how much of that is the work itself; and until then if it were idle.
    expected_s: float
    work_s: float
    idle_s: float
    # We saw it work, and have not only its word.
    observed: bool = False
    # It did such legs for us before.
    delivered: bool = False


def expected_s(advert: Advert, leg: Leg, load: PeerLoad, unit_s_min: float = 0.0) -> float:
    """Seconds until this peer would be done with `leg`, by what it says and what we saw of it.

    Who was never seen to work is not believed to take less than `unit_s_min` for a unit.
    """
    work_s = _work_s(advert, leg, load, unit_s_min)
    return load.round_trip_s + advert.queue_s + (load.under_way + 1) * work_s


def candidates(
    adverts: Iterable[Signed[Advert]], leg: Leg, loads: Mapping[PeerId, PeerLoad]
) -> list[Candidate]:
    """Who may be asked: not those that are banned.

    A claim costs nothing, so who was not measured counts as no faster than the median of those who
    were.
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

    Equals stand in drawn order, so that many askers do not all choose the same. Strangers come
    after who delivered, whatever they say.
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
    """Some of the best kind of `choices`, the faster ones likelier, the best of them first.

    With `eagerness` 0 all are equally likely.
    """
    if not choices:
        return []
    best = min(it.unwelcome for it in choices)
    left = [it for it in choices if it.unwelcome == best]
    taken: list[Candidate] = []
    while left and len(taken) < count:
        # By what they are, and not by how busy they were said to be: that is old, and all would
        # go where it was quiet a while ago.
        weights = [
            (it.idle_s + DIFFERENCE_S) ** -eagerness * (FULL_WEIGHT if it.full else 1.0)
            for it in left
        ]
        (one,) = random.choices(left, weights)
        left.remove(one)
        taken.append(one)
    # Among equals the first that was drawn: that is drawn enough.
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
