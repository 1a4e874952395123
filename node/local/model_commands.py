"""What the running peer does with models for commands on its own machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node.engines.by_format import formats_of
from node.engines.interface import EngineStatistics, Loaded
from node.local.control import Command, Emit
from node.models.inspect import check_runs, is_path
from node.models.model_store import told
from node.models.pinned import PACKAGED
from node.peer import Node
from node.task.levels import levels_of_model
from wire.content import ContentId
from wire.errors import BatonError, InputError, TaskFailed
from wire.kinds import Role
from wire.layers import LayerRange, layers_id
from wire.model import Manifest

# How often it is looked whether a model is ready.
LOOK_S = 0.2


@dataclass(slots=True)
class ModelCommands:
    """The commands about models, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """The commands about models that the control socket takes, by their names on the socket."""
        return {
            "models": self.models,
            "models-add": self.add,
            "models-rm": self.remove,
            "models-pull": self.pull,
            "models-prepare": self.prepare,
        }

    async def models(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The models that are served here, kept here, and offered by others."""
        node = self.node
        # A range of a model's layers is offered under an id that all ranges of it share.
        whole = {layers_id(it): (it, known.name) for it, known in node.models.known().items()}
        offered: dict[tuple[ContentId, str], dict[str, Any]] = {}
        for heard in node.peers.view.living(node.dependencies.environment.wall_s()):
            for offer in heard.record.models:
                model, name = offer.model, offer.name
                if LayerRange.read(name) is not None and model in whole:
                    model, name = whole[model][0], f"{whole[model][1]}, {name}"
                row = offered.setdefault(
                    (model, name if model != offer.model else ""),
                    {"id": str(model), "name": name, "infer": 0, "verify": 0},
                )
                for role in (Role.INFER, Role.VERIFY):
                    row[role.name.lower()] += heard.record.plays(role)
        return {
            "running": True,
            "here": own_models(node),
            "kept": await node.models.shelf.rows(
                on_gpu=node.config.guest.on_gpu, layers=node.config.layers
            ),
            "network": list(offered.values()),
        }

    async def add(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep a model from a file, a folder or other peers, and serve it if this peer serves."""
        what = _text(arguments, "what")
        name = _text(arguments, "name") if "name" in arguments else None
        if is_path(what):
            path = Path(what)
            if not path.is_absolute():
                raise InputError(f"{what[:80]!r} is not an absolute path", todo="begin it with /")
            manifest = await self.node.models.add(path, name, _telling(emit, "keeping"))
        else:
            if name is not None:
                raise InputError("a model that has an id has its name", todo="leave --name out")
            manifest = await self._brought(self.node.models.meant(what), emit)
        return await self._served(manifest)

    async def pull(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Have a model here, whole, from whoever holds it, and serve it if this peer serves."""
        typed = _text(arguments, "what")
        model = self._meant(typed)
        with named_as(typed, model):
            return await self._served(await self._brought(model, emit))

    async def prepare(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Have a model answered by somebody: by others, or by this peer once it is loaded here."""
        typed = _text(arguments, "what")
        model, models = self._meant(typed), self.node.models
        if not models.offered(model) and Role.INFER in self.node.config.roles:
            self.node.loader.start(typed)
        while not models.offered(model):
            if Role.INFER not in self.node.config.roles:
                raise InputError(
                    f"nobody that is known here runs the model {typed!r}, and this peer runs none",
                    todo=self.node.peers.joining().have(
                        "serve it", f"--role infer --model {typed}"
                    ),
                )
            row = row_of(self.node, model)
            if row is not None and row["problem"]:
                packaged = PACKAGED.get(typed)
                raise TaskFailed(
                    f"{typed} cannot run here: {row['problem']}",
                    todo=packaged.install if packaged is not None else "",
                )
            step = "loading" if row is None else row["state"]
            done_bytes, size_bytes = (0, 0) if row is None else progress_of(row)
            emit({"event": step, "done_bytes": done_bytes, "size_bytes": size_bytes})
            await trio.sleep(LOOK_S)
        return {"id": str(model), "name": typed}

    def _meant(self, name: str) -> ContentId:
        try:
            return self.node.models.meant(name)
        except InputError as error:
            if "no model" not in error.message:
                raise
            raise InputError(
                f"nobody offers a model {name[:80]!r}",
                todo="give a name or a content id that this lists: python -m node models",
            ) from error

    async def remove(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Stop serving and keeping a model."""
        node = self.node
        model = node.models.resolve(_text(arguments, "what"))
        known = node.models.shelf.known().get(model)
        if known is not None:
            node.loader.stop(model, known.name)
        manifest = await node.models.remove(model)
        node.peers.advertiser.changed()
        return told(manifest)

    async def _brought(self, model: ContentId, emit: Emit) -> Manifest:
        models = self.node.models
        try:
            manifest, files = await models.bring(model, _telling(emit, "fetching"))
        finally:
            # The loader reports whether the model will be served.
            if model not in models.engine.loaded() and (known := models.manifest_of(model)):
                models.progress.pop(known.name, None)
        # A model that cannot run is reported now, and not when it is used.
        await trio.to_thread.run_sync(check_runs, manifest, files)
        return manifest

    async def _served(self, manifest: Manifest) -> dict[str, Any]:
        node = self.node
        formats = formats_of(node.dependencies.engine)
        why_not = ""
        if not {Role.INFER, Role.VERIFY} & node.config.roles:
            why_not = "it plays no role that runs models"
        elif formats is not None and manifest.format not in formats:
            # Engines are opened with the peer, for the models it is started with.
            here = ", ".join(sorted(formats))
            why_not = f"it was started without an engine for {manifest.format} (it runs {here})"
        else:
            node.loader.start(str(manifest.id))
        return {**told(manifest), "served": not why_not, "why_not": why_not}


def _pages(engine: EngineStatistics, model: ContentId) -> dict[str, int]:
    used, count = engine.pages.get(model, (0, 0))
    return {"pages_used": used, "pages": count} if count else {}


def _layers(node: Node, loaded: Loaded) -> dict[str, Any]:
    """The layers that are here of a model in parts, who has the rest now, and who lied about it."""
    if loaded.layers is None:
        return {}
    chains = node.dependencies.chains
    rest = chains.peers_of(loaded.model)
    return {
        "layers": str(loaded.layers),
        "rest": [{"peer": str(peer), "layers": str(layers)} for peer, layers in rest],
        "gave_wrong_rows": [{"peer": str(it), "layers": why} for it, why in chains.named.items()],
    }


def own_models(node: Node) -> list[dict[str, Any]]:
    """The models that this peer serves or will serve, and the problem of each that it cannot."""
    rows: dict[str, dict[str, Any]] = {}
    for called, problem in node.model_problems.items():
        known = _known_as(node, called)
        name, named = (called, {}) if known is None else (known.name, {"id": str(known.id)})
        rows[name] = {"name": name, "state": "failing", **named, "problem": problem}
    for progress in node.models.on_their_way():
        rows[progress.name] = {
            "name": progress.name,
            "state": progress.step,
            "done_bytes": progress.done_bytes,
            "size_bytes": progress.size_bytes,
            "problem": "",
            # A model has a problem only while it is not being loaded.
            **rows.get(progress.name, {}),
        }
    engine = node.dependencies.engine.statistics()
    probes = node.probing.probes
    for loaded in node.dependencies.engine.loaded().values():
        problem = probes.problem(loaded.model)
        if loaded.model in engine.loading:
            state = "loading"
        elif loaded.model in engine.resting:
            # The model is loaded when a job needs it; it is offered all the same.
            state = "resting"
        elif probes.passed(loaded.model):
            # A loaded model is offered to others only once a probe of it passed.
            state = "ready"
        else:
            state = "set aside" if problem else "probing"
        rows[loaded.manifest.name] = {
            "name": loaded.manifest.name,
            "state": state,
            "id": str(loaded.model),
            "units_per_s": round(loaded.units_per_s, 2),
            "memory_bytes": loaded.memory_bytes,
            "profile": loaded.profile,
            "levels": levels_of_model(loaded.manifest),
            **_layers(node, loaded),
            **_pages(engine, loaded.model),
            "problem": problem,
        }
    for model, share in engine.loading.items():
        if (manifest := node.models.manifest_of(model)) is not None and manifest.name in rows:
            rows[manifest.name]["loaded_share"] = round(share, 2)
    for model, why in engine.quarantined.items():
        manifest = node.models.manifest_of(model)
        name = manifest.name if manifest is not None else str(model)
        rows[name] = {"name": name, "state": "set aside", "id": str(model), "problem": why}
    return list(rows.values())


def row_of(node: Node, model: ContentId) -> dict[str, Any] | None:
    """What `own_models` says of one model."""
    manifest = node.models.manifest_of(model)
    names = {str(model), *([manifest.name] if manifest is not None else [])}
    rows = own_models(node)
    return next((it for it in rows if it.get("id") == str(model) or it["name"] in names), None)


def progress_of(row: Mapping[str, Any]) -> tuple[int, int]:
    """How many bytes of a model are here, and of how many; zeros where that is not counted."""
    return row.get("done_bytes", 0), row.get("size_bytes", 0)


# A peer that has just started is ready within this time, if its models are small.
_SOON_S = 5.0


async def until_ready(node: Node, model: ContentId) -> None:
    """Wait a moment for a model that is being made ready here, and nowhere else.

    InputError that says how far it is, if it fails or takes longer.
    """
    row = _under_way(node, model)
    with trio.move_on_after(_SOON_S):
        while row is not None and not row["problem"]:
            await trio.sleep(LOOK_S)
            row = _under_way(node, model)
    if row is None:
        return
    done_bytes, size_bytes = progress_of(row)
    share = f", {done_bytes * 100 // size_bytes} %" if size_bytes else ""
    raise InputError(
        f"the model {row['name']} is not ready here yet: {row['problem'] or row['state'] + share}",
        todo="wait for it: python -m node status",
    )


def _under_way(node: Node, model: ContentId) -> dict[str, Any] | None:
    row = row_of(node, model)
    ready = row is None or row["state"] in ("ready", "resting") or node.models.offered(model)
    return None if ready else row


@contextmanager
def named_as(typed: str, model: ContentId) -> Iterator[None]:
    """Errors about the model name it as a person typed it, before the id that the name means."""
    try:
        yield
    except BatonError as error:
        if typed != str(model):
            both = f"{typed[:80]} ({model})"
            error.message = error.message.replace(str(model), both)
            error.todo = error.todo.replace(str(model), typed[:80])
        raise


def _known_as(node: Node, called: str) -> Manifest | None:
    """The model that a name, an id or a file's path stands for, if this peer knows it."""
    try:
        model = node.models.resolve(Path(called).absolute().stem if is_path(called) else called)
    except InputError:
        return None
    return node.models.manifest_of(model)


def _telling(emit: Emit, step: str) -> Any:
    def tell(done_bytes: int, size_bytes: int) -> None:
        emit({"event": step, "done_bytes": done_bytes, "size_bytes": size_bytes})

    return tell


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError("no model was named", todo="give a file, a folder, a name or an id")
    return value
