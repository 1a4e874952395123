"""CAR archives: what goes out comes in the same, and what a hostile one may hold."""

import base64
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.local.archive_in import look_into
from store import unixfs_car
from store.unixfs_car import BLOCK_BYTES_MAX, open_unixfs_car
from tests.local.folders import contents, write_folder
from tests.local.test_folders import Peer, alone, peers, unheard
from wire import limits, unixfs_shards
from wire.car import header_of, section
from wire.content import ContentId
from wire.errors import BatonError, InputError
from wire.unixfs import Link, UnixfsBlock, UnixfsId, UnixfsNode, file_id, node_block

BLOCK = limits.BLOCK_BYTES_MAX
LARGE = Random(4).randbytes(3 * BLOCK + 5)
# What npm's ipfs-car 3.1 makes of a folder: leaves before nodes, and a block of two files twice.
FROM_IPFS_CAR = base64.b64decode(
    "OqJlcm9vdHOB2CpYJQABcBIg9pp24pgd53ZDI7SzLwgEAJQTMJqOsoEX+K+dk3jwX8pndmVyc2lvbgEtAVUSIJlkIcrd"
    "bGhQM1vE4cRR3WfV/VTEz9GdxbkzdOXoXryDanVzdCB0aGlzJAFVEiDjsMRCmPwcFJr79MiZb7kkJ65B5GSbk0yklZkb"
    "eFK4VS0BVRIgmWQhyt1saFAzW8ThxFHdZ9X9VMTP0Z3FuTN05ehevINqdXN0IHRoaXMlAVUSIC1xFkK3JrBEAWJ8qfus"
    "MvXIUw+xkDzE2wIlhxeSGkiBeIoBAXASIFAYwHyGgz2ciDKCPmmMheB21inbFHgterhiW1cdas0FEi4KJAFVEiCZZCHK"
    "3WxoUDNbxOHEUd1n1f1UxM/RncW5M3Tl6F68gxIEc2FtZRgJEjAKJAFVEiAtcRZCtyawRAFifKn7rDL1yFMPsZA8xNsC"
    "JYcXkhpIgRIGw6kuYmluGAEKAggBuQEBcBIg9pp24pgd53ZDI7SzLwgEAJQTMJqOsoEX+K+dk3jwX8oSLwokAVUSIJlk"
    "IcrdbGhQM1vE4cRR3WfV/VTEz9GdxbkzdOXoXryDEgVhLnR4dBgJEi8KJAFVEiDjsMRCmPwcFJr79MiZb7kkJ65B5GSb"
    "k0yklZkbeFK4VRIFZW1wdHkYABItCiQBcBIgUBjAfIaDPZyIMoI+aYyF4HbWKdsUeC16uGJbVx1qzQUSA3N1YhhwCgII"
    "AQ=="
)
FROM_IPFS_CAR_ID = "bafybeihwtj3ofga5453egi5uwmxqqbaasqjtbguowkarp6fptwjxr4c7zi"
FROM_IPFS_CAR_FILES = {
    "a.txt": b"just this",
    "empty": b"",
    "sub": None,
    "sub/same": b"just this",
    "sub/é.bin": b"x",
}


async def export(peer: Peer, root: object, path: Path) -> dict[str, Any]:
    arguments = {"id": str(root), "path": str(path), "deadline_s": 600}
    return await peer.commands.export_content(arguments, unheard)


async def take(peer: Peer, path: Path) -> dict[str, Any]:
    return await peer.commands.import_content({"path": str(path)}, unheard)


async def test_what_goes_out_comes_in_the_same(tmp_path: Path) -> None:
    folder, car = write_folder(tmp_path / "in"), tmp_path / "x.car"
    (tmp_path / "large").write_bytes(LARGE)
    (tmp_path / "small").write_bytes(b"small")
    async with peers(tmp_path, 2) as (maker, other), alone(tmp_path / "alone") as stranger:
        root = (await maker.put(folder))["id"]
        large = (await maker.commands.put({"path": str(tmp_path / "large")}, unheard))["id"]
        small = (await maker.commands.put({"path": str(tmp_path / "small")}, unheard))["id"]
        assert large == str(file_id(LARGE))
        for content in (root, large, small):
            # A peer that has none of it brings it from the other first.
            told = await export(other, content, car)
            assert told["archive_bytes"] == car.stat().st_size
            found = await take(stranger, car)
            assert (found["id"], found["root"]) == (content, content)
            assert found["size_bytes"] == told["size_bytes"]
        assert found["files"] == 1
        place = tmp_path / "out"
        await stranger.get(root, place)
        assert contents(place) == contents(folder)
        told = await stranger.get(large, tmp_path / "file")
        assert not told["is_folder"]
        assert (tmp_path / "file").read_bytes() == LARGE
        assert await stranger.store.get(ContentId.parse(small)) == b"small"
        # Kept as what was put here is: nothing is left pinned once it is removed.
        for content in (root, large, small):
            assert (await stranger.commands.remove({"id": content}, unheard))["released_bytes"]
        assert not stranger.store.pins()


async def test_a_large_file_replaces_what_is_there_once_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "file"
    (tmp_path / "in").write_bytes(LARGE)
    async with alone(tmp_path) as peer:
        root = (await peer.commands.put({"path": str(tmp_path / "in")}, unheard))["id"]
        for before in (b"other", bytes(len(LARGE)), LARGE):
            place.write_bytes(before)
            await peer.get(root, place)
            assert place.read_bytes() == LARGE
        # A folder has no place where one file is wanted.
        folder = (await peer.put(write_folder(tmp_path / "folder")))["id"]
        arguments = {"id": folder, "path": str(place), "only_file": True}
        with pytest.raises(InputError, match="is a folder"):
            await peer.commands.get_folder(arguments, unheard)
        assert place.read_bytes() == LARGE
        assert not list(tmp_path.glob(".*"))


async def test_what_ipfs_car_made_is_kept_under_its_id(tmp_path: Path) -> None:
    car = tmp_path / "x.car"
    car.write_bytes(FROM_IPFS_CAR)
    async with alone(tmp_path) as peer:
        found = await take(peer, car)
        assert (found["id"], found["files"]) == (FROM_IPFS_CAR_ID, 4)
        await peer.get(found["id"], tmp_path / "out")
        assert contents(tmp_path / "out") == FROM_IPFS_CAR_FILES
        assert (await peer.put(tmp_path / "out"))["id"] == FROM_IPFS_CAR_ID


async def test_sharded_folders_go_out_and_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unixfs_shards, "NODE_BYTES_MAX", 500)
    names = [f"a/{number:03}.txt" for number in range(150)]
    folder = write_folder(tmp_path / "in", {name: name.encode() for name in names})
    car = tmp_path / "x.car"
    async with alone(tmp_path) as peer, alone(tmp_path / "other") as other:
        root = (await peer.put(folder))["id"]
        await export(peer, root, car)
        assert (await take(other, car))["id"] == root
        await other.get(root, tmp_path / "out")
        assert contents(tmp_path / "out") == contents(folder)
        assert await other.commands.remove({"id": root}, unheard)
        assert not other.store.pins()


def leaf(data: bytes) -> UnixfsBlock:
    return UnixfsBlock(UnixfsId.of_leaf(data), data)


def file_of(*leaves: UnixfsBlock) -> tuple[UnixfsBlock, Link]:
    links = tuple(Link(b"", it.id, len(it.data)) for it in leaves)
    return node_block(UnixfsNode(links, tuple(len(it.data) for it in leaves)))


def folder_of(**entries: Link) -> UnixfsBlock:
    links = tuple(
        Link(name.encode(), link.id, link.tree_bytes) for name, link in sorted(entries.items())
    )
    return node_block(UnixfsNode(links, None))[0]


def written(path: Path, root: UnixfsId, *blocks: UnixfsBlock, rest: bytes = b"") -> Path:
    sections = [section(it.id, it.data) for it in blocks]
    path.write_bytes(b"".join([header_of(root), *sections, rest]))
    return path


async def test_larger_pieces_of_other_tools_are_cut_again(tmp_path: Path) -> None:
    pieces = [Random(it).randbytes(1_000_000) for it in range(3)]
    leaves = [leaf(it) for it in pieces]
    node, link = file_of(*leaves)
    small = leaf(b"small")
    top = folder_of(large=link, small=Link(b"", small.id, 5))
    car = written(tmp_path / "x.car", top.id, top, small, *leaves, node)
    async with alone(tmp_path) as peer:
        found = await take(peer, car)
        assert found["root"] == str(top.id) != found["id"]
        await peer.get(found["id"], tmp_path / "out")
        assert contents(tmp_path / "out") == {"large": b"".join(pieces), "small": b"small"}
        # It is what publishing the folder gives.
        assert (await peer.put(tmp_path / "out"))["id"] == found["id"]
        # A file of one such piece alone.
        found = await take(peer, written(car, leaves[0].id, leaves[0]))
        assert found["id"] == str(file_id(pieces[0]))


LEAF = leaf(b"just this")
NODE, FILE = file_of(LEAF, leaf(b"more"))
NAMED = folder_of(a=FILE)


def car_of(*blocks: UnixfsBlock, rest: bytes = b"") -> bytes:
    """An archive whose root is the first of these."""
    sections = b"".join(section(it.id, it.data) for it in blocks)
    return header_of(blocks[0].id) + sections + rest


def wrong_name(name: bytes) -> bytes:
    node, _ = node_block(UnixfsNode((Link(name, LEAF.id, 9),), None))
    return car_of(node, LEAF)


def twice() -> bytes:
    link = Link(b"a", LEAF.id, 9)
    return car_of(node_block(UnixfsNode((link, link), None))[0], LEAF)


def cycle() -> bytes:
    """A folder that says to be in itself; its id cannot be that of its bytes."""
    inner = UnixfsId.of_node(b"itself")
    node = node_block(UnixfsNode((Link(b"a", inner, 9),), None))[0]
    return car_of(UnixfsBlock(inner, node.data))


def wrong_size(size_bytes: int) -> bytes:
    return car_of(folder_of(a=Link(b"", LEAF.id, size_bytes)), LEAF)


def two_roots() -> bytes:
    return b"\x11\xa2\x65roots\x80\x67version\x01" + section(LEAF.id, LEAF.data)


def version_0() -> bytes:
    return section(LEAF.id[2:], LEAF.data)


WHOLE = car_of(NAMED, NODE, LEAF, leaf(b"more"))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "no archive": (b"PK\x03\x04" + bytes(64), "one root"),
    "cut in the header": (WHOLE[:20], "one root"),
    "cut in a block": (WHOLE[:-3], "ends within block 4"),
    "cut in a length": (WHOLE + b"\x80", "within a length"),
    "a block too few": (car_of(NAMED, NODE, LEAF), "lacks the block"),
    "a node too few": (car_of(NAMED, LEAF), "lacks the block"),
    "no root": (header_of(NAMED.id) + section(LEAF.id, LEAF.data), "its root, is missing"),
    "other bytes": (car_of(NAMED, UnixfsBlock(NODE.id, NODE.data + b"x")), "is not the one"),
    "a cycle": (cycle(), "is not the one"),
    "10 GB claimed": (WHOLE + b"\x80\x90\xdf\xc0\x4a" + bytes(99), "claims 20"),
    "a length without an end": (WHOLE + b"\xff" * 99, "more than 9 bytes"),
    "a length in two bytes": (WHOLE + b"\x81\x00x", "shortest form"),
    "up": (wrong_name(b".."), "not the name"),
    "a path": (wrong_name(b"a/b"), "not the name"),
    "the root of the disk": (wrong_name(b"/"), "not the name"),
    "a zero byte": (wrong_name(b"a\0b"), "not the name"),
    "no name": (wrong_name(b""), "not the name"),
    "a name twice": (twice(), "twice"),
    "a larger size": (wrong_size(10), "9 bytes where 10 were named"),
    "a size of 10 GB": (wrong_size(10_000_000_000), "at most"),
    "no roots": (two_roots(), "one root"),
    "ids of version 0": (header_of(LEAF.id) + version_0(), "version 1"),
    "a tree of ours": (
        header_of(LEAF.id) + section(ContentId.of_tree(b"x"), b"x"),
        "receipts import",
    ),
    "a leaf of 3 MB": (car_of(leaf(bytes(3_000_000))), f"at most {BLOCK_BYTES_MAX + 36}"),
    "data in a node": (
        car_of(UnixfsBlock(UnixfsId.of_node(data := b"\x0a\x07\x08\x02\x12\x01x\x18\x01"), data)),
        "raw leaves",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_archives_are_refused_and_nothing_is_kept(tmp_path: Path, name: str) -> None:
    data, words = HOSTILE[name]
    car = tmp_path / "x.car"
    car.write_bytes(data)
    with pytest.raises(InputError) as caught:
        look_into(car)
    assert words in f"{caught.value.message} {caught.value.todo}"
    assert str(car) in caught.value.message
    assert caught.value.todo


def test_what_no_reader_needs_may_be_wrong(tmp_path: Path) -> None:
    """Blocks twice, blocks of nobody, and sizes of whole trees, which no tool compares."""
    top = folder_of(a=Link(b"", NODE.id, 1 << 60))
    car = written(
        tmp_path / "x.car", top.id, LEAF, LEAF, leaf(b"x"), NODE, top, leaf(b"more"), NODE
    )
    found = look_into(car)
    assert [(it.names, it.size_bytes) for it in found.entries] == [((), None), (("a",), 13)]
    assert look_into(written(car, top.id, top, NODE, LEAF, leaf(b"more"))).files == 1
    # All of what any prefix says is judged, and none gives more than the whole has.
    for end in range(0, len(WHOLE), 13):
        car.write_bytes(WHOLE[:end])
        with pytest.raises(InputError):
            look_into(car)
    chance = Random(15)
    for _ in range(100):
        data = bytearray(WHOLE)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        car.write_bytes(data)
        try:
            found = look_into(car)
        except InputError:
            continue
        assert found.car.root == NAMED.id, "a bit that changes the root changes what is missing"


def test_a_small_archive_that_stands_for_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FOLDER_ENTRIES_MAX", 5000)
    blocks, link = [LEAF], Link(b"", LEAF.id, 9)
    for _ in range(6):
        node, link = node_block(
            UnixfsNode(
                tuple(Link(b"%02d" % it, link.id, link.tree_bytes) for it in range(64)), None
            )
        )
        blocks.append(node)
    with pytest.raises(InputError, match="more than 5000 entries"):
        look_into(written(tmp_path / "x.car", blocks[-1].id, *blocks))


def test_more_blocks_than_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unixfs_car, "BLOCKS_MAX", 3)
    car = tmp_path / "x.car"
    car.write_bytes(WHOLE)
    with pytest.raises(InputError, match="more than 3 blocks"):
        open_unixfs_car(car)


async def test_what_cannot_go_out_or_come_in_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    car = tmp_path / "x.car"
    car.write_bytes(b"mine")
    async with alone(tmp_path, 1 << 20) as peer:
        for content, words in (
            (UnixfsId.of_node(b"never published"), "not whole"),
            (UnixfsId.of_leaf(b"never published"), "nobody"),
            (ContentId.of_tree(b"an older one"), "earlier version"),
            ("bafy", "not the id"),
            (None, "not the id"),
        ):
            with pytest.raises(BatonError, match=words):
                await export(peer, content, car)
        root = (await peer.put(write_folder(tmp_path / "in", {"a": b"1"})))["id"]
        for place in (tmp_path / "no" / "x.car", tmp_path):
            with pytest.raises(InputError, match="cannot be written"):
                await export(peer, root, place)
        assert car.read_bytes() == b"mine"
        assert not list(tmp_path.glob(".*"))
        pins, blocks = peer.store.pins(), peer.store.statistics().blocks
        cannot = "cannot be read"
        for path, words in ((car, "one root"), (tmp_path, cannot), (tmp_path / "no", cannot)):
            with pytest.raises(InputError, match=words):
                await take(peer, path)
        # It changes between the looking and the keeping.
        car.write_bytes(WHOLE)
        found = look_into(car)
        car.write_bytes(WHOLE[:-4] + b"MORE")
        monkeypatch.setattr("node.local.content_commands.look_into", lambda _: found)
        with pytest.raises(InputError, match="changed while"):
            await take(peer, car)
        assert peer.store.pins() == pins
        assert peer.store.statistics().blocks <= blocks + 4


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    """To open one waits for whoever writes to it, in a thread that nobody can end."""
    os.mkfifo(pipe := tmp_path / "pipe")
    # Opened for both, so that the wait would have an end.
    with os.fdopen(os.open(pipe, os.O_RDWR), "wb", buffering=0) as writer:
        writer.write(header_of(UnixfsId.of_leaf(b"")) + b"\xff" * 9)
        with pytest.raises(InputError, match="it is a pipe or a device"):
            open_unixfs_car(pipe)
