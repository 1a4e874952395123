"""What Prometheus reads of a gateway, and that each query of our dashboard finds it there."""

import re

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from node.commands.dashboard import ALERTS, PANELS, alerts, dashboard
from node.gateway.metrics import GenerationMetrics
from node.task.events import Streamed, ignore_event
from tests.gateway.conftest import Served

QUERIES = [
    *(query for panel in PANELS for _, query in panel.queries),
    *(condition for _, condition, _, _ in ALERTS),
]


def figures(http: httpx.Client) -> dict[tuple[str, str], float]:
    """Every figure, by its name and the model that it is of."""
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, sample.labels.get("model_name", "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def names_in(query: str) -> set[str]:
    return set(re.findall(r"(?:baton_|vllm:)\w+", query))


@pytest.fixture(scope="module")
def asked(served: Served) -> None:
    """A streamed answer and a whole one."""
    asking = served.client().completions
    assert list(asking.create(model="hash", prompt="hi", stream=True, max_tokens=4))
    assert asking.create(model="hash", prompt="hi", max_tokens=4)


@pytest.mark.usefixtures("asked")
def test_generations_are_told_by_the_names_of_vllm(http: httpx.Client) -> None:
    told = figures(http)
    assert told["vllm:e2e_request_latency_seconds_count", "hash"] >= 2
    assert told["vllm:time_to_first_token_seconds_count", "hash"] >= 1
    assert told["vllm:generation_tokens_total", "hash"] >= 2
    assert told["vllm:num_requests_running", "hash"] >= 0
    assert told["vllm:num_requests_waiting", "hash"] >= 0


@pytest.mark.usefixtures("asked")
def test_the_other_panels_of_vllms_dashboards_find_theirs_too(http: httpx.Client) -> None:
    told = figures(http)
    for streamed in ("queue", "prefill", "decode"):
        assert told[f"vllm:request_{streamed}_time_seconds_count", "hash"] >= 1
    parts = [told[f"vllm:request_{it}_time_seconds_sum", "hash"] for it in ("queue", "prefill")]
    first_s = told["vllm:time_to_first_token_seconds_sum", "hash"]
    assert sum(parts) == pytest.approx(first_s)
    for name in ("prompt", "generation", "max_num_generation"):
        assert told[f"vllm:request_{name}_tokens_count", "hash"] >= 2
    for name in ("prompt", "generation"):
        counted = told[f"vllm:{name}_tokens_total", "hash"]
        assert told[f"vllm:request_{name}_tokens_sum", "hash"] == counted
    by_now = told["vllm:inter_token_latency_seconds_count", "hash"]
    assert told["vllm:time_per_output_token_seconds_count", "hash"] == by_now


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("query", QUERIES)
def test_each_query_of_the_dashboard_asks_for_what_is_there(http: httpx.Client, query: str) -> None:
    told = {name for name, _ in figures(http)}
    # The engine of these tests has no pages, so that family has no line.
    told.add("vllm:kv_cache_usage_perc")
    assert names_in(query)
    assert names_in(query) <= told


@pytest.mark.usefixtures("asked")
def test_no_peer_and_no_task_is_a_label(http: httpx.Client, served: Served) -> None:
    text = http.get("/metrics").text
    assert str(served.node.peers.me) not in text
    labels = set(re.findall(r"(\w+)=\"", text))
    assert labels <= {"model_name", "le", "finished_reason", "kind"}


def test_the_dashboard_has_a_picture_for_each_panel_and_the_alerts_a_rule_each() -> None:
    page = dashboard()
    assert [it["title"] for it in page["panels"]] == [it.title for it in PANELS]
    assert all(it["targets"] for it in page["panels"])
    (group,) = alerts()["groups"]
    assert len(group["rules"]) == len(ALERTS)


async def test_a_piece_of_very_many_tokens_takes_no_time(autojump_clock: MockClock) -> None:
    metrics = GenerationMetrics(CollectorRegistry())
    with metrics.watch("hash") as watch:
        told = watch.on_event(ignore_event)
        told(Streamed(0, 1, b"a"))
        # A peer says how many; nobody has seen them.
        told(Streamed(1, 1 << 30, b"b"))
    assert watch.metrics.token.labels("hash")._sum.get() == 0
