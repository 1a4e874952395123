"""Every cheat against every level: what is caught, who is blamed for nothing, and what it costs.

Peers that lie answer SmolLM2's questions: with other weights, without layers, with less of the
prompt, another seed or temperature, altered or copied answers. An honest engine judges each answer
as a verifier does, at `replayed`; at `spot` the lottery draws a part of them; at `signed` only the
signatures are looked at. MiniLM's rows and the digits' integer models have liars of their own.

`python -m tests.bench cheats [--answers N] [--file FILE] [--measured FILE] [--only WORD]`

What was measured is kept in FILE, and a run that was broken off goes on. `--measured` has honest
answers, as `models calibrate` writes them beside its tables.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any
from unittest import mock

import trio

from node.engines.calibrating import LENGTHS, HonestAnswer, calibration_of
from node.engines.formats.gguf import FILE
from node.engines.formats.smollm2 import SMOLLM2
from node.engines.host import generating
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Engine, Job
from node.engines.margins import MILLION, limits_of, statistics_of, too_far
from node.models.calibrate import (
    TOKENS_EACH,
    WORDS_MAX,
    Pair,
    answered,
    job_of,
    judged,
    read_measured,
    write_measured,
)
from tests.bench._liar_rows import exact_rows, minilm_rows
from tests.bench._liars import CHEATS, Cheat
from tests.bench._smollm2 import cpu_s
from tests.node.asking import SECRET, receipt_of, task_of
from tests.p2p.transports import key_of
from wire import limits
from wire.calibration import BUILT_IN, Calibration
from wire.kinds import Role
from wire.lottery import is_drawn
from wire.task import Stage

HONEST = "honest"
ANSWERS = 8
# No question is one that a calibration asked.
FIRST = 1 << 34
DRAWS = 100


def questions(count: int) -> list[Job]:
    """Questions that are answered by drawing, each with a seed of its own."""
    texts = [topics[name] for name in sorted(topics) if len(topics[name].split()) > WORDS_MAX]
    jobs = [job_of(SMOLLM2.manifest(), texts, FIRST + 12 * at) for at in range(count)]
    return [_drawn(it) for it in jobs]


def _drawn(job: Job) -> Job:
    plain = {name: job.parameters[name] for name in ("tokens", "ignore_eos", "seed", "sketch")}
    return Job(
        model=job.model,
        operation=job.operation,
        input=job.input,
        parameters=plain | {"temperature": 1.0},
        deadline_s=job.deadline_s,
    )


async def lied(verifier: Engine, liar: Engine, cheat: Cheat, jobs: list[Job]) -> list[HonestAnswer]:
    """What the verifier finds of the answers that the liar's engine gives."""
    outputs = cheat.answers(await answered(liar, [cheat.question(it) for it in jobs]))
    pair = Pair(provider=liar, verifier=verifier, manifest=SMOLLM2.manifest(), name=cheat.name)
    return await judged(pair, jobs, outputs)


async def measure(folder: Path, file: Path, count: int, only: str) -> dict[str, Any]:
    """Have every cheat done that FILE does not have yet; the cost of what is honest."""
    manifest, jobs, cost = SMOLLM2.manifest(), questions(count), {}
    done = {(it.provider, it.number) for it in read_measured(file, manifest.id)}

    def left(name: str) -> list[Job]:
        return [it for it in jobs if (name, it.parameters["seed"]) not in done]

    async with open_tinygrad_engine(folder / "graphs", config=EngineConfig()) as honest:
        await honest.load(manifest, SMOLLM2.files())
        worker = honest.worker_ids[manifest.id]
        if asked := left(HONEST):
            began_s = cpu_s(worker)
            outputs = await answered(honest, asked)
            made_s = cpu_s(worker)
            pair = Pair(provider=honest, verifier=honest, manifest=manifest, name=HONEST)
            found = await judged(pair, asked, outputs)
            tokens = sum(it.tokens for it in found)
            cost = {
                "made_ms_per_token": round((made_s - began_s) / tokens * 1e3, 2),
                "judged_ms_per_token": round((cpu_s(worker) - made_s) / tokens * 1e3, 2),
            }
            write_measured(file, manifest.id, found)
        for cheat in CHEATS:
            asked = left(cheat.name) if only in cheat.name else []
            if not asked:
                continue
            if cheat.write is None:
                write_measured(file, manifest.id, await lied(honest, honest, cheat, asked))
                continue
            altered = await trio.to_thread.run_sync(
                cheat.write, SMOLLM2.files()[FILE], folder / "altered.gguf"
            )
            # Graphs are found by the id of the model that it says it runs.
            graphs = folder / f"graphs {cheat.forms}"
            async with open_tinygrad_engine(graphs, config=EngineConfig()) as liar:
                # It says that it runs the true model: its file is nobody's to see.
                with mock.patch.object(generating, "check_files"):
                    await liar.load(manifest, {FILE: altered})
                write_measured(file, manifest.id, await lied(honest, liar, cheat, asked))
    return cost


def caught(answers: Sequence[HonestAnswer], tokens: int, table: Calibration) -> list[bool]:
    """Of each piece of so many tokens, whether it is found wrong; only whole ones tell more."""
    limit = limits_of(table, tokens)
    return [
        bool(too_far(statistics_of(it.within(first, tokens), table), limit))
        or (tokens >= it.tokens and bool(it.otherwise))
        for it in answers
        for first in range(0, it.tokens - tokens + 1, tokens)
    ]


def _percent(found: Sequence[bool]) -> float:
    return round(100 * sum(found) / len(found), 1) if found else 0.0


def drawn_and_caught(whole: Sequence[bool]) -> list[bool]:
    """The same at the level `spot`: of many receipts of each answer, which are drawn at all."""
    stage = Stage(role=Role.INFER, operation="generate", model=SMOLLM2.manifest().id, parameters={})
    task = task_of(key_of("asker"), 1_800_000_000.0, stage)
    found = []
    for at, wrong in enumerate(whole):
        for turn in range(DRAWS):
            receipt = receipt_of(task, key_of("liar"), b"%d %d" % (at, turn))
            found.append(wrong and is_drawn(SECRET, receipt.id))
    return found


def row_of(answers: Sequence[HonestAnswer], tables: dict[str, Calibration]) -> dict[str, Any]:
    """The rates of one cheat, in per cent."""
    mismatches = [len(it.margins) / max(1, it.tokens) for it in answers]
    margins = [margin for it in answers for margin in it.margins.values()]
    row: dict[str, Any] = {
        "answers": len(answers),
        "tokens": sum(it.tokens for it in answers),
        "mismatch_percent": round(100 * sum(mismatches) / len(mismatches), 2),
        "greatest_margin": round(max(margins, default=0.0), 4),
        "sketch_off": sorted(round(it.sketch, 4) for it in answers),
        # A liar's signature is as good as any.
        "signed": 0.0,
    }
    for name, table in tables.items():
        whole = [bool(_whole(it, table)) for it in answers]
        row[f"replayed_{name}"] = {
            str(tokens): _percent(caught(answers, tokens, table))
            for tokens in LENGTHS
            if tokens <= min(it.tokens for it in answers)
        } | {"answer": _percent(whole)}
        row[f"spot_{name}"] = _percent(drawn_and_caught(whole))
    return row


def _whole(answer: HonestAnswer, table: Calibration) -> str:
    """Why a verifier calls it wrong: tokens, what is told besides, the sketch."""
    found = statistics_of(answer.within(0, answer.tokens), table)
    far = too_far(found, limits_of(table, answer.tokens)) or answer.otherwise
    return far or ("states" if answer.sketch * MILLION > table.sketch_millionths else "")


def honest_of(answers: Sequence[HonestAnswer], table: Calibration | None) -> dict[str, Any]:
    """False alarms among honest answers of other profiles, by the table that is built in too."""
    beside = [it for it in answers if not it.is_between_equals]
    found: dict[str, Any] = {
        "tokens": sum(it.tokens for it in answers),
        "tokens_between_profiles": sum(it.tokens for it in beside),
        "mismatches": sum(len(it.margins) for it in answers),
        "alarms_built_in": sum(bool(_whole(it, BUILT_IN)) for it in beside),
        "alarms_between_equals": sum(
            bool(it.margins or it.otherwise) for it in answers if it.is_between_equals
        ),
    }
    if table is not None:
        found["profiles"] = list(table.profiles)
        found["held_out"] = [it.to_fields() for it in table.held_out]
        found["tokens_held_out"] = sum(it.tokens for it in answers if it.is_held_out)
    return found


def run(arguments: list[str]) -> dict[str, Any]:
    """The table; `held`: nobody honest was blamed, and what must be caught was."""
    parser = argparse.ArgumentParser(prog="cheats")
    parser.add_argument("--answers", type=int, default=ANSWERS)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--measured", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--shown", action="store_true", help="measure nothing more")
    parser.add_argument("--json", action="store_true", help="as ever")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as name:
        folder = Path(name)
        file = asked.file or folder / "cheats.jsonl"
        cost = {} if asked.shown else trio.run(measure, folder, file, asked.answers, asked.only)
        model = SMOLLM2.manifest().id
        answers = read_measured(file, model)
        honest = [] if asked.measured is None else read_measured(asked.measured, model)
        rows = {} if asked.only else {**minilm_rows(folder), **exact_rows()}
    table = calibration_of(model, honest, 0) if honest else None
    tables = {"built_in": BUILT_IN} | ({} if table is None else {"calibrated": table})
    names = dict.fromkeys(it.provider for it in answers)
    found = {it: row_of([one for one in answers if one.provider == it], tables) for it in names}
    named = {it.name: it for it in CHEATS}
    missed = [
        name
        for name, row in found.items()
        if name in named and not named[name].hides and row["replayed_built_in"]["answer"] < 99
    ]
    blamed = [name for name in found if name == HONEST and found[name]["mismatch_percent"]]
    counted = honest_of(honest, table)
    alarms = counted["alarms_built_in"] + counted["alarms_between_equals"] + len(blamed)
    return {
        "smollm2": found,
        "hides": {name: it.hides for name, it in named.items() if it.hides},
        "honest": counted,
        "cost": cost,
        "spot_one_in": limits.SPOT_ONE_IN,
        "tokens_each": TOKENS_EACH,
        **rows,
        "missed_below_99": missed,
        "held": not alarms and not missed,
    }
