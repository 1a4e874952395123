"""What a monitoring system reads of how a peer is reached, and of relays: of both of their ends.

All comes out of what `status` says, so that both say the same. Pure.
"""

from collections.abc import Iterator, Mapping
from math import nan
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from p2p.reachability import Reach
from wire.amount import CREDIT

# Of a peer of a network without credits.
_PAYS_NOTHING = {
    "paid": 0,
    "paid_bytes": 0,
    "unpaid": 0,
    "lines_left": {"meter": 0, "uncalled": 0},
}


def relay_figures(reach: Mapping[str, Any], payer: Mapping[str, Any] | None) -> Iterator[Any]:
    """Families of the library's, of a status's `reach` and of its `relays` under `paying`."""
    yield from _reached(reach)
    yield from _passes_on(reach)
    yield from _is_passed_on(reach, payer or _PAYS_NOTHING)


def _reached(reach: Mapping[str, Any]) -> Iterator[Any]:
    states = {it.value: float(it.value == reach["how"]) for it in Reach}
    yield _by_kind(GaugeMetricFamily, "reach", "1 for how others reach this peer.", states)
    age_s = reach["confirmed_s_ago"]
    gauges = {
        "reach_since_seconds": ("For how long that has been so.", reach["since_s"]),
        "reach_confirmed_age_seconds": (
            "Since a stranger came through; NaN if none has.",
            nan if age_s is None else age_s,
        ),
        "relay_keepers": ("Relays that keep this peer.", len(reach["keepers"])),
    }
    yield from _gauges(gauges)
    words = "Relays that were left as they passed nothing on."
    yield CounterMetricFamily("baton_relay_keepers_left", words, reach["keepers_left"])


def _passes_on(reach: Mapping[str, Any]) -> Iterator[Any]:
    """As a relay."""
    gauges = {
        "relay_kept": ("Peers that this one keeps.", reach["keeps"]),
        "relay_kept_max": ("How many it may keep.", reach["keeps_max"]),
        "relay_lines": ("Lines that it passes on.", reach["lines"]),
        "relay_askers_owing": ("Askers whose bytes wait for a promise.", reach.get("owing", 0)),
        "relay_owed_credits": (
            "Charged for bytes, and not redeemed yet.",
            reach.get("carried_owed", 0) / CREDIT,
        ),
    }
    yield from _gauges(gauges)
    paid_bytes = reach.get("carried_paid_bytes", 0)
    # Where nothing is asked for, all of them are free.
    free_bytes = reach.get("carried_free_bytes", reach["carried_bytes"])
    counters: dict[str, tuple[str, Mapping[str, float]]] = {
        "relay_carried_bytes": ("Passed on.", {"paid": paid_bytes, "free": free_bytes}),
        "relay_lines_ended": ("Lines that ended, by the reason.", reach["lines_ended"]),
    }
    for name, (words, kinds) in counters.items():
        yield _by_kind(CounterMetricFamily, name, words, kinds)
    refused = reach["relaying_refused"]
    yield CounterMetricFamily("baton_relay_refused", "Leases and lines without room.", refused)
    earned = reach.get("carried_earned", 0) / CREDIT
    yield CounterMetricFamily("baton_relay_earned_credits", "Charged for bytes.", earned)


def _is_passed_on(reach: Mapping[str, Any], payer: Mapping[str, Any]) -> Iterator[Any]:
    """As one that asks relays for lines."""
    gauges = {
        "relay_asked_lines": ("Lines that this peer asked for.", reach["asked_lines"]),
        "relay_unpaid": ("Relays in use that ask for more than is paid.", payer["unpaid"]),
    }
    yield from _gauges(gauges)
    paid_bytes = payer["paid_bytes"]
    kinds = {"paid": paid_bytes, "free": max(0, reach["asked_bytes"] - paid_bytes)}
    yield _by_kind(CounterMetricFamily, "relay_asked_bytes", "Moved over them.", kinds)
    words = "Lines that were left, by the reason."
    yield _by_kind(CounterMetricFamily, "relay_lines_left", words, payer["lines_left"])
    yield CounterMetricFamily("baton_relay_paid_credits", "Paid for them.", payer["paid"] / CREDIT)


def _gauges(gauges: Mapping[str, tuple[str, float]]) -> Iterator[Any]:
    for name, (words, value) in gauges.items():
        yield GaugeMetricFamily(f"baton_{name}", words, value)


def _by_kind(
    family: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    words: str,
    kinds: Mapping[str, float],
) -> Any:
    made = family(f"baton_{name}", words, labels=["kind"])
    for kind, value in sorted(kinds.items()):
        made.add_metric([kind], value)
    return made
