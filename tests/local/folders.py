"""Folders for tests of publishing: what is in one, and one made of blocks that nobody published."""

from collections.abc import Mapping
from pathlib import Path
from random import Random

from store import Store
from wire.unixfs import Link, UnixfsId, UnixfsNode

# Many kinds of names and sizes: empty, one block, several, and names that other systems refuse.
FILES = {
    "empty": b"",
    "small.txt": b"just this",
    "sub/deeper/same": b"just this",
    "sub/large.bin": Random(1).randbytes((1 << 20) + 77),
    "sub/é \n.bin": Random(2).randbytes(256 << 10),
    "-x": b"y",
}


def write_folder(top: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Make the folder, with one in it that is empty."""
    (top / "nothing").mkdir(parents=True)
    for name, data in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return top


def contents(top: Path) -> dict[str, bytes | None]:
    """Every path below a folder with its bytes; None for a folder."""
    return {
        path.relative_to(top).as_posix(): path.read_bytes() if path.is_file() else None
        for path in top.rglob("*")
    }


async def keep_node(store: Store, links: list[Link], sizes: tuple[int, ...] | None) -> UnixfsId:
    """Keep a node as its maker wants it, whether it can be read or not."""
    data = UnixfsNode(tuple(links), sizes).to_bytes()
    await store.put(data)
    return UnixfsId.of_node(data)


async def keep_leaf(store: Store, data: bytes) -> UnixfsId:
    """Keep a piece of a file."""
    await store.put(data)
    return UnixfsId.of_leaf(data)
