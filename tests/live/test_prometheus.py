"""Prometheus scrapes a peer under load: each query of our dashboard and of vLLM's gives a series.

It needs `prometheus` and `promtool`, which Debian has, and takes its time: it runs with --soak.
"""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from node.commands.dashboard import PANELS, alerts
from node.gateway.metrics import CONTENT_TYPE
from tests.engines.tiny_gguf import write_gguf
from tests.gateway.relay_pages import simulated_pages
from tests.live.command_line import joined

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
SIZES = (64, 1, 128, 4, 2, 512)
PATIENCE_S = 240.0
LANES = 3
# What Grafana puts in the place of its own word, for a scrape each second.
RATE = "[10s]"
# How vLLM's own dashboards ask, by the names that they ask for.
QUANTILE = 'histogram_quantile(0.95, sum by (le) (rate(vllm:{}_bucket{{model_name="small"}}[10s])))'
OF_VLLM = (
    *(
        QUANTILE.format(it)
        for it in (
            "e2e_request_latency_seconds",
            "time_to_first_token_seconds",
            "inter_token_latency_seconds",
            # By this name its releases before 0.10 told the same.
            "time_per_output_token_seconds",
            "request_prompt_tokens",
            "request_generation_tokens",
        )
    ),
    *(
        f'rate(vllm:request_{it}_sum{{model_name="small"}}[10s])'
        for it in (
            "queue_time_seconds",
            "prefill_time_seconds",
            "decode_time_seconds",
            "max_num_generation_tokens",
        )
    ),
    'vllm:gpu_cache_usage_perc{model_name="small"}',
    "rate(vllm:e2e_request_latency_seconds_sum[10s])"
    " / rate(vllm:e2e_request_latency_seconds_count[10s])",
    'vllm:num_requests_running{model_name="small"}',
    'vllm:num_requests_waiting{model_name="small"}',
    'vllm:kv_cache_usage_perc{model_name="small"}',
    'rate(vllm:prompt_tokens_total{model_name="small"}[10s])',
    'rate(vllm:generation_tokens_total{model_name="small"}[10s])',
    "sum by (finished_reason) (increase(vllm:request_success_total[10s]))",
)


def queries() -> list[str]:
    ours = [query.replace("[$__rate_interval]", RATE) for it in PANELS for _, query in it.queries]
    # A condition that does not hold gives nothing: both of its sides have to give something.
    sides = [
        side
        for rule in alerts()["groups"][0]["rules"]
        for side in re.split(r" (?:==|>) ", rule["expr"].replace("[5m]", RATE))
    ]
    return [*ours, *OF_VLLM, *sides]


@contextmanager
def under_load(url: str) -> Iterator[None]:
    """Streams and whole answers, in lanes, for as long as the block runs."""
    over = threading.Event()

    def lane(number: int) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=60) as client:
            while not over.is_set():
                asked = {"model": "small", "prompt": f"{number} {time.monotonic()}"}
                told = client.completions.create(**asked, max_tokens=8, stream=number > 0)
                if number > 0:
                    assert list(told)

    lanes = [threading.Thread(target=lane, args=(it,), daemon=True) for it in range(LANES)]
    for it in lanes:
        it.start()
    try:
        yield
    finally:
        over.set()
        for it in lanes:
            it.join(60)


@contextmanager
def served_pages(pages: Sequence[str]) -> Iterator[list[str]]:
    """Pages as they are, each at a port of its own on this machine; the places."""
    servers = []
    for page in pages:

        class Page(BaseHTTPRequestHandler):
            told = page.encode()

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", CONTENT_TYPE)
                self.end_headers()
                self.wfile.write(self.told)

            def log_message(self, *_: object) -> None:
                return

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Page))
    threads = [threading.Thread(target=it.serve_forever, daemon=True) for it in servers]
    for it in threads:
        it.start()
    try:
        yield [f"127.0.0.1:{it.server_port}" for it in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@contextmanager
def prometheus(folder: Path, targets: Sequence[str]) -> Iterator[str]:
    """A Prometheus that scrapes the targets each second; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "alerts.json").write_text(json.dumps(alerts()))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "alerts.json")],
        "scrape_configs": [{"job_name": "baton", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.json").write_text(json.dumps(config))
    words = (
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def result_of(base: str, query: str) -> list[Any]:
    answer = httpx.get(f"{base}/api/v1/query", params={"query": query}, timeout=20).json()
    assert answer["status"] == "success", (query, answer)
    found: Any = answer["data"]["result"]
    # A number by itself is a series enough; NaN says that nothing was there to divide.
    if answer["data"]["resultType"] == "scalar":
        return [found]
    return [it for it in found if it["value"][1] != "NaN"]


def test_each_query_of_ours_and_of_vllms_gives_a_series(tmp_path: Path) -> None:
    if not all(map(shutil.which, ("prometheus", "promtool"))):
        pytest.skip("prometheus is not installed")
    model = write_gguf(tmp_path / "small.gguf", "qwen3", "q8_0", sizes=SIZES, context=64, seed=10)
    roles = ("--role", "infer", "--role", "gateway", "--role", "store")
    http = ("--http", "127.0.0.1:0", "--http-verdicts", "0/0", "--model", model)
    # This machine has no routers: what is said of relays is of peers in a simulated network.
    pages = list(simulated_pages(tmp_path / "relays").values())
    with (
        served_pages(pages) as places,
        joined(tmp_path / "s", *roles, *http) as peer,
        under_load(peer.url),
    ):
        with prometheus(tmp_path, [peer.url.removeprefix("http://"), *places]) as base:
            missing, late_at_s = queries(), time.monotonic() + PATIENCE_S
            while missing and time.monotonic() < late_at_s:
                time.sleep(1)
                try:
                    missing = [it for it in missing if not result_of(base, it)]
                except httpx.TransportError:
                    continue
            assert missing == []
            rules = httpx.get(f"{base}/api/v1/rules", timeout=20).json()["data"]["groups"][0]
            assert [it["health"] for it in rules["rules"]] == ["ok"] * len(rules["rules"])
        text = httpx.get(f"{peer.url}/metrics", timeout=20).text
    # The colon in vLLM's names is what promtool would not have.
    for page in (text, *pages):
        own = [it for it in page.splitlines(keepends=True) if "baton_" in it]
        checked = subprocess.run(
            ["promtool", "check", "metrics"],
            input="".join(own),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    rules_file = tmp_path / "alerts.json"
    subprocess.run(["promtool", "check", "rules", str(rules_file)], check=True, capture_output=True)
