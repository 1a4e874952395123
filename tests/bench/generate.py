"""Speed of language models with random weights, beside llama.cpp's: streams, prompts, first token.

`python -m tests.bench generate` takes a model of 25 million parameters, `generate 100m` one of 100
million as well; both are llamas in q8_0, made from a seed. The engine is called as a peer calls it,
so its worker, the pipe to it and the parent's loop are in every figure. If llama-cpp-python can be
imported, or a Python that can is named (`--llama-cpp /path/to/python`), the same file is run there
with one thread, since the engine has one. `generate smollm2` measures SmolLM2 instead, from its
package, in processor seconds; a Python that has xllamacpp and the bindings of llama-cpp-py-sync,
named in the same way, runs it beside.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio

from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Engine, Job, Output, Part
from tests.bench._smollm2 import beside_llama_cpp
from tests.engines.tiny_gguf import gguf_manifest, write_gguf
from wire.content import ContentId
from wire.generation import Ending, Generation, read_frames

SIZES = {
    "25m": (512, 8, 1408, 8, 4, 8192),
    "100m": (768, 12, 2560, 12, 4, 16384),
}
CONTEXT = 2048
TOKENS = 96
STREAMS = (1, 4, 8, 16)
# About four hundred tokens with this tokenizer.
LONG = "the rain in spain stays mainly in the plain and so it goes on and on " * 8
LLAMA_CPP = """
import sys, time
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False)
prompt = [(at * 37) % 8000 + 1 for at in range(384)]
began_s = time.perf_counter()
model.eval(prompt)
print(384 / (time.perf_counter() - began_s))
began_s = time.perf_counter()
for at in range(96):
    model.eval([(at * 91) % 8000 + 1])
print(96 / (time.perf_counter() - began_s))
"""


def job(model: ContentId, prompt: str, tokens: int) -> Job:
    asked = Generation(prompt=prompt, messages="", tools="", schema="", stop=())
    return Job(
        model=model,
        operation="generate",
        input=asked.to_bytes(),
        parameters={"tokens": tokens},
        deadline_s=600,
    )


async def timed(engine: Engine, asked: Job) -> tuple[float, float, Output]:
    """Seconds until the first token and until the last, and the output."""
    began_at_s = trio.current_time()
    first_s: list[float] = []

    async def emit(part: Part) -> None:
        await trio.lowlevel.checkpoint()
        first_s.append(trio.current_time() - began_at_s)

    output = await engine.infer(asked, emit)
    return first_s[0], trio.current_time() - began_at_s, output


async def streams(engine: Engine, model: ContentId, count: int) -> tuple[float, bool]:
    """Tokens per second of so many streams at once, and whether each equals its output alone."""
    jobs = [job(model, f"Story {at} of {count}", TOKENS) for at in range(count)]
    found: dict[int, Output] = {}

    async def one(at: int) -> None:
        found[at] = await engine.infer(jobs[at])

    began_at_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for at in range(count):
            nursery.start_soon(one, at)
    took_s = trio.current_time() - began_at_s
    same = await engine.infer(jobs[-1]) == found[count - 1]
    return sum(output.units for output in found.values()) / took_s, same


async def measure(path: Path, cache: Path) -> dict[str, Any]:
    manifest, files = gguf_manifest(path, path.stem)
    model = manifest.id
    found: dict[str, Any] = {"file_mib": path.stat().st_size >> 20}
    for start in ("cold", "known"):
        began_at_s = trio.current_time()
        async with open_tinygrad_engine(cache, config=EngineConfig()) as engine:
            loaded = await engine.load(manifest, files)
            found[f"load_s_{start}"] = round(trio.current_time() - began_at_s, 1)
            await engine.infer(job(model, "A", 1))
            found[f"first_answer_s_{start}"] = round(trio.current_time() - began_at_s, 1)
            if start == "cold":
                continue
            found["memory_mib"] = loaded.memory_bytes >> 20
            found["tokens_per_s_told"] = round(loaded.units_per_s, 1)
            await _speeds(engine, model, found)
    return found


async def _speeds(engine: Engine, model: ContentId, found: dict[str, Any]) -> None:
    first_s, all_s, output = await timed(engine, job(model, "Once upon a time", TOKENS))
    decode = (output.units - 1) / (all_s - first_s)
    found["first_token_ms_short_prompt"] = round(first_s * 1e3, 1)
    found["decode_tokens_per_s"] = round(decode, 1)
    # The prompt has a new beginning, so that no cached prefix helps.
    first_s, _, output = await timed(engine, job(model, f"Now {LONG}", 2))
    *_, ending = read_frames(output.data)
    assert isinstance(ending, Ending)
    found["prompt_tokens"] = ending.prompt_tokens
    found["first_token_ms_long_prompt"] = round(first_s * 1e3, 1)
    found["prefill_tokens_per_s"] = round(ending.prompt_tokens / first_s, 1)
    found["prefill_to_decode"] = round(ending.prompt_tokens / first_s / decode, 2)
    again_s, _, _ = await timed(engine, job(model, f"Now {LONG}", 2))
    found["first_token_ms_prompt_read_before"] = round(again_s * 1e3, 1)
    speeds = {}
    same = True
    for count in STREAMS:
        speed, equal = await streams(engine, model, count)
        speeds[count] = round(speed, 1)
        same = same and equal
    found["tokens_per_s_by_streams"] = speeds
    found["eight_to_one"] = round(speeds[8] / speeds[1], 2)
    found["same_tokens_alone"] = same


def llama_cpp(path: Path, python: str) -> dict[str, float] | None:
    """Tokens per second of llama.cpp with one thread; None where it is not installed."""
    done = subprocess.run(
        [python, "-c", LLAMA_CPP, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        return None
    prefill, decode = (round(float(line), 1) for line in done.stdout.split())
    return {"prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode}


def run(arguments: list[str]) -> dict[str, Any]:
    """The figures by model, and the ratios to llama.cpp where it is there."""
    python = sys.executable
    if "--llama-cpp" in arguments:
        at = arguments.index("--llama-cpp")
        python = arguments[at + 1]
        arguments = arguments[:at] + arguments[at + 2 :]
    if arguments == ["smollm2"]:
        return beside_llama_cpp(python)
    if set(arguments) - set(SIZES):
        raise SystemExit(f"models: {', '.join(SIZES)}; not {json.dumps(arguments)}")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        for name in dict.fromkeys(["25m", *arguments]):
            path = Path(folder, f"{name}.gguf")
            write_gguf(path, "llama", "q8_0", sizes=SIZES[name], context=CONTEXT)
            found[name] = trio.run(measure, path, Path(folder, "cache"))
            other = found[name]["llama_cpp"] = llama_cpp(path, python)
            if other is not None:
                for kind in ("prefill", "decode"):
                    key = f"{kind}_tokens_per_s"
                    found[name][f"{kind}_to_llama_cpp"] = round(found[name][key] / other[key], 2)
    found["held"] = all(
        it["eight_to_one"] >= 3 and it["prefill_to_decode"] >= 4 and it["same_tokens_alone"]
        for it in list(found.values())
    )
    return found
