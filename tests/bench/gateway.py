"""HTTP requests a second to a model that does nothing, from clients that ask without a pause.

The first figures are of a whole network: a gateway and an inference peer, each `python -m node
join` in a process of its own, with their stores, over TCP and noise. The second are of the same
application, server and engine in one process without a network. The third are of Ray Serve with a
deployment that does nothing, if it can be imported (`RAY_PYTHON` names another interpreter that has
it). The clients run in this process, on the same cores. Beside the rate stands what each process
spent on one answer: the rate depends on who else uses the machine, and that hardly does.

`python -m tests.bench gateway [SECONDS] [--clients 64,128] [--profile] [--only-network]`;
`--profile` samples both peers and gives shares of their processor time by function.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from node.gateway_config import GatewayConfig
from tests.bench._direct_gateway import direct_node
from tests.bench._http_load import load
from tests.live.command_line import ROOT, environment

CLIENTS = "64,128"
SECONDS = 10.0
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
    """Answers per second, latencies in ms and processor time per answer, for each server."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench gateway")
    parser.add_argument("seconds", nargs="?", type=float, default=SECONDS)
    parser.add_argument("--clients", default=CLIENTS, help="numbers, with commas between them")
    parser.add_argument("--profile", action="store_true", help="shares of time by function")
    parser.add_argument("--only-network", action="store_true", help="nothing to compare with")
    options = parser.parse_args(arguments)
    numbers = [int(it) for it in options.clients.split(",")]
    seconds: float = options.seconds
    found: dict[str, Any] = {"seconds": seconds, "model": "hash, one token"}
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as text:
        folder = Path(text)
        found |= _through_network(folder, numbers, seconds, profiled=options.profile)
        if options.only_network:
            return found
        with process_of([sys.executable, "-m", "tests.bench.gateway", str(folder)]) as alone:
            found["without_network"] = _loads(alone.told["http"], numbers, seconds, server=alone)
        found["ray_serve"], why = _ray(numbers, seconds)
        if why:
            found["ray_serve_why"] = why
    found["network_to_without"] = [
        round(ours["per_s"] / max(alone["per_s"], 0.1), 3)
        for ours, alone in zip(found["network"], found["without_network"], strict=True)
    ]
    return found


def _ask(number: int) -> tuple[str, bytes]:
    """A request whose prompt was never asked before: no answer may come from an earlier one."""
    return PATH, json.dumps({"model": "hash", "prompt": f"turn {number}", "max_tokens": 1}).encode()


# The servers


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that is up: the document that it printed then, and its process id."""

    told: dict[str, Any]
    pid: int


@contextmanager
def process_of(command: list[str]) -> Iterator[ServerProcess]:
    """Run a server as a process, until the block ends."""
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
            yield ServerProcess(json.loads(text), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def joined(state: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Run a peer as a process; yields the document that it prints when it is up."""
    with _peer(state, options) as process:
        yield process.told


@contextmanager
def _peer(
    state: Path, options: tuple[str, ...], profile: Path | None = None
) -> Iterator[ServerProcess]:
    program = ["node"] if profile is None else ["tests.bench._profiled", str(profile)]
    start = [sys.executable, "-m", *program, "join", *options, "--json"]
    with process_of([*start, "--listen", "/ip4/127.0.0.1/tcp/0", "--state", str(state)]) as process:
        yield process


def _through_network(
    folder: Path, numbers: list[int], seconds: float, *, profiled: bool
) -> dict[str, Any]:
    profiles = {name: folder / f"{name}.json" for name in ("gateway", "inference")}
    with ExitStack() as stack:
        roles = ("--role", "gateway", "--role", "store", "--http", "127.0.0.1:0")
        gateway = stack.enter_context(
            _peer(folder / "g", roles, profiles["gateway"] if profiled else None)
        )
        serving = (gateway.told["addresses"][0], "--role", "infer", "--model", "hash")
        inference = stack.enter_context(
            _peer(folder / "i", serving, profiles["inference"] if profiled else None)
        )
        found: dict[str, Any] = {
            "network": _loads(
                gateway.told["http"],
                numbers,
                seconds,
                profiled=profiled,
                gateway=gateway,
                inference=inference,
            )
        }
    if profiled:
        # Written when they end; of the last number of clients alone.
        found["profile"] = {name: json.loads(it.read_text()) for name, it in profiles.items()}
    return found


def _loads(
    url: str, numbers: list[int], seconds: float, profiled: bool = False, **servers: ServerProcess
) -> list[dict[str, Any]]:
    pids = {name: it.pid for name, it in servers.items()}

    def begin() -> None:
        for pid in pids.values() if profiled else ():
            os.kill(pid, signal.SIGUSR1)

    return [trio.run(partial(load, url, _ask, it, seconds, pids, begin)) for it in numbers]


def _ray(numbers: list[int], seconds: float) -> tuple[list[dict[str, Any]] | None, str]:
    python = os.environ.get("RAY_PYTHON", sys.executable)
    there = subprocess.run(
        [python, "-c", "import ray, ray.serve"], capture_output=True, text=True, check=False
    )
    if there.returncode:
        return None, "Ray Serve is not installed here: " + there.stderr.strip().splitlines()[-1]
    with process_of([python, "-c", RAY_PROGRAM, "8123"]) as served:
        return _loads(served.told["http"], numbers, seconds), ""


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
