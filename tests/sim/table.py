"""Seeds and the figures they gave: a change that makes a figure worse shows here.

The simulation is exact, so figures are compared with those of the last time. `seeds.json` is
changed on purpose only: `python -m tests.sim --table --reason "..."` writes it, with the reason.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.sim.faults import parse
from tests.sim.lying import accepted_wrong, predicted
from tests.sim.population import Rare
from tests.sim.routing import Policy, Traffic, fairness, figures_of, herd
from tests.sim.run import Figures, plan_of, simulate

FILE = Path(__file__).with_name("seeds.json")
VERSION = 1
WORSE_RATIO = 0.10
# These figures are better when they are larger; all others are better when smaller.
_LARGER_IS_BETTER = ("views_complete", "throughput", "found_ratio", "held_ratio")
# These identify a run, and say nothing of its quality.
_DESCRIBES = {
    "peers",
    "seed",
    "seconds",
    "faults",
    "period_s",
    "view_adverts",
    "connections",
}
# Estimates of the network's size may be wrong in both directions.
_NEAR_ONE = ("estimate",)


def _swarm(peers: int, seconds: float, faults: str, seed: int, rare: Rare | None = None) -> Figures:
    return simulate(plan_of(peers, seconds, parse(faults), seed, rare))


def _ours(load: float) -> Figures:
    return figures_of(Traffic(policy=Policy.OURS, load=load, servers=30, seconds=30.0))


def _liars() -> Figures:
    wrong = accepted_wrong(60, 0.2, 4000, 7, knowing=True)
    return {"wrong_accepted": round(wrong, 4), "predicted": round(predicted(60, 12), 4)}


# Runs by name, small enough for every test run.
RUNS: dict[str, Callable[[], Figures]] = {
    "kill 50": lambda: _swarm(50, 240, "kill=0.3@100", 7),
    "links 50": lambda: _swarm(
        50, 190, "loss=0.1,delay=0.2,duplicate=0.1,reorder=0.1,kill=0.2@90", 11
    ),
    "partition 60": lambda: _swarm(60, 500, "partition=0.4@90+150", 12),
    "asleep 50": lambda: _swarm(50, 500, "freeze=0.3@90+300", 13),
    "churn 50": lambda: _swarm(50, 300, "restart=0.3@90,leave=0.2@150,oneway=0.2@220+30", 14),
    "flood 50": lambda: _swarm(50, 60, "flooder=0.06", 15),
    # Eight attackers, and ten made-up keys for each of eighty honest peers.
    "sybil 88": lambda: _swarm(88, 150, "sybil=0.091", 17),
    "rare 300": lambda: _swarm(300, 50, "", 16, Rare(60, 2)),
    "routing 0.8": lambda: _ours(0.8),
    "herd": lambda: {"share_of_idle": round(herd(Policy.OURS), 3)},
    "greedy": lambda: fairness(greedy=True),
    "liars": _liars,
}


def read() -> dict[str, Figures]:
    """The figures of every run when the table was written; ValueError for another version."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    if table["version"] != VERSION:
        raise ValueError(f"{FILE.name} is of version {table['version']}, this is {VERSION}")
    figures: dict[str, Figures] = table["figures"]
    return figures


def write(reason: str) -> None:
    """Run all plans, and write their figures to the table."""
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"reasons": []}
    figures = {name: run() for name, run in RUNS.items()}
    for row in figures.values():
        # The digest differs after any change.
        row.pop("digest", None)
        row.pop("events", None)
    table = {"version": VERSION, "reasons": [*before["reasons"], reason], "figures": figures}
    FILE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def worse(name: str, before: Figures, now: Figures) -> list[str]:
    """The figures that became more than a tenth worse, in words."""
    found = []
    for figure, old in before.items():
        if figure in _DESCRIBES:
            continue
        new = now.get(figure)
        if _is_worse(figure, old, new):
            found.append(
                f"{name}: {figure} was {old} and is {new}. If that is meant:"
                ' python -m tests.sim --table --reason "why"'
            )
    return found


def _is_worse(figure: str, old: Any, new: Any) -> bool:
    if old is None:
        return False
    if new is None:
        return True
    if figure.startswith(_NEAR_ONE):
        old, new = abs(1 - old), abs(1 - new)
    # If a figure was zero, one more second or hundredth does not count as worse.
    least = 0.01 if isinstance(old, float) and old < 1 else 1.0
    margin = max(WORSE_RATIO * abs(old), least if old == 0 else 0.0)
    if figure.startswith(_LARGER_IS_BETTER) or figure.endswith(_LARGER_IS_BETTER):
        return bool(new < old - margin)
    return bool(new > old + margin + 1e-9)
