"""Thirty-two clients with one sentence each, beside plain tinygrad called one by one.

Run from the repository's root: `python -m tests.bench embed_engine`. Both run on
this machine one after the other in one run, with the same sentences; what counts is the ratio. The
plain program is what one would write first: the same model, a captured graph for each length in
steps of sixteen tokens, one text at a time, in its own process.
"""

import math
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from node.engines.formats.bert import BertShape, BertWeights
from node.engines.formats.minilm import MINILM_ID, minilm_files, minilm_manifest
from node.engines.formats.safetensors import read_table
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig, prepare
from node.engines.interface import Engine, Job
from node.engines.worker.tokenizer import read_tokens
from wire.payload import Texts

CLIENTS = 32
ROUNDS = 16
SENTENCES = tuple(
    f"{who} {what} {where}{when}."
    for who in ("A man", "The girl with a red scarf", "Somebody", "An old friend of mine")
    for what in ("is eating a piece of bread", "waits", "reads the news about the elections")
    for where in ("", " near the station", " in a small town by the sea")
    for when in ("", " every day", " before the sun comes up over the hills")
)


def job(*texts: str) -> Job:
    return Job(
        model=MINILM_ID,
        operation="embed",
        input=Texts(texts=texts).to_bytes(),
        parameters={},
        deadline_s=120,
    )


async def clients(engine: Engine) -> float:
    """Sentences per second of CLIENTS clients that each ask for one at a time."""

    async def client(number: int) -> None:
        for step in range(ROUNDS):
            await engine.infer(job(SENTENCES[(number + step * CLIENTS) % len(SENTENCES)]))

    began_at_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(client, number)
    return CLIENTS * ROUNDS / (trio.current_time() - began_at_s)


async def at_sizes(engine: Engine) -> dict[int, float]:
    """Sentences per second of one client, by sentences in a job."""
    found = {}
    for size in (1, 4, 16, 64, 256):
        texts = (SENTENCES * 3)[:size]
        began_at_s, repeats = trio.current_time(), max(2, 64 // size)
        for _ in range(repeats):
            await engine.infer(job(*texts))
        found[size] = round(size * repeats / (trio.current_time() - began_at_s), 1)
    return found


async def overshoot(delays_s: list[float]) -> None:
    """How late the loop wakes: what the engine costs all other tasks of this process."""
    while True:
        due_at_s = trio.current_time() + 0.001
        await trio.sleep_until(due_at_s)
        delays_s.append(trio.current_time() - due_at_s)


async def measure(cache: Path, config: EngineConfig) -> dict[str, Any]:
    """Measure both starts, then the engine's speed, and what it costs this process's loop."""
    found: dict[str, Any] = {}
    for start in ("cold_start_s", "warm_start_s"):
        began_at_s = trio.current_time()
        async with open_tinygrad_engine(cache, config=config) as engine:
            loaded = await engine.load(minilm_manifest(), minilm_files())
            await engine.infer(job(SENTENCES[0]))
            found[start] = round(trio.current_time() - began_at_s, 1)
            if start == "cold_start_s":
                continue
            found["worker_resident_mib"] = loaded.memory_bytes >> 20
            found["sentences_per_s_by_job_size"] = await at_sizes(engine)
            delays_s: list[float] = []
            before = resource.getrusage(resource.RUSAGE_SELF)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(overshoot, delays_s)
                found["sentences_per_s_32_clients"] = round(await clients(engine), 1)
                nursery.cancel_scope.cancel()
            after = resource.getrusage(resource.RUSAGE_SELF)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found["loop_late_ms_p99"] = round(sorted(delays_s)[int(len(delays_s) * 0.99)] * 1e3, 1)
    found["parent_cpu_ms_per_sentence"] = round(used_s / (CLIENTS * ROUNDS) * 1e3, 2)
    return found


async def five_cold(cache: Path, config: EngineConfig) -> float:
    """Seconds until five engines that start together with an empty cache all have answered."""

    async def one() -> None:
        async with open_tinygrad_engine(cache, config=config) as engine:
            await engine.load(minilm_manifest(), minilm_files())
            await engine.infer(job(SENTENCES[0]))

    began_at_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    return round(trio.current_time() - began_at_s, 1)


async def main(folder: Path) -> dict[str, Any]:
    config = EngineConfig()
    found = await measure(folder / "one", config)
    found["five_cold_starts_s"] = await five_cold(folder / "five", config)
    launch = await prepare(folder / "one", config)
    done = await trio.run_process(
        [sys.executable, "-m", "tests.bench.embed_engine", "--plain"],
        env=dict(launch.environment),
        capture_stdout=True,
    )
    found["sentences_per_s_plain"] = round(float(done.stdout), 1)
    ratio = found["sentences_per_s_32_clients"] / found["sentences_per_s_plain"]
    return found | {"ratio_to_plain": round(ratio, 2)}


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return trio.run(main, Path(folder))


def plain() -> float:
    """Sentences per second of tinygrad called one by one, after warm-up."""
    import numpy as np
    from tinygrad import Tensor, TinyJit

    shape = BertShape.of(minilm_manifest())
    files = minilm_files()
    host = BertWeights.read(read_table(files["model.safetensors"]), shape)
    tokens = read_tokens(files["tokenizer.json"], tokens_max=256, vocabulary=len(host.words))
    put = lambda array: Tensor(np.array(array)).realize()  # noqa: E731
    layers = [
        [
            (put(weight), put(bias))
            for weight, bias in (
                x.attention,
                x.attention_out,
                x.attention_norm,
                x.inner,
                x.outer,
                x.norm,
            )
        ]
        for x in host.layers
    ]
    words, positions, kind = put(host.words), put(host.positions), put(host.kind)
    first = tuple(map(put, host.norm))

    def norm(x: Tensor, w: tuple[Tensor, Tensor]) -> Tensor:
        return x.layernorm(eps=shape.layer_norm_eps) * w[0] + w[1]

    def linear(x: Tensor, w: tuple[Tensor, Tensor]) -> Tensor:
        return x.linear(w[0].T, w[1])

    def embed(ids: Tensor, mask: Tensor) -> Tensor:
        count = ids.shape[1]
        x = norm(words[ids] + positions[:count].unsqueeze(0) + kind, first)
        hidden = (1 - mask).reshape(1, 1, 1, count) * -3.0e38
        for both, seen, after, inner, outer, last in layers:
            parts = linear(x, both).reshape(1, count, 3, shape.heads, -1)
            query, key, value = (parts[:, :, n].transpose(1, 2) for n in range(3))
            scores = query @ key.transpose(-1, -2) / math.sqrt(shape.hidden // shape.heads)
            mixed = ((scores + hidden).softmax(-1) @ value).transpose(1, 2)
            x = norm(linear(mixed.reshape(1, count, -1), seen) + x, after).contiguous()
            grown = linear(x, inner)
            grown = 0.5 * grown * (1 + (grown * (1 / math.sqrt(2))).erf())
            x = norm(linear(grown, outer) + x, last).contiguous()
        mean = (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return (mean / mean.square().sum(-1, keepdim=True).sqrt()).realize()

    graphs: dict[int, TinyJit] = {}

    def one(text: str) -> None:
        (ids,) = tokens.of([text])
        count = -(-len(ids) // 16) * 16
        row, mask = np.zeros((1, count), np.int32), np.zeros((1, count), np.float32)
        row[0, : len(ids)], mask[0, : len(ids)] = ids, 1
        graph = graphs.setdefault(count, TinyJit(embed))
        graph(Tensor(row).realize(), Tensor(mask).realize()).numpy()

    for _ in range(2):
        for text in SENTENCES:
            one(text)
    began_at_s = time.perf_counter()
    for text in SENTENCES:
        one(text)
    return len(SENTENCES) / (time.perf_counter() - began_at_s)


if __name__ == "__main__":
    assert sys.argv[1:] == ["--plain"], "run it as: python -m tests.bench embed_engine"
    print(plain())
