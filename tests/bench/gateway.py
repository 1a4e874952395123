"""HTTP requests a second to a model that does nothing, from 64 clients that ask without a pause.

The first figure is of a whole network: a gateway and an inference peer, each `python -m node join`
in a process of its own, with their stores, over TCP and noise. The second is of the same
application, server and engine in one process without a network. The third is of Ray Serve with a
deployment that does nothing, if it can be imported (`RAY_PYTHON` names another interpreter that has
it). The clients run in this process.

`python -m tests.bench gateway [SECONDS]`
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.gateway_config import GatewayConfig
from tests.bench._direct_gateway import direct_node
from tests.live.command_line import ROOT, environment

CLIENTS = 64
SECONDS = 10.0
WARM_UP_S = 3.0
START_S = 90.0
PATH = "/v1/completions"
RAY_PROGRAM = """
import json, sys, time
import ray
from ray import serve
from starlette.responses import JSONResponse

@serve.deployment(max_ongoing_requests=256)
class Nothing:
    async def __call__(self, request):
        asked = await request.json()
        said = {"choices": [{"text": "00000000 ", "index": 0}], "model": asked["model"]}
        return JSONResponse(said)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(Nothing.bind(), route_prefix="/")
print(json.dumps({"http": "http://127.0.0.1:" + sys.argv[1]}), flush=True)
time.sleep(3600)
"""


def run(arguments: list[str]) -> dict[str, Any]:
    """Requests per second, and the median and 99th percentile of latency in milliseconds."""
    seconds = float(arguments[0]) if arguments else SECONDS
    found: dict[str, Any] = {"clients": CLIENTS, "seconds": seconds, "model": "hash, one token"}
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as text:
        folder = Path(text)
        with _network(folder) as url:
            found["network"] = trio.run(_load, url, seconds)
        with _process([sys.executable, "-m", "tests.bench.gateway", str(folder)]) as told:
            found["without_network"] = trio.run(_load, told["http"], seconds)
        found["ray_serve"], why = _ray(seconds)
        if why:
            found["ray_serve_why"] = why
    ratio = found["network"]["per_s"] / max(found["without_network"]["per_s"], 0.1)
    return found | {"network_to_without": round(ratio, 3)}


# The servers


@contextmanager
def _process(command: list[str]) -> Iterator[dict[str, Any]]:
    """Run a server as a process; yields the document that it prints when it is up."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            text = b""
            while not text.rstrip().endswith(b"}"):
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"{command[:6]} ended: {text!r}")
                text = text + line if text or line.startswith(b"{") else b""
            yield json.loads(text)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def joined(state: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Run a peer as a process; yields the document that it prints when it is up."""
    start = [sys.executable, "-m", "node", "join", *options, "--json"]
    with _process([*start, "--listen", "/ip4/127.0.0.1/tcp/0", "--state", str(state)]) as told:
        yield told


@contextmanager
def _network(folder: Path) -> Iterator[str]:
    roles = ("--role", "gateway", "--role", "store", "--http", "127.0.0.1:0")
    with joined(folder / "g", *roles) as gateway:
        address = gateway["addresses"][0]
        with joined(folder / "i", address, "--role", "infer", "--model", "hash"):
            yield gateway["http"]


def _ray(seconds: float) -> tuple[dict[str, Any] | None, str]:
    python = os.environ.get("RAY_PYTHON", sys.executable)
    there = subprocess.run(
        [python, "-c", "import ray, ray.serve"], capture_output=True, text=True, check=False
    )
    if there.returncode:
        return None, "Ray Serve is not installed here: " + there.stderr.strip().splitlines()[-1]
    with _process([python, "-c", RAY_PROGRAM, "8123"]) as told:
        return trio.run(_load, told["http"], seconds), ""


# The clients


@dataclass(slots=True)
class _Load:
    """The clients, and how long each answer took."""

    host: str
    port: int
    took_s: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    counting: bool = False

    async def client(self, number: int) -> None:
        """Ask, read the answer, ask again, on one connection for as long as it lives."""
        turn = 0
        while True:
            async with await trio.open_tcp_stream(self.host, self.port) as stream:
                while True:
                    turn += 1
                    began_at_s = trio.current_time()
                    status, stays = await _ask(stream, self.host, f"client {number} turn {turn}")
                    if self.counting and status == 200:
                        self.took_s.append(trio.current_time() - began_at_s)
                    elif self.counting:
                        self.failed[str(status)] = self.failed.get(str(status), 0) + 1
                    if not stays:
                        break


async def _load(url: str, seconds: float) -> dict[str, Any]:
    host, port = url.removeprefix("http://").split(":")
    load = _Load(host, int(port))
    with trio.fail_after(START_S):
        await _first_answer(load)
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(load.client, number)
        await trio.sleep(WARM_UP_S)
        load.counting = True
        began_at_s = trio.current_time()
        await trio.sleep(seconds)
        measured_s = trio.current_time() - began_at_s
        nursery.cancel_scope.cancel()
    cuts = statistics.quantiles(load.took_s, n=100) if len(load.took_s) > 1 else [0.0] * 99
    return {
        "per_s": round(len(load.took_s) / measured_s, 1),
        "p50_ms": round(cuts[49] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "answered": len(load.took_s),
        "refused": load.failed,
    }


async def _first_answer(load: _Load) -> None:
    """Wait until the peers have found each other."""
    turn = 0
    while True:
        turn += 1
        async with await trio.open_tcp_stream(load.host, load.port) as stream:
            if (await _ask(stream, load.host, f"first {turn}"))[0] == 200:
                return
        await trio.sleep(0.2)


async def _ask(stream: trio.SocketStream, host: str, prompt: str) -> tuple[int, bool]:
    """The status of one answer, and whether the connection can be used again."""
    body = json.dumps({"model": "hash", "prompt": prompt, "max_tokens": 1}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    await stream.send_all(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _some(stream)
    said, _, rest = data.partition(b"\r\n\r\n")
    lines = said.lower().split(b"\r\n")
    told = dict(line.split(b": ", 1) for line in lines[1:])
    while len(rest) < int(told[b"content-length"]):
        rest += await _some(stream)
    return int(lines[0].split()[1]), told.get(b"connection") != b"close"


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(65_536)
    if not data:
        raise RuntimeError("the server went away")
    return bytes(data)


# The application without a network


async def _serve_direct(folder: Path) -> None:
    from node.gateway.server import open_gateway

    node = await direct_node(folder)
    async with open_gateway(node, GatewayConfig(port=0)) as url:
        sys.stdout.write(json.dumps({"http": url}) + "\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_serve_direct, Path(sys.argv[1]))
