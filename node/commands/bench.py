"""`bench`: what this machine does with a model, without any network."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import trio

from node.commands.join import Runtime
from node.commands.output import console, device_words, memory_words, safe, show_json, size
from node.config import NodeConfig
from node.engines.host.device_check import FoundDevice
from node.models.inspect import describe, is_path, memory_of
from node.models.model_store import ModelStore
from node.models.opening_engines import open_engine
from node.models.pinned import PACKAGED, PINNED
from node.models.speeds import measure
from store import open_store
from wire import limits
from wire.content import ContentId
from wire.errors import InputError
from wire.model import Manifest, ModelFile
from wire.plural import plural
from wire.tree import TreeBuilder

# As much as is kept: nothing is brought in here.
QUOTA_BYTES = 1 << 60


async def bench(config: NodeConfig, runtime: Runtime, seconds: float, *, as_json: bool) -> None:
    """Measure each rate for `seconds`, and show them; InputError, ModelRefused, EngineMissing."""
    name, found = config.models[0], list[FoundDevice]()
    async with found_model(config.state, name) as (manifest, files):
        memory = await _memory(manifest, files, on_gpu=config.guest.on_gpu)
        if not as_json:
            console.print(f"{safe(manifest.name)} needs {memory_words(memory)}")
        async with open_engine(
            config, runtime.cache_folder, runtime.engine_config, found.append
        ) as engine:
            figures = await measure(engine, manifest, files, seconds)
    figures |= {"memory_needed": memory, "devices": [asdict(it) for it in found]}
    if as_json:
        show_json(figures)
    else:
        _show(figures)


async def _memory(manifest: Manifest, files: Mapping[str, Path], *, on_gpu: bool) -> dict[str, int]:
    """What running the model takes, worked out before it is loaded; ModelRefused."""
    find = partial(memory_of, manifest.format, files, on_gpu=on_gpu)
    return (await trio.to_thread.run_sync(find)).to_plain()


@asynccontextmanager
async def found_model(state: Path, name: str) -> AsyncIterator[tuple[Manifest, Mapping[str, Path]]]:
    """A model and where its files lie: InputError, ModelRefused, EngineMissing."""
    if is_path(name):
        yield await trio.to_thread.run_sync(_described, Path(name))
        return
    if name in PINNED:
        # What comes with the project needs no state folder.
        yield PINNED[name](), PACKAGED[name].files() if name in PACKAGED else {}
        return
    if not (state / "version").exists():
        raise InputError(
            f"there is no model {name[:80]!r}: the state folder {state} keeps none",
            todo="name a file, or keep one: python -m node models add FILE",
        )
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        shelf = ModelStore(store)
        manifest = shelf.manifest_of(shelf.resolve(name))
        if manifest is None:
            raise InputError(
                f"the model {name[:80]} is not kept here",
                todo=f"fetch it: python -m node models pull {name[:80]}",
            )
        # Missing says which content is not whole.
        yield manifest, {it.name: await store.file_of(it.content) for it in manifest.files}


def _described(path: Path) -> tuple[Manifest, Mapping[str, Path]]:
    """A model under the id that a peer would give it, so that compiled graphs are reused."""
    described = describe(path)
    contents = {name: _content(name, it) for name, it in described.files.items()}
    return described.manifest(contents), described.files


def _content(name: str, path: Path) -> ModelFile:
    builder, size_bytes = TreeBuilder(), 0
    with path.open("rb") as source:
        while leaf := source.read(limits.BLOCK_BYTES_MAX):
            size_bytes += len(leaf)
            for _ in builder.add(leaf):
                pass
    for _ in builder.finish():
        pass
    content = builder.root
    assert isinstance(content, ContentId)
    return ModelFile(name=name, content=content, size_bytes=size_bytes)


def _show(figures: Mapping[str, Any]) -> None:
    console.print(f"[bold]{safe(figures['name'])}[/bold] on {safe(figures['profile'])}")
    for device in figures["devices"]:
        console.print(f"  {device_words(device)}")
    console.print(f"  loaded in {figures['load_s']:.2f} s, {size(figures['memory_bytes'])}")
    if (found := figures.get("generate")) is not None:
        console.print(
            f"  first token after {found['first_token_s'] * 1000:.1f} ms"
            f" ({plural(found['prompt_tokens'], 'token')} of prompt)"
        )
        console.print(
            f"  prefill {found['prefill_tokens_per_s']:,.1f} tokens/s"
            f" ({plural(found['prefill_prompt_tokens'], 'token')} of prompt)"
        )
        for streams, rate in found["tokens_per_s"].items():
            console.print(f"  {rate:,.1f} tokens/s, {streams} at once")
    if (found := figures.get("embed")) is not None:
        console.print(
            f"  {found['embeddings_per_s']:,.1f} embeddings/s of {found['words_per_text']} words,"
            f" {found['one_by_one_per_s']:,.1f} one by one"
        )
    if (found := figures.get("call")) is not None:
        for callers, rate in found["calls_per_s"].items():
            console.print(f"  {rate:,.1f} calls/s, {callers} at once")
    console.print(f"a peer advertises {figures['units_per_s']:,.1f} units/s")
