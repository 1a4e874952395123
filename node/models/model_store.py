"""The models that are kept here, by content; it needs a store, but no network and no engine."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from node.engines.formats.gguf_split import is_part, join, read_parts, whole_name
from node.models.inspect import InspectedModel, describe, memory_of
from node.models.pinned import PINNED
from store import Store, Table
from wire.content import ContentId
from wire.errors import InputError, Malformed, Missing, ModelRefused
from wire.model import Manifest, ModelFile

PIN = "model"

# `join --model` has a path alone, so that the file's own name says what it is called.
_ANOTHER_NAME = "models add FILE --name NAME, or rename the file"

# Called with the bytes kept so far, and the bytes in all.
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class ModelStore:
    """The models in one store."""

    store: Store

    def known(self) -> dict[ContentId, Manifest]:
        """Every model whose manifest is kept here."""
        rows = self.store.scan(Table.MODELS)
        return {ContentId(key): Manifest.from_bytes(value) for key, value in rows}

    def manifest_of(self, model: ContentId) -> Manifest | None:
        """A model's manifest, if this project pins the model or it is kept here."""
        kept = self.store.read(Table.MODELS, model)
        if kept is not None:
            return Manifest.from_bytes(kept)
        pinned = (make() for make in PINNED.values())
        return next((it for it in pinned if it.id == model), None)

    def resolve(self, name: str) -> ContentId:
        """The id a person means by `name`; InputError lists what is known."""
        if name in PINNED:
            return PINNED[name]().id
        known = self.known()
        found = [model for model, manifest in known.items() if manifest.name == name]
        if len(found) > 1:
            raise InputError(
                f"{name[:80]!r} is the name of {len(found)} models here",
                todo=f"say which: {', '.join(map(str, found))}",
            )
        if found:
            return found[0]
        try:
            return ContentId.parse(name)
        except Malformed as error:
            names = sorted({*PINNED, *(it.name for it in known.values())})
            raise InputError(
                f"there is no model {name[:80]!r}",
                todo=f"use one of {', '.join(names)}, a model's content id, or a file's path",
            ) from error

    async def keep(self, manifest: Manifest) -> ContentId:
        """Keep a manifest, pinned with every file it names."""
        data = manifest.to_bytes()
        await self.store.put(data, pin=PIN)
        for file in manifest.files:
            await self.store.pin(file.content, PIN)
        await self.store.write(Table.MODELS, manifest.id, data)
        return manifest.id

    async def look(self, path: Path, name: str | None = None) -> InspectedModel:
        """The model in a file or folder; InputError, ModelRefused. Nothing is kept yet."""
        return await trio.to_thread.run_sync(describe, path, name)

    async def add(
        self, path: Path, name: str | None = None, progress: Progress | None = None
    ) -> Manifest:
        """Keep the model at `path`; the same files and name again are the same model.

        Of a model in several GGUF files `path` is the first: all are taken, as one file.
        """
        if path.is_file() and is_part(path):
            async with _joined(path, progress) as whole:
                return await self._add(whole, name or whole_name(path), progress)
        return await self._add(path, name, progress)

    async def _add(self, path: Path, name: str | None, progress: Progress | None) -> Manifest:
        found = await self.look(path, name)
        sizes = {key: (await trio.Path(it).stat()).st_size for key, it in found.files.items()}
        size_bytes, before_bytes = sum(sizes.values()), 0
        contents = {}
        for key, file in found.files.items():

            def show(done_bytes: int, before: int = before_bytes) -> None:
                if progress is not None:
                    progress(before + done_bytes, size_bytes)

            content = await self.store.take_file(file, show, pin=PIN)
            contents[key] = ModelFile(name=key, content=content, size_bytes=sizes[key])
            before_bytes += sizes[key]
        manifest = found.manifest(contents)
        for model, other in self.known().items():
            if other.name == manifest.name and model != manifest.id:
                await self._let_go(manifest)
                raise InputError(
                    f"there is another model called {manifest.name!r} here: {model}",
                    todo=f"give this one another: {_ANOTHER_NAME}; or remove that one: models rm",
                )
        if manifest.name in PINNED and PINNED[manifest.name]().id != manifest.id:
            await self._let_go(manifest)
            raise InputError(
                f"{manifest.name!r} is a name that Baton reserves for another model",
                todo=f"give this one another: {_ANOTHER_NAME}",
            )
        await self.keep(manifest)
        return manifest

    async def remove(self, model: ContentId) -> Manifest:
        """Forget a model; its content is evicted when room is needed. InputError if unknown."""
        kept = self.store.read(Table.MODELS, model)
        if kept is None:
            raise InputError(f"the model {model} is not kept here", todo="see them: models")
        manifest = Manifest.from_bytes(kept)
        await self.store.write(Table.MODELS, model, None)
        await self._let_go(manifest)
        return manifest

    async def _let_go(self, manifest: Manifest) -> None:
        """Unpin the files that no other model here needs."""
        known = self.known()
        needed = {it.content for other in known.values() for it in other.files} | set(known)
        for content in {manifest.id, *(it.content for it in manifest.files)} - needed:
            await self.store.unpin(content, PIN)
            await self.store.forget_file(content)

    async def rows(
        self, *, on_gpu: bool = False, layers: tuple[int, int] | None = None
    ) -> list[dict[str, Any]]:
        """The models kept here, as people and scripts see them.

        `memory` of a whole one is what running it takes of the processor's memory, or of a GPU's,
        with these layers alone of a language model; None: all.
        """
        found: list[dict[str, Any]] = []
        for manifest in self.known().values():
            missing = [it for it in manifest.files if await self.store.missing(it.content, limit=1)]
            memory = {} if missing else await self._memory(manifest, on_gpu, layers)
            found.append({**told(manifest), "whole": not missing, **memory})
        return found

    async def _memory(
        self, manifest: Manifest, on_gpu: bool, layers: tuple[int, int] | None
    ) -> dict[str, dict[str, int]]:
        """Nothing for a model that cannot be run here, or lost a file just now."""
        try:
            files = {it.name: await self.store.file_of(it.content) for it in manifest.files}
            find = partial(memory_of, manifest.format, files, on_gpu=on_gpu, layers=layers)
            memory = await trio.to_thread.run_sync(find)
        except (Missing, ModelRefused, OSError):
            return {}
        return {"memory": memory.to_plain()}


def told(manifest: Manifest) -> dict[str, str | int | bool]:
    """A model as people and scripts see it."""
    return {
        "id": str(manifest.id),
        "name": manifest.name,
        "format": manifest.format,
        "size_bytes": sum(it.size_bytes for it in manifest.files),
    }


@asynccontextmanager
async def _joined(first: Path, progress: Progress | None) -> AsyncIterator[Path]:
    """One file of all parts of a model, for as long as it is being kept; ModelRefused, InputError.

    It lies beside the parts where that is allowed: there is room for what is as large.
    """
    beside = first.parent if os.access(first.parent, os.W_OK) else None

    def show(done_bytes: int, size_bytes: int) -> None:
        if progress is not None:
            trio.from_thread.run_sync(progress, done_bytes, size_bytes)

    with tempfile.TemporaryDirectory(prefix=".baton-", dir=beside) as folder:
        whole = Path(folder) / f"{whole_name(first)}.gguf"
        try:
            parts = await trio.to_thread.run_sync(read_parts, first)
            await trio.to_thread.run_sync(join, parts, whole, show)
        except OSError as error:
            raise InputError(
                f"the parts of {first.name} cannot be joined: {error.strerror or error}",
                todo="check that there is room for the whole model once more",
            ) from error
        yield whole
