"""The swarm on a command line: a table for a person, or one JSON document.

python -m tests.sim --peers 1000 --seed 7 --seconds 600 --faults kill=0.3@300,loss=0.05
python -m tests.sim --all
python -m tests.sim --table --reason "swaps are rarer now"
"""

import argparse
import gc
import json
import resource
import sys
import time
from typing import Any

from tests.sim import table
from tests.sim.faults import parse
from tests.sim.lying import accepted_wrong, predicted
from tests.sim.population import Rare
from tests.sim.routing import Policy, Traffic, fairness, figures_of, herd
from tests.sim.run import Violation, plan_of, simulate
from wire.errors import InputError

SIZES = (50, 200, 1_000, 10_000)
PEERS_MIN, PEERS_MAX = 10, 20_000
# Runs of so many peers take minutes, so figures are printed on the way.
_TOLD_FROM = 1_000
# Larger swarms begin warm unless --start says otherwise.
_COLD_MAX = 2_000
_LOADS = (0.3, 0.8, 1.2, 5.0)
# The default number of rare models: one for twenty peers, at most as many as for a thousand peers:
# views keep the peers that run rare models, and would be full of them.
_RARE_SHARE, _RARE_MAX, _PROVIDERS = 0.05, 50, 2


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--peers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, help="in the network's own time: 600, or with --all 3600"
    )
    parser.add_argument("--faults", default="", help="for example kill=0.3@300,loss=0.05")
    parser.add_argument("--rare", help="MODELSxPROVIDERS that hardly anybody runs, such as 500x2")
    parser.add_argument(
        "--start",
        choices=("cold", "warm"),
        help=f"warm: as if it had run for long; the default above {_COLD_MAX} peers",
    )
    parser.add_argument("--all", action="store_true", help="every size, routing, and liars")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--table", action="store_true", help="write the table of seeds anew")
    parser.add_argument("--reason", default="", help="why the table changes")
    return parser.parse_args(words)


def _rare(text: str | None, peers: int) -> Rare:
    if text is None:
        return Rare(min(_RARE_MAX, int(peers * _RARE_SHARE)), _PROVIDERS)
    models, cross, providers = text.partition("x")
    if not (cross and models.isdecimal() and providers.isdecimal() and int(providers)):
        raise InputError(f"--rare {text!r} is not understood", todo="give 500x2, for example")
    return Rare(int(models), int(providers))


def _swarm(wanted: argparse.Namespace, peers: int) -> dict[str, Any]:
    if not PEERS_MIN <= peers <= PEERS_MAX:
        raise InputError(f"{peers} peers", todo=f"give {PEERS_MIN} to {PEERS_MAX}")
    if not 60 <= wanted.seconds <= 24 * 3600:
        raise InputError(f"{wanted.seconds:g} seconds", todo="give 60 to 86400")
    faults = parse(wanted.faults or ("kill=0.3" if wanted.all else ""))
    began_at_s = time.process_time()
    warm = wanted.start == "warm" or (wanted.start is None and peers > _COLD_MAX)
    rare = _rare(wanted.rare, peers)
    plan = plan_of(peers, wanted.seconds, faults, wanted.seed, rare, warm=warm)
    found = simulate(plan, _tell if peers >= _TOLD_FROM else None)
    cpu_s = round(time.process_time() - began_at_s, 1)
    rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found | {"cpu_s": cpu_s, "rss_bytes": rss_bytes}


def _tell(figures: dict[str, Any]) -> None:
    """Print the figures of a long run so far."""
    sys.stderr.write(f"{json.dumps(figures)}\n")
    sys.stderr.flush()


def _queues(seed: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for load in _LOADS:
        for policy in Policy:
            traffic = Traffic(policy=policy, load=load, seed=seed, servers=30, seconds=60.0)
            rows[f"{load:g} x capacity, {policy.value}"] = figures_of(traffic)
    for policy in Policy:
        share = {"share_of_idle": round(herd(policy, seed=seed), 3)}
        rows[f"a thousand askers, {policy.value}"] = share
    rows["nobody greedy"], rows["one greedy"] = fairness(False, seed), fairness(True, seed)
    for peers in (20, 100, 1000):
        wrong = accepted_wrong(peers, 0.2, 5000, seed, knowing=True)
        arithmetic = predicted(peers, round(peers * 0.2))
        rows[f"20 % liars of {peers}"] = {"wrong": round(wrong, 4), "predicted": arithmetic}
    return rows


def _shown(columns: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for it in columns for name in it))
    lines = []
    for name in names:
        values = [it.get(name, "") for it in columns]
        cells = ["-" if it is None else str(it)[:16] for it in values]
        lines.append(f"{name:24}" + "".join(f"{it:>18}" for it in cells))
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """The exit status: 0, 1 for a broken invariant, 2 for wrong arguments."""
    wanted = _arguments(words)
    if wanted.seconds is None:
        wanted.seconds = 3600.0 if wanted.all else 600.0
    # There are millions of small records that live long, and no cycles among them.
    gc.disable()
    if wanted.table:
        if not wanted.reason.strip():
            raise InputError("a table is not changed without a reason", todo='--reason "why"')
        table.write(wanted.reason)
        return 0
    sizes = SIZES if wanted.all else (wanted.peers,)
    swarms = []
    for peers in sizes:
        swarms.append(_swarm(wanted, peers))
        if wanted.all and not wanted.json:
            sys.stderr.write(f"{peers} peers: {swarms[-1]['cpu_s']} s\n")
        if wanted.all:
            gc.collect()
    queues = _queues(wanted.seed) if wanted.all else {}
    if wanted.json:
        sys.stdout.write(json.dumps({"swarms": swarms, "queues": queues}) + "\n")
        return 0
    sys.stdout.write(_shown(swarms) + "\n")
    for name, figures in queues.items():
        row = "  ".join(f"{key} {value:g}" for key, value in figures.items())
        sys.stdout.write(f"{name:44}{row}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except Violation as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
