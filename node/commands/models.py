"""`models`: lists them, here and in the network; adds, fetches and removes those here."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from node.commands.ask import SOCKET
from node.commands.content import bar
from node.commands.output import (
    console,
    memory_words,
    safe,
    show_json,
    show_table,
    size,
    state_words,
)
from node.commands.to_type import hint
from node.local.control import call, unheard
from node.models.inspect import is_path
from node.models.model_store import ModelStore, told
from node.models.pinned import PINNED
from store import open_store
from wire.errors import InputError

# The formats of models that one talks with.
TALKING = ("exact-text", "gguf")
DEADLINE_S = 24 * 3600.0
LOOK_DEADLINE_S = 30.0
# A person who adds a model has decided that there is room; a peer's quota is for what others bring.
QUOTA_BYTES = 1 << 60
Tell = Callable[[Mapping[str, Any]], None]


def meant(text: str) -> str:
    """A model's name or id as it is; a file or folder by its whole path."""
    path = Path(text).expanduser()
    if text not in PINNED and (is_path(text) or path.exists()):
        return str(path.absolute())
    return text


def meant_among(text: str, served: Sequence[str]) -> str:
    """What `meant` gives; a file that is served may also be named as it is called, `forest`."""
    paths = {it: Path(meant(it)) for it in served}
    files = {it for it in paths.values() if it.is_absolute()}
    fitting = [str(it) for it in files if text in (it.name, it.stem)]
    return fitting[0] if text not in served and len(fitting) == 1 else meant(text)


async def list_models(state: Path, *, as_json: bool) -> None:
    """Show what is served, kept and offered; without a running peer, what the folder keeps."""
    if await is_running(state):
        found = await call(state / SOCKET, "models", {}, unheard, deadline_s=LOOK_DEADLINE_S)
    elif (state / "version").exists():
        async with _shelf(state) as shelf:
            found = {"running": False, "here": [], "kept": await shelf.rows(), "network": []}
    else:
        found = {"running": False, "here": [], "kept": [], "network": []}
    if as_json:
        show_json(found)
        return
    if not found["running"]:
        console.print(f"no peer is running on {safe(state)}: this is what its folder keeps")
    rows = [
        (
            safe(", ".join((it["name"], *filter(None, [it.get("layers")])))),
            state_words(it),
            " ".join(it.get("levels", ())),
            it.get("id", ""),
            safe(it["problem"]),
        )
        for it in found["here"]
    ]
    if found["running"]:
        show_table("served here", ("name", "state", "levels", "id", ""), rows)
    kept = [
        (
            safe(it["name"]),
            safe(it["format"]),
            size(it["size_bytes"]),
            "whole" if it["whole"] else "not whole yet",
            memory_words(it["memory"]) if "memory" in it else "",
            it["id"],
        )
        for it in found["kept"]
    ]
    show_table("kept here", ("name", "format", "size", "", "memory to run it", "id"), kept)
    there = [(safe(it["name"]), it["infer"], it["verify"], it["id"]) for it in found["network"]]
    if found["running"]:
        show_table("in the network", ("name", "run it", "check it", "id"), there)


async def change_models(
    state: Path, what: str, arguments: dict[str, str], *, as_json: bool
) -> None:
    """Add, fetch or remove a model through the running peer, or in the folder if none runs."""
    running = await is_running(state)
    with bar() as progress:
        task = progress.add_task(what, total=None)

        def tell(event: Mapping[str, Any]) -> None:
            progress.update(
                task,
                description=str(event["event"]),
                completed=event["done_bytes"],
                total=event["size_bytes"] or None,
            )

        if running:
            found = await call(
                state / SOCKET, f"models-{what}", arguments, tell, deadline_s=DEADLINE_S
            )
        else:
            found = await _change_alone(state, what, arguments, tell)
    if as_json:
        show_json({**found, "running": running})
        return
    if what == "rm":
        console.print(f"{safe(found['name'])} is no longer kept here")
        return
    kept = f"{safe(found['name'])} ({safe(found['format'])}, {size(found['size_bytes'])})"
    console.print(f"kept {kept} as\n{found['id']}")
    if found.get("served"):
        console.print(
            "served until this peer ends; to serve it after a restart too:"
            f" join with --model {safe(found['name'])}"
        )
    else:
        join = hint(f"python -m node join … --model {safe(found['name'])}")
        if running:
            console.print(f"kept, but the running peer does not serve it: {found['why_not']}")
            console.print(f"restart with: {join}")
        else:
            console.print(f"serve it: {join.replace(' …', '', 1)}")
    if not running:
        console.print(f"no peer is running on {safe(state)} now")
    # A language model is talked with; what others do is asked of them.
    name, kind = found["name"], found["format"]
    if kind in TALKING:
        tries = f"run {name}"
    elif kind == "onnx":
        tries = f"ask {name} --rows TABLE --input NAME=COLUMN,… --out FILE"
    else:
        tries = f"ask {name} --help"
    console.print(hint(f"try it: python -m node {safe(tries)}"))


async def _change_alone(
    state: Path, what: str, arguments: Mapping[str, str], tell: Tell
) -> dict[str, Any]:
    """Add or remove a model in the folder itself, which is locked meanwhile; InputError."""
    text = arguments["what"]
    if what == "pull" or (what == "add" and not is_path(text)):
        raise InputError(
            f"a model is fetched by a running peer, and none is running on {state}",
            todo="start one: python -m node join (or name another with --state)",
        )

    def show(done_bytes: int, size_bytes: int) -> None:
        tell({"event": "keeping", "done_bytes": done_bytes, "size_bytes": size_bytes})

    async with _shelf(state) as shelf:
        if what == "add":
            manifest = await shelf.add(Path(text), arguments.get("name"), show)
        else:
            manifest = await shelf.remove(shelf.resolve(text))
    return told(manifest)


async def is_running(state: Path) -> bool:
    """Whether a peer answers there; a socket that nobody listens on was left by a dead one."""
    try:
        stream = await trio.open_unix_socket(os.fspath(state / SOCKET))
    except OSError:
        return False
    await stream.aclose()
    return True


@asynccontextmanager
async def _shelf(state: Path) -> AsyncIterator[ModelStore]:
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        yield ModelStore(store)
