"""Content that is kept in files of the store's folder: adding, finding, checking, deleting.

The catalog has the rules of quota, pins and counting; this module handles the files.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from store import files
from store.backend import Backend
from store.catalog import Catalog
from store.placed import KeptFile, Place
from store.recency import Recency
from store.seam import Pin, Progress
from wire import limits
from wire.content import ContentId
from wire.errors import StoreUnusable
from wire.tree import Block, TreeBuilder

# Bytes that are read and entered in the catalog in one step.
_PIECE_BYTES = 64 * limits.BLOCK_BYTES_MAX


class KeptFiles:
    """The files of one store; `folder` is None for a store that keeps none."""

    def __init__(self, backend: Backend, recency: Recency, folder: Path | None) -> None:
        self._backend = backend
        self._recency = recency
        self._folder = folder
        self._number = 0

    def new_path(self) -> Path:
        """A path for a new file; the name is unique."""
        if self._folder is None:
            raise StoreUnusable("this store keeps no files", todo="use a store on a disk")
        while True:
            self._number += 1
            path = self._folder / str(self._number)
            if not path.exists():
                return path

    async def take(self, path: Path, progress: Progress | None, pin: str | None) -> ContentId:
        """Keep the content of `path` in a file here; returns its id.

        Content that is here in a whole file stays in that one: an engine may be reading it.
        """
        if (there := await self._there(path, progress, pin)) is not None:
            return there
        kept = self.new_path()
        await self._backend.run_in_thread(lambda: files.link_or_copy(path, kept))
        taken = False
        try:
            root, old = await self._place_all(kept, progress, pin)
            taken = True
        finally:
            if not taken:
                kept.unlink(missing_ok=True)
        if old is not None and old != kept.name:
            await self._unlink(old)
        return root

    async def _there(
        self, path: Path, progress: Progress | None, pin: str | None
    ) -> ContentId | None:
        """The content of `path`, pinned, if a file here has it whole; None if none has."""
        size_bytes = (await self._backend.run_in_thread(path.stat)).st_size
        with self._backend.reading() as rows:
            likely = rows.roots_of_size(size_bytes)
        if not likely:
            return None
        root = await self._backend.run_in_thread(lambda: id_of_file(path))
        if root not in likely or await self.find(root) is None:
            return None

        def keep(catalog: Catalog) -> bool:
            if catalog.rows.file_of(root) is None:
                return False
            if pin is not None:
                catalog.pin(Pin(root, pin))
            return True

        if not await self._backend.commit(keep):
            return None
        if progress is not None:
            progress(size_bytes)
        return root

    async def adopt(self, content_id: ContentId, path: Path) -> Path:
        """Use `path`, a whole copy of `content_id`, as the only place of its blocks."""
        root, old = await self._place_all(path, None, None)
        assert root == content_id, "it was written from checked blocks"
        if old is not None and old != path.name:
            await self._unlink(old)
        return path

    async def _place_all(
        self, path: Path, progress: Progress | None, pin: str | None
    ) -> tuple[ContentId, str | None]:
        """Enter every leaf as a place in `path`, piece by piece; the root, and its earlier file.

        The leaves are guarded against eviction until the root is in.
        """
        guard, done_bytes = set[bytes](), 0
        self._recency.guards.append(guard)
        try:
            said = await self._backend.run_in_thread(lambda: KeptFile.of(path))
            pieces = _pieces(path)
            builder = TreeBuilder()
            while builder.root is None:
                blocks, size_bytes = await self._backend.run_in_thread(
                    lambda: _next(pieces, builder)
                )
                guard.update(block.id for block in blocks)
                old = await self._backend.commit(
                    _keeping(blocks, builder.root, done_bytes, said, pin), len(blocks)
                )
                done_bytes += size_bytes
                if progress is not None:
                    progress(done_bytes)
        finally:
            self._recency.guards.remove(guard)
        return builder.root, old

    async def find(self, content_id: ContentId) -> Path | None:
        """The file of this content, if there is one and it has not changed."""
        with self._backend.reading() as rows:
            file = rows.file_of(content_id)
        if file is None or self._folder is None:
            return None
        path = self._folder / file.name
        now = await self._backend.run_in_thread(lambda: _said_of(path))
        if now == file:
            return path
        found = await self._backend.run_in_thread(lambda: None if now is None else id_of_file(path))
        if now is not None and found == content_id:
            # The file has a new time but the same content: the new time is noted.
            await self._backend.commit(lambda catalog: catalog.keep_file(content_id, now))
            return path
        await self._drop(content_id)
        return None

    async def changed(self, leaf: ContentId) -> bool:
        """Whether a corrupt leaf was in a file; if so, all content of that file is forgotten."""
        with self._backend.reading() as rows:
            place = rows.place_of(leaf)
            root = None if place is None else rows.root_of(place.name)
        if root is None:
            return False
        await self._drop(root)
        return True

    async def forget(self, content_id: ContentId) -> None:
        """Delete the file of this content, unless it is pinned."""

        def forget(catalog: Catalog) -> str | None:
            return None if catalog.is_pinned(content_id) else catalog.forget_file(content_id)

        await self._unlink(await self._backend.commit(forget))

    async def _drop(self, root: ContentId) -> None:
        await self._unlink(await self._backend.commit(lambda catalog: catalog.forget_file(root)))

    async def _unlink(self, name: str | None) -> None:
        if name is not None and self._folder is not None:
            path = self._folder / name
            await self._backend.run_in_thread(lambda: path.unlink(missing_ok=True))


def _pieces(path: Path) -> Iterator[bytes]:
    with files.reading(path) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
    yield b""


def _next(pieces: Iterator[bytes], builder: TreeBuilder) -> tuple[list[Block], int]:
    piece = next(pieces)
    blocks: list[Block] = []
    for at in range(0, len(piece), limits.BLOCK_BYTES_MAX):
        blocks.extend(builder.add(piece[at : at + limits.BLOCK_BYTES_MAX]))
    if not piece:
        blocks.extend(builder.finish())
    return blocks, len(piece)


def _keeping(
    blocks: list[Block], root: ContentId | None, offset: int, file: KeptFile, pin: str | None
) -> Callable[[Catalog], str | None]:
    """The catalog action for one piece: its leaves are in the file, its nodes are rows."""
    nodes = [block for block in blocks if block.id.is_tree]
    places: list[tuple[ContentId, Place]] = []
    for block in blocks:
        if not block.id.is_tree and block.data:
            places.append((block.id, Place(file.name, offset, len(block.data))))
            offset += len(block.data)
    empty = [block for block in blocks if not block.id.is_tree and not block.data]

    def keep(catalog: Catalog) -> str | None:
        catalog.place(places)
        catalog.put([*nodes, *empty])
        if root is None:
            return None
        old = catalog.rows.file_of(root)
        catalog.keep_file(root, file)
        if pin is not None:
            catalog.pin(Pin(root, pin))
        return None if old is None else old.name

    return keep


def _said_of(path: Path) -> KeptFile | None:
    try:
        return KeptFile.of(path)
    except OSError:
        return None


def id_of_file(path: Path) -> ContentId:
    """The content id of a whole file, read piece by piece; InputError if it cannot be read."""
    builder = TreeBuilder()
    pieces = _pieces(path)
    while builder.root is None:
        _next(pieces, builder)
    return builder.root
