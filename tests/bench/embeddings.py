"""2,048 short texts in one request to `/v1/embeddings`, beside the engine's own time for them.

The gateway is a peer of its own process, `python -m node join`, that runs MiniLM itself; the engine
is the same one in this process, given the texts in jobs as large as there can be, all at once. They
take turns, so that neither has the quieter machine, and the best of each counts.

`python -m tests.bench embeddings [ROUNDS [TEXTS]]`
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import trio

from node.engines.formats.minilm import minilm_files, minilm_manifest
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Engine
from tests.bench.embed_engine import SENTENCES, job
from tests.bench.gateway import joined
from wire import limits

TEXTS = 2048
WARM_UP_TEXTS = 256
# Where peers keep compiled graphs too: none is compiled for this.
CACHE = Path.home() / ".cache" / "baton"
ROUNDS = 3
REQUEST_S = 600.0
RATIO_MAX = 3.0


def texts_of(round_number: int, who: str, count: int) -> list[str]:
    """Short texts of which none was asked before."""
    return [
        f"{number} {who} {round_number}: {SENTENCES[number % len(SENTENCES)]}"
        for number in range(count)
    ]


async def of_engine(engine: Engine, texts: list[str]) -> float:
    """Seconds for the texts in jobs of as many as a job may have."""
    began_at_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for at in range(0, len(texts), limits.PASSAGES_MAX):
            part = job(*texts[at : at + limits.PASSAGES_MAX])
            nursery.start_soon(engine.infer, replace(part, deadline_s=REQUEST_S))
    return trio.current_time() - began_at_s


async def of_gateway(url: str, texts: list[str]) -> float:
    """Seconds for one request with the texts; its answer is read whole."""
    async with httpx.AsyncClient(timeout=REQUEST_S) as client:
        began_at_s = time.monotonic()
        body = {"model": "minilm", "input": texts, "encoding_format": "base64"}
        answer = await client.post(f"{url}/v1/embeddings", json=body)
        rows = answer.raise_for_status().json()["data"]
        took_s = time.monotonic() - began_at_s
    assert [it["index"] for it in rows] == list(range(len(texts)))
    return took_s


async def measure(url: str, rounds: int, count: int) -> dict[str, Any]:
    """The best of some rounds of each, after some texts that warm both up."""
    gateway_s, engine_s = [], []
    async with open_tinygrad_engine(CACHE, config=EngineConfig()) as engine:
        await engine.load(minilm_manifest(), minilm_files())
        await of_engine(engine, texts_of(0, "engine", WARM_UP_TEXTS))
        await of_gateway(url, texts_of(0, "gateway", WARM_UP_TEXTS))
        for number in range(1, rounds + 1):
            engine_s.append(await of_engine(engine, texts_of(number, "engine", count)))
            gateway_s.append(await of_gateway(url, texts_of(number, "gateway", count)))
    ratio = min(gateway_s) / min(engine_s)
    return {
        "texts": count,
        "engine_s": [round(it, 2) for it in engine_s],
        "gateway_s": [round(it, 2) for it in gateway_s],
        "ratio": round(ratio, 2),
        "held": ratio <= RATIO_MAX,
    }


def run(arguments: list[str]) -> dict[str, Any]:
    """Seconds of both, and the ratio, which is to be 3 at most."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    count = int(arguments[1]) if len(arguments) > 1 else TEXTS
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as text:
        roles = ("--role", "infer", "--role", "gateway", "--http", "127.0.0.1:0")
        with joined(Path(text) / "state", *roles, "--model", "minilm") as told:
            url = told["http"]
            while httpx.get(f"{url}/ready").status_code != 200:
                time.sleep(0.5)
            return trio.run(measure, url, rounds, count)
