"""`put`, `get`, `rm` in the running peer: files and folders in, with copies at others, and out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from node.asking.copies import COPIES_MAX
from node.local.arguments import read_amount, read_content_id, read_number, read_path
from node.local.control import Command, Emit
from node.local.folder_get import FolderGet
from node.local.folder_put import FolderPut
from node.peer import Node
from wire import limits
from wire.errors import InputError, Malformed, Missing
from wire.unixfs import UnixfsId, names_node

GET_DEADLINE_S = 3600
# Why a single file is kept. A folder's blocks are kept for the sake of its root.
_PUT = "put"


@dataclass(slots=True)
class ContentCommands:
    """The commands, by name, for one running peer."""

    node: Node
    _folder_put: FolderPut = field(init=False)
    _folder_get: FolderGet = field(init=False)

    def __post_init__(self) -> None:
        store = self.node.dependencies.store
        self._folder_put = FolderPut(store)
        self._folder_get = FolderGet(self.node.blobs, store)

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "put": self.put,
            "get": self.get,
            "put-folder": self.put_folder,
            "get-folder": self.get_folder,
            "remove": self.remove,
        }

    async def put(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep the file `path`, and see to it that there are `copies`, this peer's with them.

        The answer has its content `id`, `size_bytes`, and how many `copies` were found or made.
        Without a number they are only counted.
        """
        path, copies = read_path(arguments), read_number(arguments, "copies", 0)
        if not 0 <= copies <= COPIES_MAX:
            raise InputError(
                f"{copies} copies are not possible", todo=f"give --copies 1 to {COPIES_MAX}"
            )
        size_bytes, price_max = 0, read_amount(arguments, "price_max")

        def progress(done_bytes: int) -> None:
            nonlocal size_bytes
            size_bytes = done_bytes
            emit({"event": "progress", "done_bytes": done_bytes})

        content = await self.node.dependencies.store.put_file(path, progress, pin=_PUT)
        emit({"event": "copying"})
        copying = self.node.copying
        if copies:
            found = await copying.make(content, size_bytes, copies, price_max)
        else:
            found = await copying.find(content)
        return {
            "id": str(content),
            "size_bytes": size_bytes,
            "copies": found.count,
            "copies_wanted": copies,
            "peers_looked_at": found.asked,
            # Peers other than this one; without a time, a peer did not say how long it keeps it.
            "holders": [
                {
                    "peer": str(peer),
                    "until_wall_s": None if until is None else int(until),
                    "paid": found.paid.get(peer, 0),
                }
                for peer, until in found.holders.items()
            ],
            "refusals": [{"peer": str(peer), "why": why} for peer, why in found.refusals.items()],
        }

    async def get(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Bring the content `id` into the file `path`, from the store or from other peers."""
        content = read_content_id(arguments.get("id"))
        path = read_path(arguments)

        def progress(done_bytes: int, size_bytes: int) -> None:
            emit({"event": "progress", "done_bytes": done_bytes, "size_bytes": size_bytes})

        deadline_s = read_number(arguments, "deadline_s", GET_DEADLINE_S)
        size_bytes_max = read_number(arguments, "size_bytes_max", limits.BLOB_BYTES_MAX)
        await self.node.blobs.fetch(
            content, deadline_s=deadline_s, size_bytes_max=size_bytes_max, progress=progress
        )
        size_bytes = await self.node.dependencies.store.export(content, path)
        return {"id": str(content), "size_bytes": size_bytes}

    async def put_folder(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep all of the folder `path`; the answer has its `id`, and what was new in the store."""
        published = await self._folder_put.publish(read_path(arguments), _telling(emit))
        return {
            "id": str(published.root),
            "files": published.files,
            "size_bytes": published.size_bytes,
            "stored_bytes": published.stored_bytes,
        }

    async def get_folder(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Bring the folder `id` to `path`, from the store or from other peers."""
        text, place = str(arguments.get("id")), read_path(arguments)
        try:
            root = UnixfsId.parse(text)
        except Malformed as error:
            raise InputError(
                f"{text[:80]!r} is not the id of a folder", todo="ids of folders begin with bafy"
            ) from error
        deadline_s = read_number(arguments, "deadline_s", GET_DEADLINE_S)
        brought = await self._folder_get.bring(root, place, _telling(emit), deadline_s=deadline_s)
        return {
            "id": text,
            "files": brought.files,
            "files_there_before": brought.kept_files,
            "size_bytes": brought.size_bytes,
            "received_bytes": brought.received_bytes,
        }

    async def remove(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep the content `id` no longer; the answer has the bytes that are released by that.

        Whatever else needs a block of it keeps that block: another folder, a model, an answer.
        """
        text, store = str(arguments.get("id")), self.node.dependencies.store
        if names_node(text):
            released_bytes = await self._folder_put.remove(UnixfsId.parse(text))
            return {"id": text, "released_bytes": released_bytes}
        content = read_content_id(text)
        if not store.has(content):
            raise Missing(f"this peer has nothing of {content}", todo="check the id")
        before_bytes = store.statistics().held_bytes
        await store.unpin(content, _PUT)
        return {
            "id": text,
            "released_bytes": max(0, before_bytes - store.statistics().held_bytes),
        }


def _telling(emit: Emit) -> Callable[[int, int], None]:
    def progress(done_bytes: int, size_bytes: int) -> None:
        emit({"event": "progress", "done_bytes": done_bytes, "size_bytes": size_bytes})

    return progress
