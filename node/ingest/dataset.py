"""Published content as a source: a file by its content id, or a file in a published folder.

Anybody who has the id gets the same bytes, so what is made of them can be repeated by anybody. The
nodes of the folders on the way to a file are kept: they prove that it is that folder's file.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from node.ingest.came import Came
from node.ingest.local_files import FILE_BYTES_MAX
from wire import limits
from wire.codec import pack, unpack
from wire.content import ContentId
from wire.errors import InputError, Malformed, Oversize, TooSlow, WireError
from wire.unixfs import UnixfsId, UnixfsNode, check_name, names_node
from wire.unixfs_shards import ROWS_MAX, step

# The bytes of a content id, of which there are at most so many.
GetContent = Callable[[ContentId, int], Awaitable[bytes]]
FOLDERS_MAX = 32
DATASET_S_MAX = 60.0
_PARTS_MAX = 4096
# So much of a node is read on the loop.
_INLINE_BYTES_MAX = 16 << 10


@dataclass(frozen=True, slots=True)
class DatasetPlace:
    """Which content, and where in it: no names for content that is itself the file."""

    content: str
    names: tuple[str, ...]

    @property
    def is_unixfs(self) -> bool:
        return names_node(self.content)


def read_place(text: str) -> DatasetPlace:
    """Read CONTENT or CONTENT/PATH; InputError if it is none."""
    content, slash, path = text.partition("/")
    names = tuple(path.split("/")) if slash else ()
    place = DatasetPlace(content, names)
    try:
        for name in names:
            check_name(name.encode())
        if not place.is_unixfs:
            ContentId.parse(content)
    except WireError as error:
        raise InputError(
            f"{text[:80]!r} is no content id, or no path in it: {error.message}",
            todo='content = "…" is what python -m node put shows, path = "…" a file in that folder',
        ) from error
    if names and not place.is_unixfs:
        raise InputError(f"{content} is a file, and has no {path[:80]!r} in it")
    if len(names) >= FOLDERS_MAX:
        raise InputError(f"a path through {len(names)} folders, at most {FOLDERS_MAX - 1}")
    return place


async def bring_dataset(text: str, get: GetContent) -> Came:
    """What a place holds; InputError if there is no such file, Oversize, or what `get` raises.

    TooSlow after DATASET_S_MAX: whoever has the pieces decides how slowly each of them comes.
    """
    try:
        with trio.fail_after(DATASET_S_MAX):
            return await _brought(text, read_place(text), get)
    except trio.TooSlowError as error:
        raise TooSlow(f"{text[:80]} did not come within {DATASET_S_MAX:g} s") from error


async def _brought(text: str, place: DatasetPlace, get: GetContent) -> Came:
    if not place.is_unixfs:
        return Came((text,), await get(ContentId.parse(place.content), FILE_BYTES_MAX))
    here, folders = UnixfsId.parse(place.content), list[bytes]()
    for name in place.names:
        for row in range(ROWS_MAX):
            node = await _block(here, get)
            folders.append(node)
            here, found = child_of(await _node(node), name, row)
            if found:
                break
    packed = pack(folders) if folders else b""
    # They have to fit a record.
    small = len(packed) <= limits.INLINE_BYTES_MAX
    return Came((text,), await _file(here, place, get), folders=packed if small else b"")


def child_of(node: UnixfsNode, name: str, row: int) -> tuple[UnixfsId, bool]:
    """What a folder has under a name; InputError if nothing, or if it is no folder.

    False with it if that is another node of the same folder, where the name is sought in the next
    `row`: a folder of many entries has several.
    """
    if not node.is_folder or (row and not node.is_shard):
        raise InputError(f"{name!r} would be in a file, and a file has nothing in it")
    found = step(node, name.encode(), row)
    if found is None:
        raise InputError(f"there is no {name!r} in this folder (there are: {_some(node)})")
    if row == ROWS_MAX - 1 and not found[1]:
        raise Malformed("a folder with too many rows of nodes")
    return found


def _some(node: UnixfsNode) -> str:
    """Some names in a folder, for people."""
    names = [it.name.decode()[2 * node.is_shard :] for it in node.links]
    return ", ".join([it for it in names if it][:10]) or "nothing"


def leads_to(place: DatasetPlace, folders: Sequence[bytes]) -> UnixfsId | None:
    """Where these nodes of folders lead; None if they are not the ones of the place."""
    here, left, row = UnixfsId.parse(place.content), list(place.names), 0
    for node in folders:
        if not left or UnixfsId.of_node(node) != here:
            return None
        here, found = child_of(UnixfsNode.from_bytes(node), left[0], row)
        row = 0 if found else row + 1
        if found:
            left.pop(0)
    return None if left else here


def unpacked(folders: bytes) -> list[bytes]:
    """The nodes of the folders of a fetch; WireError if they are none."""
    if not folders:
        return []
    found = unpack(
        folders, size_bytes_max=limits.INLINE_BYTES_MAX, items_max=FOLDERS_MAX * ROWS_MAX
    )
    if not isinstance(found, list) or not all(isinstance(it, bytes) for it in found):
        raise Malformed("the folders of a fetch are a list of nodes")
    return found


async def _block(node: UnixfsId, get: GetContent) -> bytes:
    if not node.is_node:
        raise InputError("the path leads through a file, and a file has nothing in it")
    return await get(node.block, limits.BLOCK_BYTES_MAX)


async def _node(data: bytes) -> UnixfsNode:
    """Read a node. A full one has thousands of links, and a stranger may name hundreds of those."""
    if len(data) <= _INLINE_BYTES_MAX:
        return UnixfsNode.from_bytes(data)
    return await trio.to_thread.run_sync(UnixfsNode.from_bytes, data)


async def _file(top: UnixfsId, place: DatasetPlace, get: GetContent) -> bytes:
    """The bytes of a file, piece by piece; what its maker says of sizes is compared."""
    body = bytearray()
    work: list[tuple[UnixfsId, int | None]] = [(top, None)]
    # What is read and what is yet to be read, so that no node is the last of too many.
    pieces = 1
    while work:
        piece, size_bytes = work.pop()
        data = await get(piece.block, limits.BLOCK_BYTES_MAX)
        if not piece.is_node:
            if size_bytes not in (None, len(data)):
                raise Malformed(f"a piece of {len(data)} bytes, said to be {size_bytes}")
            body += data
            continue
        node = await _node(data)
        if node.part_sizes is None:
            some = _some(node)
            raise InputError(
                f"{place.content} is a folder (there are: {some})"
                if not place.names
                else f"{place.names[-1]!r} is a folder (there are: {some})",
                todo='name a file in it: path = "…"',
            )
        if node.size_bytes > FILE_BYTES_MAX:
            raise Oversize(f"a file of {node.size_bytes} bytes, at most {FILE_BYTES_MAX}")
        if size_bytes not in (None, node.size_bytes):
            raise Malformed(f"a part of {node.size_bytes} bytes, said to be {size_bytes}")
        pieces += len(node.links)
        if pieces > _PARTS_MAX:
            raise Oversize(f"a file in more than {_PARTS_MAX} pieces")
        parts = zip(node.links, node.part_sizes, strict=True)
        work.extend(reversed([(link.id, size) for link, size in parts]))
    return bytes(body)
