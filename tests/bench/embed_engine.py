"""Thirty-two clients with one sentence each, beside plain tinygrad called one by one.

Run from the repository's root: `python -m tests.bench.embed_engine [CACHE_FOLDER]`. Both run on
this machine one after the other in one run, with the same sentences; what counts is the ratio. The
plain program is what one would write first: the same model, a captured graph for each length in
steps of sixteen tokens, one text at a time, in its own process.
"""

import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

from node.engines.bert import BertShape, BertWeights
from node.engines.launch import EngineConfig, prepare
from node.engines.minilm import MINILM_ID, minilm_files, minilm_manifest
from node.engines.safetensors import read_table
from node.engines.seam import Engine, Job
from node.engines.tinygrad_engine import open_tinygrad_engine
from node.engines.tokenizer import read_tokens
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

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(client, number)
    return CLIENTS * ROUNDS / (trio.current_time() - began_s)


async def at_sizes(engine: Engine) -> dict[int, float]:
    """Sentences per second of one client, by sentences in a job."""
    found = {}
    for size in (1, 4, 16, 64, 256):
        texts = (SENTENCES * 3)[:size]
        began_s, repeats = trio.current_time(), max(2, 64 // size)
        for _ in range(repeats):
            await engine.infer(job(*texts))
        found[size] = size * repeats / (trio.current_time() - began_s)
    return found


async def overshoot(delays_s: list[float]) -> None:
    """How late the loop wakes: what the engine costs everybody else in this process."""
    while True:
        due_s = trio.current_time() + 0.001
        await trio.sleep_until(due_s)
        delays_s.append(trio.current_time() - due_s)


async def main(cache: Path) -> None:
    config = EngineConfig(search_path="/usr/local/bin:/usr/bin:/bin")
    for start in ("first start", "second start"):
        began_s = trio.current_time()
        async with open_tinygrad_engine(cache, config=config) as engine:
            loaded = await engine.load(minilm_manifest(), minilm_files())
            await engine.infer(job(SENTENCES[0]))
            print(f"{start}: {trio.current_time() - began_s:.1f} s to the first answer")
            if start == "first start":
                continue
            print(f"worker: {loaded.memory_bytes >> 20} MiB resident")
            print("sentences/s by job size:", await at_sizes(engine))
            delays_s: list[float] = []
            used_s = resource.getrusage(resource.RUSAGE_SELF)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(overshoot, delays_s)
                ours = await clients(engine)
                nursery.cancel_scope.cancel()
            after_s = resource.getrusage(resource.RUSAGE_SELF)
    parent_s = after_s.ru_utime + after_s.ru_stime - used_s.ru_utime - used_s.ru_stime
    late_ms = sorted(delays_s)[int(len(delays_s) * 0.99)] * 1e3
    print(f"{CLIENTS} clients: {ours:.1f} sentences/s; loop late by {late_ms:.1f} ms (p99)")
    print(f"parent: {parent_s / (CLIENTS * ROUNDS) * 1e3:.2f} CPU-ms a sentence, probe included")
    launch = await prepare(cache, config)
    plain = subprocess.run(
        [sys.executable, "-m", "tests.bench.embed_engine", "--plain"],
        env=dict(launch.environment),
        stdout=subprocess.PIPE,
        check=True,
    )
    theirs = float(plain.stdout)
    print(f"plain tinygrad, one by one: {theirs:.1f} sentences/s; ratio {ours / theirs:.1f}")


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
    began_s = time.perf_counter()
    for text in SENTENCES:
        one(text)
    return len(SENTENCES) / (time.perf_counter() - began_s)


if __name__ == "__main__":
    if "--plain" in sys.argv:
        print(plain())
    elif len(sys.argv) > 1:
        trio.run(main, Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            trio.run(main, Path(folder))
