"""`dashboard`: a page for Grafana over a gateway's `/metrics`, and alerts for Prometheus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from node.commands.output import show_json

_RATE = "[$__rate_interval]"
_ALERT_RATE = "[5m]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: its title, the unit as Grafana calls it, and a query for each line."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]


def _quantiles(name: str) -> list[tuple[str, str]]:
    bucket = f"sum by (le) (rate({name}_bucket{_RATE}))"
    return [(f"p{share}", f"histogram_quantile(0.{share}, {bucket})") for share in (50, 99)]


PANELS: tuple[Panel, ...] = (
    Panel(
        "Peers",
        "short",
        [("connected", "baton_peers_connected"), ("answering", "baton_peers_answering")],
    ),
    Panel(
        "Own tasks a second",
        "ops",
        [
            ("answered", f"rate(baton_tasks_answered_total{_RATE})"),
            ("failed", f"rate(baton_tasks_failed_total{_RATE})"),
        ],
    ),
    Panel(
        "Work done here a second",
        "ops",
        [
            ("legs", f"rate(baton_legs_done_total{_RATE})"),
            ("checks", f"rate(baton_checks_done_total{_RATE})"),
        ],
    ),
    Panel(
        "Tokens a second",
        "short",
        [
            ("prompts", f"sum(rate(vllm:prompt_tokens_total{_RATE}))"),
            ("answers", f"sum(rate(vllm:generation_tokens_total{_RATE}))"),
        ],
    ),
    Panel("From request to answer", "s", _quantiles("vllm:e2e_request_latency_seconds")),
    Panel("To the first token", "s", _quantiles("vllm:time_to_first_token_seconds")),
    Panel("From token to token", "s", _quantiles("vllm:inter_token_latency_seconds")),
    Panel(
        "Generations",
        "short",
        [
            ("under way", "sum(vllm:num_requests_running)"),
            ("no token yet", "sum(vllm:num_requests_waiting)"),
        ],
    ),
    Panel("Keys and values in use", "percentunit", [("pages", "vllm:kv_cache_usage_perc")]),
    Panel(
        "Store",
        "bytes",
        [("used", "baton_store_used_bytes"), ("quota", "baton_store_quota_bytes")],
    ),
    Panel(
        "How others reach the peer",
        "short",
        [
            ("{{kind}}", "baton_reach == 1"),
            ("relays that keep it", "baton_relay_keepers"),
        ],
    ),
    Panel(
        "Since a stranger came through",
        "s",
        [("confirmed", "baton_reach_confirmed_age_seconds")],
    ),
    Panel(
        "As a relay: kept and lines",
        "short",
        [
            ("kept", "baton_relay_kept"),
            ("may be kept", "baton_relay_kept_max"),
            ("lines", "baton_relay_lines"),
            ("askers that owe a promise", "baton_relay_askers_owing"),
        ],
    ),
    Panel(
        "As a relay: bytes a second",
        "Bps",
        [("{{kind}}", f"rate(baton_relay_carried_bytes_total{_RATE})")],
    ),
    Panel(
        "Through relays: bytes a second",
        "Bps",
        [("{{kind}}", f"rate(baton_relay_asked_bytes_total{_RATE})")],
    ),
    Panel(
        "Credits of relays an hour",
        "short",
        [
            ("earned", f"3600 * rate(baton_relay_earned_credits_total{_RATE})"),
            ("paid", f"3600 * rate(baton_relay_paid_credits_total{_RATE})"),
            ("owed to this peer", "baton_relay_owed_credits"),
        ],
    ),
    Panel(
        "Lines that ended, an hour",
        "short",
        [
            ("passed on: {{kind}}", f"3600 * rate(baton_relay_lines_ended_total{_RATE})"),
            ("left: {{kind}}", f"3600 * rate(baton_relay_lines_left_total{_RATE})"),
        ],
    ),
    Panel(
        "Relays left and refused, an hour",
        "short",
        [
            ("left, passed nothing on", f"3600 * rate(baton_relay_keepers_left_total{_RATE})"),
            ("refused for want of room", f"3600 * rate(baton_relay_refused_total{_RATE})"),
            ("not paid, too dear", "baton_relay_unpaid"),
        ],
    ),
    Panel("HTTP requests a second", "reqps", [("all", f"rate(baton_http_requests_total{_RATE})")]),
)
# Name, condition, how long it has to hold, and what it means.
ALERTS: tuple[tuple[str, str, str, str], ...] = (
    ("BatonAlone", "baton_peers_answering == 0", "5m", "no peer answers: run doctor"),
    ("BatonPaused", "baton_paused == 1", "6h", "the peer is paused: see status"),
    (
        "BatonTasksFail",
        f"rate(baton_tasks_failed_total{_ALERT_RATE}) > 0.1 *"
        f" rate(baton_tasks_accepted_total{_ALERT_RATE})",
        "10m",
        "more than one of ten tasks fails",
    ),
    (
        "BatonStoreFull",
        "baton_store_used_bytes > 0.95 * baton_store_quota_bytes",
        "1h",
        "the store is nearly full: raise --quota",
    ),
    (
        "BatonUnreached",
        'baton_reach{kind="alone"} == 1',
        "15m",
        "nobody reaches this peer, and no relay keeps it: run doctor",
    ),
    (
        "BatonRelaysUnpaid",
        "baton_relay_unpaid > 0",
        "15m",
        "relays ask for more than is paid and pass on little: see status, --relay-pay-max",
    ),
    (
        "BatonLinesUnpaid",
        f'rate(baton_relay_lines_ended_total{{kind="unpaid"}}{_ALERT_RATE}) > 0',
        "15m",
        "lines of this relay end as nobody pays for them: see status and --price relay",
    ),
    (
        "BatonRelaysLeft",
        f"sum by (instance) (rate(baton_relay_lines_left_total{_ALERT_RATE}))"
        f" + sum by (instance) (rate(baton_relay_keepers_left_total{_ALERT_RATE})) > 0",
        "5m",
        "relays count too much or pass nothing on, or peers behind them flood: see status",
    ),
    (
        "BatonEngineRestarts",
        f"rate(baton_engine_restarts_total{_ALERT_RATE}) > 0.01",
        "10m",
        "models crash: see status and doctor",
    ),
)


def dashboard() -> dict[str, Any]:
    """The page, as Grafana imports it; the source of data is chosen there."""
    return {
        "title": "Baton",
        "uid": "baton",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": [_picture(number, panel) for number, panel in enumerate(PANELS)],
    }


def alerts() -> dict[str, Any]:
    """Rules for Prometheus, which reads JSON as the YAML that it is."""
    rules = [
        {"alert": name, "expr": query, "for": holds, "annotations": {"summary": words}}
        for name, query, holds, words in ALERTS
    ]
    return {"groups": [{"name": "baton", "rules": rules}]}


def _picture(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {"x": number % 2 * 12, "y": number // 2 * 8, "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + place), "datasource": source, "expr": query, "legendFormat": words}
            for place, (words, query) in enumerate(panel.queries)
        ],
    }


def show(*, only_alerts: bool) -> None:
    """Print the page, or the alerts."""
    show_json(alerts() if only_alerts else dashboard())
