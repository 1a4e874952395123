"""CAR archives of published files and folders, as IPFS tools write and read them.

An archive is read through once, block by block, to compare each with its id. After that only the
places of its blocks are in memory: their order says nothing, and a block may be there twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from store.files import reading
from wire.car import read_root, read_sections
from wire.content import ContentId
from wire.errors import InputError, Malformed, Oversize, WireError
from wire.unixfs import UnixfsId

# Other tools make larger blocks than are passed on here.
BLOCK_BYTES_MAX = 2 << 20
BLOCKS_MAX = 1 << 20
_ID_BYTES = 36


@dataclass(frozen=True, slots=True)
class UnixfsCar:
    """An archive that was read through once; every block of it was the one that its id names."""

    path: Path
    root: UnixfsId
    # Where the bytes of each block begin in the file, and how many they are.
    places: dict[ContentId, tuple[int, int]]

    def blocks(self, ids: Iterable[UnixfsId]) -> Iterator[bytes]:
        """The bytes of each of these, in order.

        Malformed for one that is not there, InputError if the file has changed since.
        """
        with reading(self.path) as file:
            for block_id in ids:
                place = self.places.get(block_id.block)
                if place is None:
                    raise Malformed(f"it lacks the block {block_id}")
                file.seek(place[0])
                data = file.read(place[1])
                if not block_id.block.matches(data):
                    raise InputError(f"{self.path} changed while it was read", todo="read it again")
                yield data


def open_unixfs_car(path: Path) -> UnixfsCar:
    """Read an archive through; InputError that says what is wrong with it."""
    places: dict[ContentId, tuple[int, int]] = {}
    try:
        # What is no file, as a pipe, may have no end, or never begin.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise Malformed("it is a pipe or a device, and no file")
        with reading(path) as file:
            root = UnixfsId(read_root(file.read))
            for number, data in read_sections(file.read, _ID_BYTES + BLOCK_BYTES_MAX):
                block = _block_of(number, data)
                places[block] = (file.tell() - len(data) + _ID_BYTES, len(data) - _ID_BYTES)
                if len(places) > BLOCKS_MAX:
                    raise Oversize(f"it has more than {BLOCKS_MAX} blocks")
            if root.block not in places:
                raise Malformed(f"the block {root}, which is its root, is missing")
    except WireError as error:
        raise InputError(
            f"{path} is not an archive of a file or folder: {error.message}",
            todo=error.todo
            or "get it again, if it is one: CAR archives of version 1 are read, with one root and"
            " ids of version 1 (ipfs add --cid-version 1); a receipt's bundle is for"
            " python -m node receipts import",
        ) from error
    return UnixfsCar(path, root, places)


def _block_of(number: int, data: bytes) -> ContentId:
    try:
        block_id = UnixfsId(data[:_ID_BYTES])
    except Malformed as error:
        raise Malformed(f"block {number}: {error.message}") from error
    if not block_id.block.matches(memoryview(data)[_ID_BYTES:]):
        raise Malformed(f"block {number} is not the one that {block_id} names")
    return block_id.block
