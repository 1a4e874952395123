"""The result of a run: the figures by name, whether the run passed, and the same in words."""

import math
from dataclasses import dataclass
from typing import Any

from node.devnet import economy_report
from node.devnet.chances import most_by_chance, not_agreed_chance, wrong_chance
from node.devnet.faults import Fault
from node.devnet.net import Devnet
from node.devnet.reaching import reaching_figures, relay_lines

# The text shows so many; `--json` has all of them, peer by peer.
FAULTS_SHOWN = 10
# What verifiers refuse with that have too much to do, as `peer_failures` counts it.
TOO_BUSY = ("verify: busy", "verify: late")
# These figures must be zero in every run.
_NONE_OF = (
    *("tasks_lost", "tasks_late", "tokens_lost", "tokens_doubled", "honest_banned"),
    "invariants_violated",
)


@dataclass(frozen=True, slots=True)
class DevnetReport:
    """A run's figures, by stable names; `document` is what --json prints."""

    document: dict[str, Any]

    @property
    def passed(self) -> bool:
        return not self.missed

    @property
    def missed(self) -> list[str]:
        """The figures that make the run a failure, in words."""
        found = self.document
        most = found["wrong_answers_expected_max"]
        missed = [f"{name} is {found[name]}, not 0" for name in _NONE_OF if found[name]]
        if found["wrong_answers_accepted"] > most:
            wrong = found["wrong_answers_accepted"]
            missed.append(f"wrong_answers_accepted is {wrong}, chance explains at most {most}")
        if found["tasks_not_agreed"] > found["tasks_not_agreed_max"]:
            missed.append(
                f"tasks_not_agreed is {found['tasks_not_agreed']}, verifiers that lie explain at"
                f" most {found['tasks_not_agreed_max']}{_overloaded(found)}"
            )
        if wrong := found.get("wrong_agreements", 0):
            most = most_by_chance(found["agreements_asked"], found["wrong_agreements_chance"])
            if wrong > most:
                missed.append(f"wrong_agreements is {wrong}, chance explains at most {most}")
        return missed

    def closed(self, net: Devnet) -> "DevnetReport":
        """The report once the network is closed: it adds whether anything outlived the network."""
        found = {
            "invariants_violated": net.violations.count,
            "violations": [str(it) for it in net.violations.found],
        }
        return DevnetReport({**self.document, **found})

    def lines(self) -> list[str]:
        """The figures as text."""
        found = self.document
        shown = [
            f"{name:<26} {_shown(value)}"
            for name, value in found.items()
            if isinstance(value, int | float | str) or value is None
        ]
        shown += relay_lines(found, FAULTS_SHOWN)
        shown += [f"fault: {_told(it)}" for it in found["faults"][:FAULTS_SHOWN]]
        more = len(found["faults"]) - FAULTS_SHOWN
        shown += [f"fault: and {more} more, see --json"] * (more > 0)
        shown += [f"came of {it}" for it in found.get("economy", {}).get("told", [])]
        shown += [f"violated: {it}" for it in found["violations"][:10]]
        shown += [f"not answered: {it}" for it in found["failures"][:10]]
        return shown


def _overloaded(found: dict[str, Any]) -> str:
    """In words, if verifiers were too busy to look: then no lie has to explain it."""
    busy = sum(found["peer_failures"].get(it, 0) for it in TOO_BUSY)
    if not busy:
        return ""
    return (
        f"; verifiers were too busy {busy} times: the network was overloaded, so give a lower"
        " --load, or more --peers"
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _told(fault: dict[str, Any]) -> str:
    """One fault in words: which peers, what, and when."""
    lasting = "" if fault["for_s"] is None else f" for {fault['for_s']:g} s"
    peers = fault["peers"]
    named = ", ".join(map(str, peers[:8])) + (", ..." if len(peers) > 8 else "")
    whom = f": {len(peers)} peers ({named})" if peers else f": {fault['amount']:g} of all packets"
    return f"{fault['name']} at {fault['at_s']:.3g} s{lasting}{whom}"


def report_of(net: Devnet) -> DevnetReport:
    """The report of a run that has ended, while its network is still open."""
    load, sampler, around = net.load, net.sampler, net.around
    counts = load.counts
    carried = around.network.carried_bytes
    accounting = around.accounting
    gossip_cpu_s = accounting.gossip_cpu_s(carried) - sampler.gossip_cpu_before_s
    gossip_bytes = accounting.gossip_bytes(carried) - sampler.carried_before
    peer_seconds = max(1.0, sampler.peer_seconds)
    chance = wrong_chance(net)
    last = sampler.samples[-1]
    return DevnetReport(
        {
            "peers": net.config.peers,
            "seed": net.config.seed,
            "tasks_due": counts.due,
            "tasks_accepted": counts.accepted,
            "tasks_answered": counts.answered,
            "tasks_lost": counts.lost,
            "tasks_late": counts.late,
            "tasks_not_agreed": counts.not_agreed,
            "tasks_not_agreed_max": most_by_chance(counts.accepted, not_agreed_chance(net)),
            "tasks_refused": counts.refused,
            "wrong_answers_accepted": counts.wrong,
            "wrong_answers_expected": chance * counts.answered,
            "wrong_answers_expected_max": most_by_chance(counts.answered, chance),
            **{f"{name}_caught": ratio for name, ratio in last.caught.items()},
            **_honest(net),
            **_canaries(net),
            **net.agreements.figures(net.faults, net.peers),
            **economy_report.figures(net.economy),
            **reaching_figures(net),
            "tokens": counts.tokens,
            "tokens_lost": counts.tokens_lost,
            "tokens_doubled": counts.tokens_doubled,
            "retries": counts.retries,
            "p50_s": load.latencies.percentile_s(50),
            "p99_s": load.latencies.percentile_s(99),
            "latency_max_s": load.latencies.percentile_s(100),
            "living_at_the_end": last.living,
            "views_complete_ratio": last.views_complete_ratio,
            "view_complete_s": None if sampler.is_waiting else sampler.complete_s,
            "advert_period_s": net.config.period_s,
            "start_s": net.start_s,
            "first_task_s": net.first_task_s,
            "gossip_cpu_s_per_peer": gossip_cpu_s / peer_seconds * last.at_s,
            "gossip_cpu_share_per_peer": gossip_cpu_s / peer_seconds,
            "gossip_bytes_per_peer_s": gossip_bytes / peer_seconds,
            "rss_bytes": net.machine.used_bytes(),
            "cpu_s": net.machine.cpu_s(),
            "packets": around.network.packets,
            "invariants_violated": net.violations.count,
            "replay": net.config.replay_line(),
            "violations": [str(it) for it in net.violations.found],
            "failures": list(load.failures),
            "peer_failures": dict(load.reasons.most_common(20)),
            "cpu_s_by_purpose": accounting.cpu_s(),
            "latency_table": load.latencies.table(),
            "faults": [_fault(it) for it in net.faults],
            "series": [it.to_document() for it in sampler.samples],
            "run": net.config.to_document(),
        }
    )


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "name": fault.name,
        "amount": fault.amount,
        "at_s": fault.at_s,
        "for_s": None if fault.for_s == math.inf else fault.for_s,
        "peers": list(fault.peers),
        "seed": fault.seed,
    }


def _honest(net: Devnet) -> dict[str, int]:
    """How many honest peers somebody banned, and how many were asked less for a while."""
    banned, doubted = net.sampler.caught.honest(net.faults, net.peers)
    return {"honest_banned": banned, "honest_doubted": doubted}


def _canaries(net: Devnet) -> dict[str, int]:
    """What askers sent to verifiers that is wrong on purpose, and how often one agreed with it."""
    found = [it.node.background_checks.statistics() for it in net.load.askers if it.node]
    return {
        "canaries": sum(it.canaries for it in found),
        "canaries_agreed_with": sum(it.fooled for it in found),
    }
