"""What a verifier's replay costs beside the generation that it checks: SmolLM2, in one run.

Processor seconds of the worker, for answers made one at a time, then eight at once, and then judged
one at a time. The ratios are the figures: a machine's own speed is in both sides.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from node.engines.formats.smollm2 import SMOLLM2
from node.engines.host.engine import TinygradEngine, open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import REPLAY, Job
from node.engines.replay import JudgedAnswer, request, told_otherwise
from tests.bench._smollm2 import asking, cpu_s

PROMPT = 64
LENGTHS = (32, 128)
STREAMS = (1, 8)
ANSWERS = 8
# Aims, of one stream and of eight.
AIMS = {1: 0.3, 8: 0.75}


def judging(job: Job, output: bytes) -> Job:
    asked = request(job.input, output, 0.0)
    return replace(job, operation=REPLAY, input=asked.to_bytes())


async def made(engine: TinygradEngine, jobs: list[Job], at_once: int) -> tuple[float, list[bytes]]:
    """Processor seconds, and the outputs."""
    worker = engine.worker_ids[jobs[0].model]
    outputs: dict[int, bytes] = {}

    async def one(at: int) -> None:
        outputs[at] = (await engine.infer(jobs[at])).data

    began_s = cpu_s(worker)
    for first in range(0, len(jobs), at_once):
        async with trio.open_nursery() as nursery:
            for at in range(first, min(first + at_once, len(jobs))):
                nursery.start_soon(one, at)
    return cpu_s(worker) - began_s, [outputs[at] for at in range(len(jobs))]


async def judged(
    engine: TinygradEngine, jobs: list[Job], outputs: list[bytes]
) -> tuple[float, int]:
    """Processor seconds of the replays, one after the other, and the tokens that did not match."""
    worker = engine.worker_ids[jobs[0].model]
    began_s, wrong = cpu_s(worker), 0
    for job, output in zip(jobs, outputs, strict=True):
        found = JudgedAnswer.from_bytes((await engine.infer(judging(job, output))).data)
        wrong += sum(it > 0 for it in found.each) + bool(told_otherwise(output, found))
    return cpu_s(worker) - began_s, wrong


async def measure(cache: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    wrong = 0
    async with open_tinygrad_engine(cache, config=EngineConfig()) as engine:
        await engine.load(SMOLLM2.manifest(), SMOLLM2.files())
        for length in LENGTHS:
            figures: dict[str, Any] = {}
            for count in STREAMS:
                # Other prompts each time, so that nothing that was read before helps.
                first = 100 * length + 10 * count
                jobs = [asking(first + at, PROMPT, length, 1.0) for at in range(ANSWERS)]
                took_s, outputs = await made(engine, jobs, count)
                # Keys and values of other prompts take the place of those that were read.
                await made(engine, [asking(first + 50 + at, PROMPT, 1) for at in range(40)], 8)
                replay_s, missed = await judged(engine, jobs, outputs)
                wrong += missed
                tokens = ANSWERS * length
                figures[f"generation_{count}_ms_per_token"] = round(took_s / tokens * 1e3, 2)
                figures[f"replay_after_{count}_ms_per_token"] = round(replay_s / tokens * 1e3, 2)
                figures[f"replay_to_generation_{count}"] = round(replay_s / took_s, 3)
            found[f"{length}_tokens"] = figures
    longest = found[f"{LENGTHS[-1]}_tokens"]
    found["prompt_tokens"] = PROMPT
    found["false_alarms"] = wrong
    found["aims"] = {str(count): aim for count, aim in AIMS.items()}
    found["aims_met"] = {
        str(count): longest[f"replay_to_generation_{count}"] <= aim for count, aim in AIMS.items()
    }
    found["held"] = not wrong
    return found


def run() -> dict[str, Any]:
    """The figures by length of answer; `held`: no honest token was found wrong."""
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        found: dict[str, Any] = trio.run(measure, Path(folder))
    return found
