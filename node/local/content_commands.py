"""`put`, `get`, `rm` in the running peer: files and folders in, with copies at others, and out.

A file above one block and a folder are UnixFS trees, under the ids that IPFS tools compute.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from node.asking.copies import COPIES_MAX, Copied, Copies
from node.local.archive_in import look_into
from node.local.archive_out import CarPlace
from node.local.arguments import read_amount, read_content_id, read_number, read_path
from node.local.control import Command, Emit
from node.local.folder_get import FolderGet
from node.local.folder_plan import FolderPlan
from node.local.folder_put import FolderPut, Published, look_at_file
from node.peer import Node
from wire import limits
from wire.content import ContentId
from wire.errors import InputError, Malformed, Missing
from wire.plural import plural
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
            "export-content": self.export_content,
            "import-content": self.import_content,
            "remove": self.remove,
        }

    async def put(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep the file `path`, and see to it that there are `copies`, this peer's with them.

        The answer has its content `id`, `size_bytes`, and how many `copies` were found or made.
        Without a number they are only counted.
        """
        path, wanted = read_path(arguments), _CopiesWanted.read(arguments)
        found = look_at_file(path)
        if found.size_bytes > limits.BLOCK_BYTES_MAX:
            published = await self._folder_put.publish_file(path, _telling(emit))
            shown, size_bytes = str(published.root), published.size_bytes
            copied = await self._copies_of(published.root, wanted, emit)
        else:
            content = await self.node.dependencies.store.put_file(path, pin=_PUT)
            shown, size_bytes = str(content), found.size_bytes
            copied = await self._copies(content, size_bytes, wanted, emit)
        return {"id": shown, "size_bytes": size_bytes, **_copies_told(copied, wanted)}

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
        """Keep all of the folder `path`; the answer has its `id`, and what was new in the store.

        Where `copies` are wanted, it has those too, as for a file.
        """
        wanted = _CopiesWanted.read(arguments)
        published = await self._folder_put.publish(read_path(arguments), _telling(emit))
        if not wanted.count:
            return _published_told(published)
        copied = await self._copies_of(published.root, wanted, emit)
        return {**_published_told(published), **_copies_told(copied, wanted)}

    async def get_folder(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Bring the folder or large file `id` to `path`, from the store or from other peers.

        With `only_file` a folder is refused.
        """
        root, place = _read_root(arguments), read_path(arguments)
        if not root.is_node:
            raise InputError(f"{root} is a file of one block", todo=f"python -m node get {root}")
        deadline_s = read_number(arguments, "deadline_s", GET_DEADLINE_S)
        brought = await self._folder_get.bring(
            root,
            place,
            _telling(emit),
            deadline_s=deadline_s,
            only_file=arguments.get("only_file") is True,
        )
        return {
            "id": str(root),
            "is_folder": brought.is_folder,
            "files": brought.files,
            "files_there_before": brought.kept_files,
            "size_bytes": brought.size_bytes,
            "received_bytes": brought.received_bytes,
        }

    async def export_content(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Write the file or folder `id` to `path`, a CAR archive, from the store or from others."""
        root, path = _read_root(arguments), read_path(arguments)
        deadline_s = read_number(arguments, "deadline_s", GET_DEADLINE_S)
        place = CarPlace(path)
        if root.is_node:
            brought = await self._folder_get.bring_into(
                root, place, path, _telling(emit), deadline_s
            )
            size_bytes = brought.size_bytes
        else:
            data = await self.node.blobs.get(
                root.block, deadline_s=deadline_s, size_bytes_max=limits.BLOCK_BYTES_MAX
            )
            await trio.to_thread.run_sync(_write_one, place, root, data)
            size_bytes = len(data)
        return {"id": str(root), "size_bytes": size_bytes, "archive_bytes": place.size_bytes}

    async def import_content(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep what the CAR archive `path` has; `id` is its root, unless it was cut again."""
        path = read_path(arguments)
        found = await trio.to_thread.run_sync(look_into, path)
        published = await self._folder_put.publish_blocks(
            found.blocks(), path, found.files, found.size_bytes, _telling(emit)
        )
        return {**_published_told(published), "root": str(found.car.root)}

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
        # An archive of a file of one block is kept for the sake of its root, as any other.
        await store.unpin(content, text)
        return {
            "id": text,
            "released_bytes": max(0, before_bytes - store.statistics().held_bytes),
        }

    async def _copies_of(self, root: UnixfsId, wanted: "_CopiesWanted", emit: Emit) -> Copies:
        tree = await self._folder_put.tree_of(root)
        return await self._copies(tree, tree.counted_bytes, wanted, emit)

    async def _copies(
        self, content: Copied, size_bytes: int, wanted: "_CopiesWanted", emit: Emit
    ) -> Copies:
        emit({"event": "copying"})
        if wanted.count:
            return await self.node.copying.make(content, size_bytes, wanted.count, wanted.price_max)
        return await self.node.copying.find(content)


def _write_one(place: CarPlace, root: UnixfsId, data: bytes) -> None:
    plan = FolderPlan(root, root_bytes=len(data))
    entries = list(plan.entries())
    try:
        place.begin(plan, entries, len(data))
        place.write([(entries[0], root, data)])
        place.end()
    finally:
        place.drop()


@dataclass(frozen=True, slots=True)
class _CopiesWanted:
    """How many, 0 to have them counted alone; and what all may cost, in millionths."""

    count: int
    price_max: int

    @classmethod
    def read(cls, arguments: Mapping[str, Any]) -> "_CopiesWanted":
        """InputError for what is no number of copies, or no amount."""
        copies = read_number(arguments, "copies", 0)
        if not 0 <= copies <= COPIES_MAX:
            raise InputError(
                f"{plural(copies, 'copy')} are not possible",
                todo=f"give --copies 1 to {COPIES_MAX}",
            )
        return cls(copies, read_amount(arguments, "price_max"))


def _read_root(arguments: Mapping[str, Any]) -> UnixfsId:
    text = str(arguments.get("id"))
    try:
        return UnixfsId.parse(text)
    except Malformed as error:
        try:
            old = ContentId.parse(text)
        except Malformed:
            old = None
        if old is not None:
            raise InputError(
                f"{text} is a file under an id of an earlier version, which IPFS tools do not read",
                todo=f"python -m node get {text} --output FILE, and put that: it gets another id",
            ) from error
        raise InputError(
            f"{text[:80]!r} is not the id of a file or folder", todo="ids begin with baf"
        ) from error


def _published_told(published: Published) -> dict[str, Any]:
    return {
        "id": str(published.root),
        "files": published.files,
        "size_bytes": published.size_bytes,
        "stored_bytes": published.stored_bytes,
    }


def _copies_told(found: Copies, wanted: _CopiesWanted) -> dict[str, Any]:
    return {
        "copies": found.count,
        "copies_wanted": wanted.count,
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


def _telling(emit: Emit) -> Callable[[int, int], None]:
    def progress(done_bytes: int, size_bytes: int) -> None:
        emit({"event": "progress", "done_bytes": done_bytes, "size_bytes": size_bytes})

    return progress
