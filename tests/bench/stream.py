"""One stream of a language model through the whole network, against the same engine alone.

A peer that runs the model and a gateway, each `python -m node join` in a process of its own, and
our client, streaming. The model is one that `generate` also makes. The network and the engine take
turns in one run, each time with a new prompt, while the other side is idle.

`python -m tests.bench stream [25m|100m]`
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import trio

import node
from node.client.net import Net
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Engine
from tests.bench.gateway import joined
from tests.bench.generate import CONTEXT, SIZES, TOKENS, job, timed
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.content import ContentId

ROUNDS = 7
START_S = 120.0


def run(arguments: list[str]) -> dict[str, Any]:
    """Tokens per second from the request to the last token, medians over rounds."""
    name = arguments[0] if arguments else "25m"
    if name not in SIZES:
        raise SystemExit(f"models: {', '.join(SIZES)}; not {json.dumps(arguments)}")
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as text:
        folder = Path(text)
        path = folder / f"bench-{name}.gguf"
        write_gguf(path, "llama", "q8_0", sizes=SIZES[name], context=CONTEXT)
        roles = ("--role", "gateway", "--role", "store", "--http", "127.0.0.1:0")
        with joined(folder / "g", *roles) as gateway:
            serving = ("--role", "infer", "--model", str(path))
            with joined(folder / "i", gateway["addresses"][0], *serving):
                rows = trio.run(_measure, path, folder / "cache", gateway["http"])
    alone, through = ([row[at] for row in rows] for at in (0, 1))
    ratio = statistics.median(b / a for a, b in rows)
    return {
        "model": name,
        "tokens": TOKENS,
        "alone_tokens_per_s": [round(it, 1) for it in alone],
        "network_tokens_per_s": [round(it, 1) for it in through],
        "network_to_alone": round(ratio, 3),
        "held": ratio >= 0.95,
    }


async def _measure(path: Path, cache: Path, url: str) -> list[tuple[float, float]]:
    manifest, files = gguf_manifest(path, path.stem)
    rows = []
    async with (
        open_tinygrad_engine(cache, config=EngineConfig()) as engine,
        node.connect(url) as net,
    ):
        await engine.load(manifest, files)
        served = await _first_answer(net)
        await engine.infer(job(manifest.id, "First", 2))
        for number in range(ROUNDS):
            alone = await _alone(engine, manifest.id, f"Story {number}")
            rows.append((alone, await _through(net, served, f"Story {number}")))
    return rows


async def _first_answer(net: Net) -> str:
    """Wait until the model is ready and the peers are connected; returns the model's name."""
    with trio.fail_after(START_S):
        while not (models := await net.models()):
            await trio.sleep(0.5)
    await net.complete(models[0].id, "First", max_tokens=2).whole()
    return models[0].id


async def _alone(engine: Engine, model: ContentId, prompt: str) -> float:
    _, took_s, output = await timed(engine, job(model, prompt, TOKENS))
    return output.units / took_s


async def _through(net: Net, model: str, prompt: str) -> float:
    began_at_s = trio.current_time()
    usage = None
    async for piece in net.complete(model, prompt, max_tokens=TOKENS, temperature=0):
        usage = piece.usage
    assert usage is not None
    return usage["completion_tokens"] / (trio.current_time() - began_at_s)
