"""SmolLM2 in its package's file, in processor seconds: memory, both loads, and tokens.

The engine is called as a peer calls it. A shared machine's clock says little of it, so tokens are
told by the second of the worker's processor time, and by the clock besides. One stream on all cores
can be told by the clock alone: the best of several tries, of both programs.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import trio

from node.engines.formats.gguf import FILE
from node.engines.formats.smollm2 import SMOLLM2
from node.engines.host.engine import TinygradEngine, open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Job
from wire.content import ContentId
from wire.generation import Ending, Generation, read_frames

TOKENS = 48
STREAMS = (1, 8)
PROMPTS = (128, 512)
DEADLINE_S = 1200.0
TRIES = 4
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(worker: int) -> float:
    """Processor seconds of a worker so far, and of the compilers that it started."""
    fields = Path(f"/proc/{worker}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def memory_mib(worker: int) -> dict[str, int]:
    """What a worker has in memory, and the most it had."""
    lines = Path(f"/proc/{worker}/status").read_text(encoding="ascii").splitlines()
    kept = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return {"now": int(kept["VmRSS"]) >> 10, "most": int(kept["VmHWM"]) >> 10}


def asking(first: int, prompt: int, tokens: int, temperature: float = 0.0) -> Job:
    """A prompt of so many tokens, each another one for another `first`, and an answer."""
    words = tuple((first * 7919 + at * 104_729) % 40_000 + 100 for at in range(prompt))
    asked = Generation(prompt="", messages="", tools="", schema="", stop=(), prompt_tokens=words)
    return Job(
        model=SMOLLM2.manifest().id,
        operation="generate",
        input=asked.to_bytes(),
        parameters={"tokens": tokens, "ignore_eos": 1, "temperature": temperature, "seed": first},
        deadline_s=DEADLINE_S,
    )


async def smollm2(cache: Path) -> dict[str, Any]:
    """The figures; an error where its package is not installed."""
    manifest, files = SMOLLM2.manifest(), SMOLLM2.files()
    found: dict[str, Any] = {"file_mib": files[FILE].stat().st_size >> 20}
    for start in ("first", "known"):
        async with open_tinygrad_engine(cache, config=EngineConfig()) as engine:
            await engine.load(manifest, files)
            worker = engine.worker_ids[manifest.id]
            found[f"load_cpu_s_{start}"] = round(cpu_s(worker), 1)
            found[f"memory_mib_{start}"] = memory_mib(worker)
            if start == "known":
                await _speeds(engine, manifest.id, found)
                found["memory_mib_after"] = memory_mib(worker)
    return found


async def _speeds(engine: TinygradEngine, model: ContentId, found: dict[str, Any]) -> None:
    for prompt in PROMPTS:
        found[f"prefill_{prompt}"] = await _rate(engine, model, [asking(prompt, prompt, 1)])
    for count in STREAMS:
        jobs = [asking(900 + count * 10 + at, 1, TOKENS) for at in range(count)]
        found[f"decode_{count}"] = await _rate(engine, model, jobs)
        if count == 1:
            tried = [await _rate(engine, model, jobs) for _ in range(TRIES)]
            found["decode_1_all_cores_tokens_per_s"] = max(it["tokens_per_s"] for it in tried)
        drawn = [asking(700 + count * 10 + at, 1, TOKENS, 1.0) for at in range(count)]
        found[f"decode_{count}_drawn"] = await _rate(engine, model, drawn)


async def _rate(engine: TinygradEngine, model: ContentId, jobs: list[Job]) -> dict[str, float]:
    """Tokens read and made, by the second of the worker's processor time and of the clock."""
    worker, tokens = engine.worker_ids[model], 0
    began_cpu_s, began_at_s = cpu_s(worker), trio.current_time()

    async def one(job: Job) -> None:
        nonlocal tokens
        *_, ending = read_frames((await engine.infer(job)).data)
        assert isinstance(ending, Ending)
        tokens += ending.prompt_tokens - 1 + ending.tokens

    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(one, job)
    return {
        "tokens_per_cpu_s": round(tokens / (cpu_s(worker) - began_cpu_s), 1),
        "tokens_per_s": round(tokens / (trio.current_time() - began_at_s), 1),
    }


# Prints tokens by processor second, in the order of `KINDS`, and at last one stream's by the clock,
# with all cores. The C interface comes out of one package, its description out of the other.
LLAMA_CPP = """
import os, sys, time
from llama_cpp_py_sync._cffi_bindings import get_lib
c = get_lib()
c.llama_backend_init()
model = c.llama_model_load_from_file(sys.argv[1].encode(), c.llama_model_default_params())
wanted = c.llama_context_default_params()
wanted.n_ctx, wanted.n_batch, wanted.n_ubatch, wanted.n_seq_max = 8 * 640, 512, 512, 8
wanted.n_threads = wanted.n_threads_batch = 1
wanted.embeddings = False
context = c.llama_init_from_model(model, wanted)

def run(rows, every):
    batch = c.llama_batch_init(len(rows), 0, 1)
    batch.n_tokens = len(rows)
    for at, (token, stream, place) in enumerate(rows):
        batch.token[at], batch.pos[at] = token, place
        batch.n_seq_id[at], batch.seq_id[at][0] = 1, stream
        batch.logits[at] = every or at == len(rows) - 1
    assert c.llama_decode(context, batch) == 0
    c.llama_synchronize(context)
    c.llama_batch_free(batch)

def clear():
    c.llama_memory_clear(c.llama_get_memory(context), True)

for count in (128, 512):
    for _ in range(2):
        clear()
        began_s = time.process_time()
        run([(100 + at, 0, at) for at in range(count)], False)
        took_s = time.process_time() - began_s
    print(count / took_s)
for count in (1, 8):
    clear()
    run([(5, stream, 0) for stream in range(count)], True)
    began_s = time.process_time()
    for at in range(48):
        run([(200 + at, stream, 1 + at) for stream in range(count)], True)
    print(count * 48 / (time.process_time() - began_s))
c.llama_set_n_threads(context, len(os.sched_getaffinity(0)), len(os.sched_getaffinity(0)))
best = 0
for _ in range(4):
    clear()
    run([(5, 0, 0)], True)
    began_s = time.perf_counter()
    for at in range(48):
        run([(200 + at, 0, 1 + at)], True)
    best = max(best, 48 / (time.perf_counter() - began_s))
print(best)
"""
KINDS = (*(f"prefill_{count}" for count in PROMPTS), *(f"decode_{count}" for count in STREAMS))


def beside_llama_cpp(python: str) -> dict[str, Any]:
    """The figures, and where the other program is there, its own and how many times ours are."""
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        found: dict[str, Any] = trio.run(smollm2, Path(folder))
    done = subprocess.run(
        [python, "-c", LLAMA_CPP, str(SMOLLM2.files()[FILE])],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        return found
    *rates, all_cores = map(float, done.stdout.split())
    theirs = dict(zip(KINDS, rates, strict=True))
    found["llama_cpp_decode_1_all_cores_tokens_per_s"] = round(all_cores, 1)
    found["all_cores_to_llama_cpp"] = round(found["decode_1_all_cores_tokens_per_s"] / all_cores, 2)
    found["llama_cpp_tokens_per_cpu_s"] = {kind: round(rate, 1) for kind, rate in theirs.items()}
    found["to_llama_cpp"] = {
        kind: round(found[kind]["tokens_per_cpu_s"] / rate, 2) for kind, rate in theirs.items()
    }
    return found
