"""`models calibrate`: measures what honest engines of this machine differ by, and keeps it."""

import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import trio

from node.commands.bench import found_model
from node.commands.content import counting
from node.commands.join import Runtime
from node.commands.output import console, safe, show_json, show_table
from node.config import NodeConfig
from node.engines.calibrating import CALIBRATING_ONE_IN, HonestAnswer, calibration_of
from node.engines.host.device_check import check_device
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Engine
from node.engines.margins import limits_of
from node.guest.rules import PROCESSOR, GuestConfig, device_of
from node.models.calibrate import (
    WORDS_MAX,
    Pair,
    measure,
    read_measured,
    tokens_each,
    write_measured,
)
from node.models.calibrations import FOLDER, keep_calibration
from node.models.opening_engines import worker_configs
from wire.calibration import Calibration
from wire.errors import EngineError, InputError
from wire.model import Manifest
from wire.operations import GENERATE

# Ways to compile for this processor that add in other orders, beside the usual one.
COMPILERS = {"llvm": "CPU:LLVM", "x86": "CPU:X86"}
EVERYWHERE = (PROCESSOR, "llvm", "cl")
MEASURED = "measured.jsonl"
# Of the questions of one profile at most; and so many profiles have questions of their own.
NUMBERS = 1 << 16


def config_of(base: EngineConfig, name: str) -> EngineConfig:
    """How to start an engine on `cpu`, `llvm`, `x86`, or a GPU as `--device` names it."""
    if (device := COMPILERS.get(name.lower())) is not None:
        return replace(base, device=device)
    kind, numbers = device_of(name)
    if kind == PROCESSOR:
        return base
    return worker_configs(GuestConfig(device=kind, gpus=numbers), base)[0]


async def calibrate(
    config: NodeConfig,
    runtime: Runtime,
    beside: tuple[str, ...],
    tokens: int,
    *,
    as_json: bool,
) -> None:
    """Measure, keep the table, and show it; InputError, ModelRefused, EngineMissing."""
    base = worker_configs(config.guest, runtime.engine_config)[0]
    async with found_model(config.state, config.models[0]) as (manifest, files):
        if GENERATE not in manifest.operations:
            raise InputError(
                f"{manifest.name} is no language model: its answers are compared by a tolerance,"
                " which its manifest says",
                todo="calibrate a .gguf",
            )
        path = config.state / FOLDER / f"{manifest.id}.{MEASURED}"
        answers = await trio.to_thread.run_sync(read_measured, path, manifest.id)
        missing: dict[str, str] = {}
        async with open_tinygrad_engine(runtime.cache_folder, config=base) as verifier:
            await verifier.load(manifest, files)
            for name in beside or EVERYWHERE:
                try:
                    async with _provider(runtime, name) as provider:
                        await provider.load(manifest, files)
                        pair = Pair(provider=provider, verifier=verifier, manifest=manifest)
                        await _measure(pair, tokens, answers, path)
                except EngineError as error:
                    if beside:
                        raise
                    missing[name] = error.message
    made_at_ms = int(runtime.environment.wall_s() * 1000)
    table = calibration_of(manifest.id, answers, made_at_ms)
    kept = await trio.to_thread.run_sync(keep_calibration, config.state, table)
    _show(manifest, table, kept, missing, as_json=as_json)


@asynccontextmanager
async def _provider(runtime: Runtime, name: str) -> AsyncIterator[Engine]:
    device = config_of(runtime.engine_config, name)
    if device.on_gpu:
        await check_device(runtime.cache_folder, device)
    async with open_tinygrad_engine(runtime.cache_folder, config=device) as engine:
        yield engine


async def _measure(pair: Pair, tokens: int, answers: list[HonestAnswer], path: Path) -> None:
    """Measure what is missing of so many tokens, and add it to `answers` and to the file."""
    profile, verifier = pair.profile_of(pair.provider), pair.profile_of(pair.verifier)
    done = {it.number for it in answers if (it.provider, it.verifier) == (profile, verifier)}
    each = tokens_each(pair.manifest)
    # No two profiles answer the same question.
    first = zlib.crc32(profile.encode()) % NUMBERS * NUMBERS
    count = -(-tokens // each)
    count += -count % CALIBRATING_ONE_IN
    numbers = [it for it in range(first, first + count) if it not in done]
    texts = [topics[name] for name in sorted(topics) if len(topics[name].split()) > WORDS_MAX]
    with counting() as progress:
        task = progress.add_task(safe(profile), total=count, completed=count - len(numbers))

        def heard(found: list[HonestAnswer]) -> None:
            write_measured(path, pair.manifest.id, found)
            answers.extend(found)
            progress.advance(task, len(found))

        await measure(pair, texts, numbers, heard)


def _show(
    manifest: Manifest,
    table: Calibration,
    kept: Path,
    missing: Mapping[str, str],
    *,
    as_json: bool,
) -> None:
    margins = table.margins_millionths
    longest = max((it.tokens for it in table.held_out), default=1)
    limits = limits_of(table, longest)
    if as_json:
        show_json(
            {
                "model": str(manifest.id),
                "table": str(table.id),
                "file": str(kept),
                "profiles": list(table.profiles),
                "not_measured": dict(missing),
                "tokens": table.tokens,
                "mismatches": len(margins),
                "greatest_margin": margins[-1] / 1e6 if margins else 0.0,
                "slack": table.slack_millionths / 1e6,
                "limits": {
                    "tokens": longest,
                    "greatest": limits.greatest,
                    "sum": limits.margin_sum,
                },
                "held_out": [it.to_fields() for it in table.held_out],
            }
        )
        return
    console.print(f"[bold]{safe(manifest.name)}[/bold]: honest engines beside each other")
    for profile in table.profiles:
        console.print(f"  {safe(profile)}")
    for name, why in missing.items():
        console.print(f"  [yellow]not measured: {name}[/yellow]: {safe(why)}")
    console.print(
        f"{len(margins)} of {table.tokens} tokens differ,"
        f" by {(margins[-1] if margins else 0) / 1e6:.3g} of a logit at most"
    )
    rows = [(it.tokens, it.answers, it.alarms) for it in table.held_out]
    show_table("false alarms in what was held out", ("tokens", "answers", "alarms"), rows)
    console.print(f"kept as {kept}")
    console.print("a peer on this state folder judges by it from its next start on")
