"""Folders between peers: bit for bit, resumed, only what changed; and what a liar may publish."""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import disk_usage
from typing import Any

import pytest

from node.local.content_commands import ContentCommands
from node.peer import Node
from store import open_memory_store
from tests.local.folders import FILES, contents, keep_leaf, keep_node, write_folder
from tests.node.network import S, open_network
from wire import limits
from wire.content import ContentId
from wire.errors import BatonError, InputError, Missing, StoreFull, WireError
from wire.unixfs import Link, UnixfsId

BLOCK = limits.BLOCK_BYTES_MAX
Event = Callable[[Any], None]


def unheard(event: Any) -> None:
    """Nobody looks at the progress."""


class Peer:
    """One peer and its commands."""

    def __init__(self, node: Node) -> None:
        self.store = node.dependencies.store
        self.commands = ContentCommands(node)

    async def put(self, folder: Path, heard: Event = unheard) -> dict[str, Any]:
        return await self.commands.put_folder({"path": str(folder)}, heard)

    async def get(self, root: object, place: Path, heard: Event = unheard) -> dict[str, Any]:
        arguments = {"id": str(root), "path": str(place), "deadline_s": 600}
        return await self.commands.get_folder(arguments, heard)


@asynccontextmanager
async def peers(folder: Path, count: int) -> AsyncIterator[list[Peer]]:
    """Peers that know each other, on the clock of this machine: folders are read in threads."""
    async with open_network(folder / "network") as network:
        nodes = [await network.add(S) for _ in range(count)]
        await network.settled(within_s=120)
        yield [Peer(it) for it in nodes]


@asynccontextmanager
async def alone(folder: Path, quota_bytes: int = 1 << 28) -> AsyncIterator[Peer]:
    async with (
        open_network(folder / "network") as network,
        open_memory_store(quota_bytes=quota_bytes) as store,
    ):
        yield Peer(await network.add(S, store=store))


async def test_a_folder_comes_back_bit_for_bit_from_other_peers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    size_bytes = sum(map(len, FILES.values()))
    async with peers(tmp_path, 3) as (maker, first, second):
        heard: list[Any] = []
        published = await maker.put(folder, heard.append)
        assert (published["files"], published["size_bytes"]) == (len(FILES), size_bytes)
        assert heard[-1]["done_bytes"] == heard[-1]["size_bytes"] == size_bytes
        place, heard = tmp_path / "out", []
        found = await first.get(published["id"], place, heard.append)
        assert contents(place) == contents(folder)
        assert (found["files"], found["files_there_before"]) == (len(FILES), 0)
        assert heard[-1]["done_bytes"] == heard[-1]["size_bytes"] == size_bytes
        assert found["received_bytes"] > size_bytes - len("just this")
        # A file without its folder, and the same again from several.
        await second.get(published["id"], tmp_path / "again")
        assert contents(tmp_path / "again") == contents(folder)
        # It is the same folder for whoever publishes it.
        assert (await second.put(place))["id"] == published["id"]


async def test_what_came_from_others_is_written_without_being_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "in")
    async with peers(tmp_path, 2) as (maker, taker):
        root = (await maker.put(folder))["id"]
        read: list[ContentId] = []
        get_blocks = taker.store.get_blocks

        async def noted(blocks: Sequence[ContentId]) -> list[bytes]:
            read.extend(blocks)
            return await get_blocks(blocks)

        monkeypatch.setattr(taker.store, "get_blocks", noted)
        await taker.get(root, tmp_path / "out")
        assert contents(tmp_path / "out") == contents(folder)
        assert ContentId.of(FILES["small.txt"]) not in read
        # What is here already is read, for another place.
        await taker.get(root, tmp_path / "again")
        assert contents(tmp_path / "again") == contents(folder)
        assert ContentId.of(FILES["small.txt"]) in read


async def test_publishing_again_stores_only_what_changed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    async with alone(tmp_path) as peer:
        first = await peer.put(folder)
        assert first["stored_bytes"] > first["size_bytes"] - len("just this")
        assert (await peer.put(folder)) == {**first, "stored_bytes": 0}
        with (folder / "sub" / "large.bin").open("r+b") as file:
            file.seek(BLOCK + 5)
            file.write(b"changed")
        again = await peer.put(folder)
        assert again["id"] != first["id"]
        # One piece, and the nodes above it.
        assert BLOCK < again["stored_bytes"] < BLOCK + 2000
        await peer.get(first["id"], tmp_path / "old")
        assert contents(tmp_path / "old")["sub/large.bin"] == FILES["sub/large.bin"]


async def test_fetching_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    async with peers(tmp_path, 2) as (maker, taker):
        root = (await maker.put(folder))["id"]
        place = write_folder(tmp_path / "out", {"small.txt": b"just this"})
        left_over = place / f".{root[-24:]}.1.part"
        left_over.write_bytes(b"of a process that was killed")
        found = await taker.get(root, place)
        assert found["files_there_before"] == 1
        assert contents(place) == contents(folder)
        again = await taker.get(root, place)
        assert (again["files_there_before"], again["received_bytes"]) == (len(FILES), 0)


@pytest.mark.parametrize("kind", ["file", "same size", "link", "folder"])
async def test_what_is_in_the_way_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "in", {"a": b"1234", "b/c": b"5"})
    place, outside = tmp_path / "out", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    match kind:
        case "file":
            (place / "b").write_bytes(b"mine")
        case "same size":
            (place / "a").write_bytes(b"mine")
        case "link":
            (place / "b").symlink_to(outside)
        case _:
            (place / "a").mkdir()
    before = contents(place)
    async with alone(tmp_path) as peer:
        root = (await peer.put(folder))["id"]
        with pytest.raises(InputError, match="something else"):
            await peer.get(root, place)
        assert not list(outside.iterdir())
        assert before.items() <= contents(place).items()
        assert not list(place.glob(".*.part"))


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        (b"link", make_link, "a symbolic link"),
        (b"pipe", os.mkfifo, "no file and no folder"),
        (b"caf\xe9", Path.touch, "UTF-8"),
    ],
)
async def test_what_is_no_file_is_refused_by_name(
    tmp_path: Path, name: bytes, make: Callable[[Path], None], words: str
) -> None:
    folder = write_folder(tmp_path / "in")
    make(folder / "sub" / os.fsdecode(name))
    async with alone(tmp_path) as peer:
        with pytest.raises(InputError, match=words) as caught:
            await peer.put(folder)
        assert name.decode(errors="ignore") in caught.value.message
        assert not peer.store.pins()


async def test_what_is_no_folder_of_the_owner_s_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"peer/{it}": b"x" for it in ("key", "lock", "version")})
    (tmp_path / "file").touch()
    async with alone(tmp_path) as peer:
        for path, words in (
            (tmp_path / "in", "secret key"),
            (Path("/"), "whole machine"),
            (tmp_path / "file", "not a folder"),
            (tmp_path / "nothing", "cannot be read"),
        ):
            with pytest.raises(InputError, match=words):
                await peer.put(path)


async def test_folders_too_deep_are_refused(tmp_path: Path) -> None:
    deep = tmp_path / "in" / "/".join("d" * limits.FOLDER_DEPTH_MAX)
    deep.mkdir(parents=True)
    async with alone(tmp_path) as peer:
        with pytest.raises(InputError, match="inside each other"):
            await peer.put(tmp_path / "in")
        deep.rmdir()
        await peer.get((await peer.put(tmp_path / "in"))["id"], tmp_path / "out")
        assert contents(tmp_path / "out") == contents(tmp_path / "in")


async def test_a_folder_that_changes_or_does_not_fit_leaves_nothing_pinned(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    async with alone(tmp_path, 1 << 20) as peer:

        def change(event: Any) -> None:
            (folder / "sub" / "large.bin").write_bytes(b"shorter")

        with pytest.raises(StoreFull):
            await peer.put(folder)
        assert not peer.store.pins()
        large = write_folder(tmp_path / "two", {f"{it:04}": b"x" for it in range(1200)})
        (large / "zz").write_bytes(b"before")

        def grow(event: Any) -> None:
            (large / "zz").write_bytes(b"longer than before")

        with pytest.raises(InputError, match="changed while"):
            await peer.put(large, grow)
        assert not peer.store.pins()
        change(None)
        assert (await peer.put(folder))["files"] == len(FILES)


async def test_nothing_of_a_folder_that_nobody_has_is_made(tmp_path: Path) -> None:
    async with peers(tmp_path, 2) as (maker, taker):
        root = (await maker.put(write_folder(tmp_path / "in", {"a": b"1"})))["id"]
        nowhere = UnixfsId.of_node(b"never published")
        for wanted, error in ((nowhere, Missing), ("bafk", InputError), (None, InputError)):
            with pytest.raises(error):
                await taker.get(wanted, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        with pytest.raises(InputError, match="cannot be written"):
            await taker.get(root, tmp_path / "no" / "such" / "place")


async def _named(peer: Peer, name: bytes) -> UnixfsId:
    return await keep_node(peer.store, [Link(name, await keep_leaf(peer.store, b"x"), 1)], None)


async def _up(peer: Peer) -> UnixfsId:
    return await _named(peer, b"../outside")


async def _absolute(peer: Peer) -> UnixfsId:
    return await _named(peer, b"/outside")


async def _zero(peer: Peer) -> UnixfsId:
    return await _named(peer, b"a\0b")


async def _twice(peer: Peer) -> UnixfsId:
    link = Link(b"a", await keep_leaf(peer.store, b"x"), 1)
    return await keep_node(peer.store, [link, link], None)


async def _leaf_size(peer: Peer) -> UnixfsId:
    link = Link(b"a", await keep_leaf(peer.store, b"x"), 2)
    return await keep_node(peer.store, [link], None)


async def _huge_leaf(peer: Peer) -> UnixfsId:
    link = Link(b"a", await keep_leaf(peer.store, b"x"), 10 << 30)
    return await keep_node(peer.store, [link], None)


async def _part_size(peer: Peer) -> UnixfsId:
    part = await keep_node(peer.store, [Link(b"", await keep_leaf(peer.store, b"x"), 1)], (1,))
    file = await keep_node(peer.store, [Link(b"", part, 1)], (2,))
    return await keep_node(peer.store, [Link(b"a", file, 1)], None)


async def _folder_in_file(peer: Peer) -> UnixfsId:
    file = await keep_node(peer.store, [Link(b"", await _named(peer, b"a"), 1)], (1,))
    return await keep_node(peer.store, [Link(b"a", file, 1)], None)


async def _link_node(peer: Peer) -> UnixfsId:
    data = b"\x0a\x0e\x08\x04\x12\x0a../outside"
    await peer.store.put(data)
    return await keep_node(peer.store, [Link(b"a", UnixfsId.of_node(data), 1)], None)


async def _multiplied(peer: Peer, rows: int) -> UnixfsId:
    """A few nodes that stand for 64 to the power of so many entries."""
    child = await _named(peer, b"a")
    for _ in range(rows):
        links = [Link(b"%02d" % it, child, 1) for it in range(64)]
        child = await keep_node(peer.store, links, None)
    return child


async def _too_many(peer: Peer) -> UnixfsId:
    return await _multiplied(peer, 6)


async def _too_deep(peer: Peer) -> UnixfsId:
    child = await _named(peer, b"a")
    for _ in range(limits.FOLDER_DEPTH_MAX):
        child = await keep_node(peer.store, [Link(b"d", child, 1)], None)
    return child


async def _too_large(peer: Peer) -> UnixfsId:
    child, size_bytes = await keep_leaf(peer.store, bytes(BLOCK)), BLOCK
    for _ in range(3):
        links, sizes = [Link(b"", child, 1)] * 600, (size_bytes,) * 600
        child, size_bytes = await keep_node(peer.store, links, sizes), sum(sizes)
    return await keep_node(peer.store, [Link(b"a", child, 1)], None)


async def _too_large_for_the_disk(peer: Peer) -> UnixfsId:
    child, size_bytes = await keep_leaf(peer.store, bytes(BLOCK)), BLOCK
    for _ in range(2):
        links, sizes = [Link(b"", child, 1)] * 2000, (size_bytes,) * 2000
        child, size_bytes = await keep_node(peer.store, links, sizes), sum(sizes)
    return await keep_node(peer.store, [Link(b"a", child, 1)], None)


LIES = [_up, _absolute, _zero, _twice, _leaf_size, _huge_leaf, _part_size, _folder_in_file]
BOMBS = [_link_node, _too_many, _too_deep, _too_large, _too_large_for_the_disk]


@pytest.mark.parametrize("make", [*LIES, *BOMBS], ids=lambda it: it.__name__.strip("_"))
async def test_no_published_folder_leads_outside_or_fills_the_disk(
    tmp_path: Path, make: Callable[[Peer], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk is smaller than what a small tree can stand for, whatever disk the test has.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk_usage(path)._replace(free=1 << 38))
    monkeypatch.setattr(limits, "FOLDER_ENTRIES_MAX", 5000)
    async with alone(tmp_path) as peer:
        root = await make(peer)
        before = {it for it in tmp_path.rglob("*") if "out" not in it.parts}
        with pytest.raises(BatonError) as caught:
            await peer.get(root, tmp_path / "out")
        assert isinstance(caught.value, WireError | StoreFull)
        assert caught.value.todo or "name" in caught.value.message
        after = {it for it in tmp_path.rglob("*") if "out" not in it.parts}
        assert after - before <= {tmp_path / "out"}
        assert not [it for it in (tmp_path / "out").rglob("*") if it.is_file()]
