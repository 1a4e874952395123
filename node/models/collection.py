"""The models of one peer: brought in from a file or from others, kept by content, made ready.

A model is named by its manifest's content id. A short name stands for an id only if this project
pins the name, or if this peer has the model itself: names that strangers give are not trusted.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from node.engines.formats.packaged import PackagedModel
from node.engines.interface import Engine, Loaded
from node.models.inspect import check_layers, is_path
from node.models.model_store import ModelStore, Progress
from node.models.pinned import PACKAGED, PINNED
from p2p.blobs import Blobs
from p2p.timeouts import stretched
from store import Store
from wire import limits
from wire.advert import Advert, ModelOffer
from wire.content import ContentId, PeerId
from wire.errors import BatonError, EngineMissing, InputError, Malformed, ModelRefused
from wire.kinds import Role
from wire.layers import layers_id
from wire.model import Manifest

# The size of the largest model that is fetched from other peers.
MODEL_BYTES_MAX = 64 << 30
MANIFEST_DEADLINE_S = 60.0
FETCH_DEADLINE_S = 24 * 3600.0
# How long whoever runs a model is asked what it is, where that only helps.
LEARN_DEADLINE_S = 3.0
# How many ids are told where a name means several models: strangers may offer any number.
CHOICES_TOLD = 5

__all__ = ["PINNED", "ModelProgress", "Models", "offer_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProgress:
    """Progress of a model that is being fetched or loaded: bytes here, bytes in all."""

    name: str
    step: str
    done_bytes: int
    size_bytes: int
    model: ContentId | None = None


@dataclass(slots=True)
class Models:
    """The models that this peer can run, and those that are being prepared."""

    store: Store
    blobs: Blobs
    engine: Engine
    folder: Path
    progress: dict[str, ModelProgress] = field(default_factory=dict)
    # What was loaded, by the name, the id or the path under which it was asked for.
    made_ready: dict[str, ContentId] = field(default_factory=dict)

    @property
    def shelf(self) -> ModelStore:
        return ModelStore(self.store)

    def known(self) -> dict[ContentId, Manifest]:
        """Every model whose manifest is kept here."""
        return self.shelf.known()

    def resolve(self, name: str) -> ContentId:
        """The id a person means by `name`; InputError lists what is known."""
        return self.shelf.resolve(name)

    def meant(self, name: str) -> ContentId:
        """The model that `name` means: one of this peer, or the only one offered by that name."""
        try:
            return self.resolve(name)
        except InputError as error:
            if any(it.name == name for it in self.known().values()):
                raise
            found = sorted({str(it.model) for _, it in self._offers() if it.name == name})
            if len(found) == 1:
                return ContentId.parse(found[0])
            if not found:
                raise
            raise InputError(
                f"{name[:80]!r} is the name of {len(found)} models in the network",
                todo=f"say which: {', '.join(found[:CHOICES_TOLD])}",
            ) from error

    def offered(self, model_id: ContentId) -> bool:
        """Whether a known peer, or this one, advertises that it runs the model."""
        mine = self.blobs.peers.mine().record
        if mine.plays(Role.INFER) and mine.offer_of(model_id):
            return True
        return any(it.model == model_id for heard, it in self._offers() if heard.plays(Role.INFER))

    async def learn(self, model_id: ContentId) -> Manifest | None:
        """A model's manifest, from here or from a peer that runs it; None if none comes in time."""
        found = self.manifest_of(model_id)
        if found is not None or not (holders := self.holders(model_id)):
            return found
        try:
            data = await self.blobs.get(
                model_id,
                holders,
                deadline_s=stretched(LEARN_DEADLINE_S),
                size_bytes_max=limits.MANIFEST_BYTES_MAX,
            )
            return Manifest.from_bytes(data)
        except BatonError:
            return None

    def _offers(self) -> Iterator[tuple[Advert, ModelOffer]]:
        """Every known offer, with the advert that has it."""
        peers = self.blobs.peers
        for heard in peers.view.living(peers.environment.wall_s()):
            for offer in heard.record.models:
                yield heard.record, offer

    def manifest_of(self, model_id: ContentId) -> Manifest | None:
        """A model's manifest, if this project pins the model or this peer keeps it."""
        return self.shelf.manifest_of(model_id)

    def name_of(self, model_id: ContentId) -> str:
        """A model's name, by its manifest or as all that offer it say; empty if there is none."""
        if (manifest := self.manifest_of(model_id)) is not None:
            return manifest.name
        names = {it.name for _, it in self._offers() if it.model == model_id}
        return names.pop() if len(names) == 1 else ""

    async def check_meant(self, name: str, layers: tuple[int, int] | None = None) -> None:
        """InputError or ModelRefused unless `name` means a model, or a file that can be run.

        InputError too if it is not a language model that has these layers, as far as it is here.
        """
        if is_path(name):
            await self.shelf.look(Path(name))
        else:
            self.resolve(name)
        if layers is None:
            return
        if not is_path(name) and name not in PACKAGED:
            # Whether it has them is seen once it is here.
            return
        with suppress(EngineMissing):
            paths = [Path(name)] if is_path(name) else PACKAGED[name].files().values()
            for path in paths:
                await trio.to_thread.run_sync(check_layers, path, layers)

    async def make_ready(self, name: str) -> Loaded:
        """Fetch, check and load a model; errors say what is missing."""
        model_id = (await self.add(Path(name))).id if is_path(name) else self.resolve(name)
        manifest, files = await self.bring(model_id)
        size_bytes = sum(it.size_bytes for it in manifest.files)
        self._tell(manifest.name, "loading", 0, size_bytes, manifest.id)
        loaded = await self.engine.load(manifest, files)
        self.made_ready[name] = model_id
        self._tell(manifest.name, "ready", 0, 0)
        return loaded

    async def add(
        self, path: Path, name: str | None = None, progress: Progress | None = None
    ) -> Manifest:
        """Keep the model in a file or folder; InputError, ModelRefused."""
        called = name or path.stem

        def show(done_bytes: int, size_bytes: int) -> None:
            self._tell(called, "keeping", done_bytes, size_bytes)
            if progress is not None:
                progress(done_bytes, size_bytes)

        try:
            return await self.shelf.add(path, name, show)
        finally:
            # From here on the model is known by the name in its manifest.
            self.progress.pop(called, None)

    async def bring(
        self, model_id: ContentId, progress: Progress | None = None
    ) -> tuple[Manifest, dict[str, Path]]:
        """Fetch every file of a model from peers that have it, checked by content."""
        for name, make in PINNED.items():
            if (pinned := make()).id == model_id:
                await self.keep(pinned)
                if name in PACKAGED:
                    await self._bring_packaged(PACKAGED[name])
        manifest = await self._manifest(model_id)
        return manifest, await self._files(manifest, progress)

    async def remove(self, model_id: ContentId) -> Manifest:
        """Unload a model, forget it and its files; InputError if it is not kept here."""
        manifest = await self.shelf.remove(model_id)
        await self.engine.unload(model_id)
        self.progress.pop(manifest.name, None)
        folder = self.folder / str(model_id)
        await trio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        return manifest

    async def keep(self, manifest: Manifest) -> ContentId:
        """Keep a manifest, pinned with every file it names."""
        return await self.shelf.keep(manifest)

    def on_their_way(self) -> list[ModelProgress]:
        """`progress`, and how far loads are now, as a share of the model's bytes."""
        loading = self.engine.statistics().loading
        return [
            replace(it, done_bytes=int(loading.get(it.model, 0.0) * it.size_bytes))
            if it.step == "loading" and it.model is not None
            else it
            for it in self.progress.values()
        ]

    def _tell(
        self,
        name: str,
        step: str,
        done_bytes: int,
        size_bytes: int,
        model: ContentId | None = None,
    ) -> None:
        self.progress[name] = ModelProgress(
            name=name, step=step, done_bytes=done_bytes, size_bytes=size_bytes, model=model
        )

    async def _bring_packaged(self, model: PackagedModel) -> None:
        """Copy a model from its installed package into the store, if the package is installed."""
        manifest = model.manifest()
        missing = [it for it in manifest.files if await self.store.missing(it.content, limit=1)]
        try:
            paths = await trio.to_thread.run_sync(model.files) if missing else {}
        except EngineMissing:
            # Not installed here: `_files` asks the network.
            return
        for file in missing:
            path = paths[file.name]
            self._tell(manifest.name, "reading", 0, file.size_bytes)
            size_bytes = path.stat().st_size
            if size_bytes != file.size_bytes:
                raise _not_pinned(model, path, f"{size_bytes} bytes instead of {file.size_bytes}")
            found = await self.store.take_file(path, pin="model")
            if found != file.content:
                await self.store.unpin(found, "model")
                await self.store.forget_file(found)
                raise _not_pinned(model, path, "its content was altered")

    async def _manifest(self, model_id: ContentId) -> Manifest:
        kept = self.manifest_of(model_id)
        if kept is not None:
            return kept
        data = await self.blobs.get(
            model_id,
            self.holders(model_id),
            deadline_s=stretched(MANIFEST_DEADLINE_S),
            size_bytes_max=limits.MANIFEST_BYTES_MAX,
        )
        try:
            manifest = Manifest.from_bytes(data)
        except Malformed as error:
            raise ModelRefused(f"{model_id} is not a model's manifest: {error}") from error
        await self.keep(manifest)
        return manifest

    async def wait_for_holder(self, name: str) -> None:
        """Wait until a peer that did not offer the model before offers it."""
        model_id = self.resolve(name)
        before = set(self.holders(model_id))
        while not set(self.holders(model_id)) - before:
            await trio.sleep(0.2)

    def holders(self, model_id: ContentId) -> list[PeerId]:
        """Peers that advertise the model, so they must have every file of it."""
        peers = self.blobs.peers
        wall_s = peers.environment.wall_s()
        ids = (model_id, layers_id(model_id))
        return [it.signer for it in peers.view.living(wall_s) if any(map(it.record.offer_of, ids))]

    async def _files(self, manifest: Manifest, progress: Progress | None = None) -> dict[str, Path]:
        """Every file of the model as a path here, fetched and checked by its hash."""
        size_bytes = sum(it.size_bytes for it in manifest.files)
        if size_bytes > MODEL_BYTES_MAX:
            raise ModelRefused(f"{manifest.name} has {size_bytes} bytes: too large")
        before_bytes = 0
        paths: dict[str, Path] = {}
        for file in manifest.files:

            def show(done_bytes: int, _: int, before: int = before_bytes) -> None:
                self._tell(manifest.name, "fetching", before + done_bytes, size_bytes)
                if progress is not None:
                    progress(before + done_bytes, size_bytes)

            await self.blobs.fetch(
                file.content,
                self.holders(manifest.id),
                deadline_s=FETCH_DEADLINE_S,
                size_bytes_max=file.size_bytes,
                progress=show,
            )
            before_bytes += file.size_bytes
            paths[file.name] = await self._exported(manifest, file.name, file.content)
        return paths

    async def _exported(self, manifest: Manifest, name: str, content: ContentId) -> Path:
        path = await self.store.file_of(content)
        # Earlier versions wrote every file of a model a second time.
        earlier = self.folder / str(manifest.id) / name
        await trio.to_thread.run_sync(lambda: earlier.unlink(missing_ok=True))
        return path


def _not_pinned(model: PackagedModel, path: Path, why: str) -> ModelRefused:
    return ModelRefused(
        f"{path} is not the model file that this project pins: {why}",
        todo=model.reinstall,
    )


def offer_of(loaded: Loaded) -> ModelOffer:
    """What an advert says of a model, or of the layers of one."""
    layers = loaded.middle
    return ModelOffer(
        model=loaded.model if layers is None else layers_id(loaded.model),
        name=loaded.manifest.name if layers is None else str(layers),
        units_per_s=min(loaded.units_per_s, 1e9),
    )
