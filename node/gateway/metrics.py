"""What a monitoring system reads of a gateway: figures of the peer, and of the answers it gave.

Generations are told by the names that vLLM uses, so that its dashboards work; all else begins with
`baton_`. Labels are few and bounded: no peer, no key, no task is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import trio
from fastapi import APIRouter
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from node.gateway.openapi import answers
from node.gateway.relay_figures import relay_figures
from node.peer import Node
from node.task.events import Event, EventSink, Offered, Streamed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Clients choose the names of models: more than so many are one, by this name.
MODELS_MAX = 100
OTHERS = "(others)"
# Of one piece of a stream no more tokens are counted one by one.
UNITS_OBSERVED_MAX = 64
_LATENCY_S = (0.1, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0)
_FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_MODEL = ("model_name",)


@dataclass(slots=True)
class Watch:
    """One generation, as its time passes; in a `with`, for as long as it is under way.

    Times are of trio's clock.
    """

    metrics: "GenerationMetrics"
    model: str
    began_at_s: float
    _taken_at_s: float | None = None
    _first_at_s: float | None = None
    _last_at_s: float | None = None
    _streams: bool = False

    def __enter__(self) -> Self:
        self.metrics.running.labels(self.model).inc()
        return self

    def __exit__(self, *_: object) -> None:
        self.metrics.running.labels(self.model).dec()
        self._waits(False)

    def on_event(self, told: EventSink) -> EventSink:
        """Of a stream: hands every event on, and notes when tokens came."""
        self._waits(True)

        def on_event(event: Event) -> None:
            if isinstance(event, Streamed) and event.units:
                self._tokens(event.units)
            elif isinstance(event, Offered) and self._taken_at_s is None:
                self._taken_at_s = trio.current_time()
            told(event)

        return on_event

    def _waits(self, waits: bool) -> None:
        """Whether nothing came yet of a stream that is waited for."""
        if waits is not self._streams:
            self._streams = waits
            self.metrics.waiting.labels(self.model).inc(1 if waits else -1)

    def _tokens(self, units: int) -> None:
        now_at_s, before_at_s = trio.current_time(), self._last_at_s
        self._last_at_s = now_at_s
        if before_at_s is None:
            self._waits(False)
            self._first(now_at_s)
            return
        observe = self.metrics.token.labels(self.model).observe
        # A peer says how many there were: a number that is not true must not keep us busy.
        for _ in range(min(units, UNITS_OBSERVED_MAX)):
            observe((now_at_s - before_at_s) / units)

    def _first(self, now_at_s: float) -> None:
        metrics, self._first_at_s = self.metrics, now_at_s
        metrics.first_token.labels(self.model).observe(now_at_s - self.began_at_s)
        # Until a peer took it, and from then on; it may have been taken long before we heard of it.
        taken_at_s = self.began_at_s if self._taken_at_s is None else self._taken_at_s
        metrics.queue.labels(self.model).observe(taken_at_s - self.began_at_s)
        metrics.prefill.labels(self.model).observe(now_at_s - taken_at_s)

    def ended(self, reason: str, prompt_tokens: int, tokens: int) -> None:
        """The answer is there, whole."""
        metrics, now_at_s = self.metrics, trio.current_time()
        if self._first_at_s is not None:
            metrics.decode.labels(self.model).observe(now_at_s - self._first_at_s)
        metrics.prompt_length.labels(self.model).observe(prompt_tokens)
        metrics.length.labels(self.model).observe(tokens)
        metrics.latency.labels(self.model).observe(now_at_s - self.began_at_s)
        metrics.prompt_tokens.labels(self.model).inc(prompt_tokens)
        metrics.tokens.labels(self.model).inc(tokens)
        metrics.success.labels(self.model, reason).inc()


def _renamed(family: Metric, name: str) -> Metric:
    """The same figures by another name."""
    other = Metric(name, family.documentation, family.type)
    other.samples = [
        it._replace(name=name + it.name.removeprefix(family.name)) for it in family.samples
    ]
    return other


@dataclass(frozen=True, slots=True, eq=False)
class Renamed(Collector):
    """Tells a family by another name too, without being fed a second time."""

    family: Histogram
    name: str

    def collect(self) -> Iterator[Metric]:
        """The same figures."""
        return (_renamed(it, self.name) for it in self.family.collect())


class GenerationMetrics:
    """What is measured of generations, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: set[str] = set()
        self.running = Gauge(
            "vllm:num_requests_running", "Generations under way.", _MODEL, registry=registry
        )
        self.waiting = Gauge(
            "vllm:num_requests_waiting", "Streams without a token yet.", _MODEL, registry=registry
        )
        self.latency = Histogram(
            "vllm:e2e_request_latency_seconds",
            "From a request to its whole answer.",
            _MODEL,
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.first_token = Histogram(
            "vllm:time_to_first_token_seconds",
            "From a streamed request to its first token.",
            _MODEL,
            buckets=_FIRST_S,
            registry=registry,
        )
        self.token = Histogram(
            "vllm:inter_token_latency_seconds",
            "From a streamed token to the next.",
            _MODEL,
            buckets=_TOKEN_S,
            registry=registry,
        )
        histogram = partial(Histogram, labelnames=_MODEL, registry=registry)
        self.queue = histogram(
            "vllm:request_queue_time_seconds",
            "From a streamed request until a peer took it.",
            buckets=_FIRST_S,
        )
        self.prefill = histogram(
            "vllm:request_prefill_time_seconds",
            "From a peer's taking of a streamed request to the first token.",
            buckets=_FIRST_S,
        )
        self.decode = histogram(
            "vllm:request_decode_time_seconds",
            "From the first token of a stream to its whole answer.",
            buckets=_LATENCY_S,
        )
        self.prompt_length = histogram(
            "vllm:request_prompt_tokens", "Tokens of each prompt.", buckets=_TOKENS
        )
        self.length = histogram(
            "vllm:request_generation_tokens", "Tokens of each answer.", buckets=_TOKENS
        )
        for family, name in (
            # So the releases of vLLM before 0.10 called it.
            (self.token, "vllm:time_per_output_token_seconds"),
            # Several answers to one request are each a generation here.
            (self.length, "vllm:request_max_num_generation_tokens"),
        ):
            registry.register(Renamed(family, name))
        self.prompt_tokens = Counter(
            "vllm:prompt_tokens", "Tokens of the prompts.", _MODEL, registry=registry
        )
        self.tokens = Counter(
            "vllm:generation_tokens", "Tokens of the answers.", _MODEL, registry=registry
        )
        self.success = Counter(
            "vllm:request_success",
            "Answers, by how they ended.",
            (*_MODEL, "finished_reason"),
            registry=registry,
        )

    def watch(self, model: str) -> Watch:
        """Begin to measure one generation by `model`, as the client called it."""
        if model not in self._models:
            if len(self._models) >= MODELS_MAX:
                model = OTHERS
            self._models.add(model)
        return Watch(self, model, trio.current_time())


@dataclass(frozen=True, slots=True, eq=False)
class PeerFigures:
    """Collects what the peer knows of itself at the moment it is asked."""

    node: Node

    def collect(self) -> Iterator[Any]:
        """Every figure as a family of the library's."""
        node = self.node
        tasks, store = node.tasks.statistics(), node.dependencies.store.statistics()
        engine = node.dependencies.engine.statistics()
        answered, connected = node.peers.answered_last_minute()
        gauges: dict[str, tuple[str, float]] = {
            "peers_connected": ("Connected peers.", connected),
            "peers_answering": ("Connected peers that answered in the last minute.", answered),
            "peers_known": ("Peers whose adverts are valid.", len(node.peers.view)),
            "tasks_under_way": ("Own tasks without an answer yet.", tasks.under_way),
            "legs_under_way": ("Legs under way here.", node.leg_server.under_way),
            "paused": ("1 while this peer takes no work.", float(bool(node.leg_server.paused))),
            "store_used_bytes": ("What the store holds.", store.used_bytes),
            "store_quota_bytes": ("What it may hold.", store.quota_bytes),
            "uptime_seconds": ("Since the peer began.", trio.current_time() - node.started_at_s),
        }
        for name, (words, value) in gauges.items():
            yield GaugeMetricFamily(f"baton_{name}", words, value)
        counters: dict[str, tuple[str, float]] = {
            "tasks_accepted": ("Own tasks that were accepted.", tasks.accepted),
            "tasks_answered": ("Own tasks that were answered.", tasks.answered),
            "tasks_failed": ("Own tasks that failed.", tasks.failed),
            "tasks_retried": ("Attempts after the first ones.", tasks.retried),
            "legs_done": ("Legs done here, for others and for itself.", node.leg_server.done),
            "checks_done": ("Checks made of others' answers.", node.verify_role.checked),
            "units_done": ("Units of work of the engine.", engine.units_done),
            "engine_restarts": ("Workers that were started again.", engine.restarts),
        }
        for name, (words, value) in counters.items():
            yield CounterMetricFamily(f"baton_{name}", words, value)
        paying = node.status_sources.get("paying", dict)
        yield from relay_figures(node.peers.reach_map(), paying().get("relays"))
        yield from self._http()
        yield from self._pages()

    def _http(self) -> Iterator[Any]:
        if (source := self.node.status_sources.get("http")) is None:
            return
        told = source()
        yield GaugeMetricFamily("baton_http_open", "Open connections.", told["open"])
        yield CounterMetricFamily("baton_http_requests", "Requests so far.", told["requests"])
        for what in ("refused", "timed_out", "errors"):
            family = CounterMetricFamily(
                f"baton_http_{what}", "Requests that ended so, by kind.", labels=["kind"]
            )
            for kind, count in sorted(told[what].items()):
                family.add_metric([kind], count)
            yield family

    def _pages(self) -> Iterator[Any]:
        engine = self.node.dependencies.engine
        used = GaugeMetricFamily(
            "vllm:kv_cache_usage_perc", "Used pages of keys and values, 1 is all.", labels=_MODEL
        )
        pages = engine.statistics().pages
        for loaded in list(engine.loaded().values())[:MODELS_MAX]:
            taken, count = pages.get(loaded.model, (0, 0))
            if count:
                used.add_metric([loaded.manifest.name], taken / count)
        yield used
        # As the releases of vLLM before 0.10 called it.
        yield _renamed(used, "vllm:gpu_cache_usage_perc")


def open_registry(node: Node) -> CollectorRegistry:
    """What is read of one gateway; the figures of generations come into it beside the peer's."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(PeerFigures(node))
    return registry


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """`GET /metrics`, as Prometheus reads it."""
    router = APIRouter(tags=["Baton"])
    documented = answers(None) | {
        200: {
            "description": "Figures, a line each.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    }

    @router.get("/metrics", response_class=Response, responses=documented, operation_id="metrics")
    async def metrics() -> Response:
        """Figures of this peer and of the answers that it gave, for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE)

    return router
