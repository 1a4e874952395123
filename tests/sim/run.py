"""One run of the swarm, from a plan to figures: the same plan gives the same, and one digest."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from random import Random
from typing import Any

from p2p.gossip_rate import GossipRateConfig, GossipRateLimit
from p2p.view import ViewConfig
from tests.sim import measuring
from tests.sim.faults import Fault, Faults
from tests.sim.peer import Broken
from tests.sim.population import Rare
from tests.sim.striking import strike
from tests.sim.swarm import JOINING_S, Swarm, join_all, swarm_of
from tests.sim.warm import warm

# How often views are looked at: after a fault, and otherwise.
_STEP_S = 5.0
_LOOK_S = 60.0
_MIXED = 0.8

Figures = dict[str, Any]


class Violation(Exception):
    """An invariant was broken; the message ends in the line that repeats the run."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one run."""

    peers: int
    seconds: float
    faults: Faults
    rare: Rare
    # Whether the swarm begins as if it had run for long (`tests.sim.warm`).
    warm: bool = False

    @property
    def period_s(self) -> float:
        return GossipRateLimit(GossipRateConfig(), ViewConfig().adverts_max).period_s(self.peers)

    @property
    def replay(self) -> str:
        words = f"--peers {self.peers} --seed {self.faults.seed} --seconds {self.seconds:g}"
        rare = f" --rare {self.rare.models}x{self.rare.providers}"
        faults = f" --faults {self.faults}" if self.faults.all else ""
        start = " --start warm" if self.warm else ""
        return f"python -m tests.sim {words}{rare}{start}{faults}"


def simulate(plan: Plan, tell: Callable[[Figures], None] | None = None) -> Figures:
    """Run a plan to its end; Violation as soon as an invariant is broken.

    `tell` is called with the figures so far, because a large run takes long.
    """
    try:
        return _Run(plan).figures(tell or (lambda _: None))
    except Broken as error:
        raise Violation(f"{error}\nreplay: {plan.replay}") from error


class _Run:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.swarm = swarm_of(plan.peers, plan.faults, plan.seconds, plan.rare)
        swarm, seed = self.swarm, plan.faults.seed
        join_all(swarm, warm(swarm, seed) if plan.warm else swarm.peers)
        strike(swarm, plan.faults, plan.seconds)

    def figures(self, tell: Callable[[Figures], None]) -> Figures:
        plan, swarm = self.plan, self.swarm
        events = sorted(
            (it for it in plan.faults.all if it.kind.is_event),
            key=lambda it: it.begins_s(plan.seconds),
        )
        first_s = events[0].begins_s(plan.seconds) if events else plan.seconds
        figures: Figures = {"peers": plan.peers, "seed": plan.faults.seed}
        figures |= {"seconds": plan.seconds, "faults": str(plan.faults)}
        if plan.warm:
            figures["start"] = "warm"
        swarm.loop.run(JOINING_S)
        figures["joined_complete_s"] = self._complete_s(JOINING_S, first_s / 2)
        tell(figures)
        figures |= self._steady(first_s)
        tell(figures)
        for fault, after in zip_longest(events, events[1:]):
            until_at_s = plan.seconds if after is None else after.begins_s(plan.seconds)
            figures |= self._after(fault, until_at_s)
            tell(figures)
        self._run(plan.seconds)
        figures["views_complete_end"] = round(measuring.complete_ratio(swarm), 4)
        figures["ghosts_end"] = round(measuring.ghosts_ratio(swarm), 4)
        if any(it.name in ("flooder", "sybil") for it in plan.faults.all):
            made_up, held = measuring.flooded(swarm)
            figures["flood_made_up_ratio"] = round(made_up, 3)
            figures["flood_real_held_ratio"] = round(held, 3)
            figures["flood_verifiers_made_up_ratio"] = round(measuring.made_up_verifiers(swarm), 3)
        figures |= {"events": swarm.loop.count, "digest": swarm.loop.digest}
        return figures

    def _run(self, until_at_s: float) -> None:
        """Go on, and check the invariants once a minute."""
        loop = self.swarm.loop
        while loop.now_at_s < until_at_s:
            loop.run(min(until_at_s, loop.now_at_s + _LOOK_S))
            measuring.ghosts_ratio(self.swarm)
            measuring.check_bounds(self.swarm)

    def _complete_s(self, began_at_s: float, until_at_s: float) -> float | None:
        """From `began_at_s` until views are complete; None if they are not by `until_at_s`."""
        loop = self.swarm.loop
        while loop.now_at_s + _STEP_S <= until_at_s:
            loop.run(loop.now_at_s + _STEP_S)
            if measuring.all_complete(self.swarm):
                return round(loop.now_at_s - began_at_s, 1)
        return None

    def _steady(self, until_at_s: float) -> Figures:
        swarm, plan = self.swarm, self.plan
        self._run(until_at_s / 2)
        counted, heard = swarm.counted, sum(it.heard for it in swarm.peers)
        before = (counted.digest_bytes, counted.advert_bytes, counted.swaps)
        began_at_s = swarm.loop.now_at_s
        # Measure just before the first fault.
        self._run(until_at_s - 0.001)
        per = plan.peers * (swarm.loop.now_at_s - began_at_s)
        after = (counted.digest_bytes, counted.advert_bytes, counted.swaps)
        digests, adverts, swaps = (b - a for a, b in zip(before, after, strict=True))
        low, middle, high = measuring.estimates(swarm)
        views = measuring.sample(swarm)
        figures = {
            "period_s": round(plan.period_s, 1),
            "adverts_heard_per_s": round((sum(it.heard for it in swarm.peers) - heard) / per, 3),
            "gossip_bytes_per_s": round((digests + adverts) / per),
            "swaps_per_s": round(swaps / per, 4),
            "view_adverts": round(sum(len(it.view) for it in views) / len(views), 1),
            "connections": round(sum(len(it.neighbours) for it in views) / len(views), 1),
            "views_complete_steady": round(measuring.complete_ratio(swarm), 4),
            "estimate_tenth": round(low, 2),
            "estimate_median": round(middle, 2),
            "estimate_nine_tenths": round(high, 2),
        }
        searched = measuring.search(swarm, plan.rare, Random(f"{plan.faults.seed}:searches"))
        if searched is not None:
            figures |= {
                "search_found_ratio": round(searched.found_ratio, 3),
                "search_hops": round(searched.hops, 2),
                "search_asked": round(searched.asked, 2),
                "search_asked_most": searched.asked_most,
            }
        return figures

    def _after(self, fault: Fault, until_at_s: float) -> Figures:
        """What a fault does, and how long after it, or after its end, views are complete again."""
        swarm, seconds, name = self.swarm, self.plan.seconds, fault.name
        ends_s = fault.ends_s(seconds)
        begins_s = fault.begins_s(seconds)
        swarm.loop.run(begins_s + 0.001)
        figures: Figures = {}
        ttl_s = max((it.ends_s for it in swarm.peers if not it.up), default=0.0) - begins_s
        part = dict(swarm.links.part)
        if name in ("kill", "leave"):
            swarm.loop.run(begins_s + 10.0)
            figures[f"{name}_ghosts_10_s"] = round(measuring.ghosts_ratio(swarm), 3)
        if math.isfinite(ends_s):
            self._run(min(ends_s, until_at_s))
        well_s = ends_s if math.isfinite(ends_s) else begins_s
        if name == "partition":
            figures["partition_mixed_s"] = self._mixed_s(ends_s, part, until_at_s)
        figures[f"{name}_complete_s"] = self._complete_s(well_s, until_at_s)
        if name == "kill":
            self._run(min(until_at_s, begins_s + self.plan.period_s))
            figures["kill_ghosts_period"] = round(measuring.ghosts_ratio(swarm), 3)
            over_s = begins_s + ttl_s + 1.0
            if over_s < until_at_s:
                self._run(max(swarm.loop.now_at_s, over_s))
                figures["kill_ghosts_ttl"] = round(measuring.ghosts_ratio(swarm), 4)
        return figures

    def _mixed_s(self, healed_s: float, part: dict[int, int], until_at_s: float) -> float | None:
        loop = self.swarm.loop
        while loop.now_at_s < until_at_s:
            if measuring.mixed_ratio(self.swarm, part) >= _MIXED:
                return round(loop.now_at_s - healed_s, 1)
            loop.run(loop.now_at_s + _STEP_S)
        return None


def plan_of(
    peers: int,
    seconds: float,
    faults: tuple[Fault, ...],
    seed: int,
    rare: Rare | None = None,
    *,
    warm: bool = False,
) -> Plan:
    return Plan(peers, seconds, Faults(seed, faults), rare or Rare(), warm)


def swarm_at(plan: Plan, until_at_s: float) -> Swarm:
    """The swarm of a plan at `until_at_s`; for tests that look closer."""
    run = _Run(plan)
    run.swarm.loop.run(until_at_s)
    return run.swarm
