"""Published content as a source: what its id names, and nothing that its maker could add."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.checking.report import Status
from node.ingest.bring import Brought
from node.ingest.dataset import DATASET_S_MAX, GetContent, bring_dataset, unpacked
from node.ingest.local_files import FILE_BYTES_MAX
from node.ingest.source_file import read_source
from node.local.folder_put import FolderPut
from store import Store, open_memory_store
from tests.ingest.servers import MadeUpNetwork
from tests.ingest.test_attested import Kept, data_peer_of, fetched, kept_of, points
from tests.local.folders import keep_leaf, keep_node, write_folder
from tests.node.network import Network, S, open_network
from wire.codec import pack
from wire.content import ContentId
from wire.errors import InputError, Malformed, Oversize, TooSlow, WireError
from wire.tree import name_of
from wire.unixfs import Link, UnixfsId, UnixfsNode, file_id

CSV = b"t,price\n1,1.5\n2,2.5\n"
LARGE = b"n\n" + (b"1" * 5999 + b"\n") * 100
FILES = {"prices.csv": CSV, "deep/down/large.csv": LARGE, "deep/é.csv": CSV}
SOURCE = 'kind = "dataset"\ncontent = "{content}"\npath = "{path}"\nformat = "csv"\n'


async def published(store: Store, folder: Path) -> UnixfsId:
    found = await FolderPut(store).publish(write_folder(folder, FILES), lambda *_: None)
    return found.root


def of_store(store: Store) -> GetContent:
    async def get(content: ContentId, size_bytes_max: int) -> bytes:
        return await store.get(content, size_bytes_max=size_bytes_max)

    return get


async def test_a_file_is_found_by_its_id_or_in_its_folder(tmp_path: Path) -> None:
    async with open_memory_store(quota_bytes=1 << 26) as store:
        root = await published(store, tmp_path / "data")
        one, large = await store.put(CSV), await store.put(LARGE)
        get = of_store(store)
        assert (await bring_dataset(str(one), get)).body == CSV
        assert (await bring_dataset(str(large), get)).body == LARGE
        assert (await bring_dataset(str(file_id(LARGE)), get)).body == LARGE
        came = await bring_dataset(f"{root}/deep/down/large.csv", get)
        assert (came.body, len(unpacked(came.folders))) == (LARGE, 3)
        assert came.urls == (f"{root}/deep/down/large.csv",)
        for path, words in (
            ("", "is a folder"),
            ("/deep", "'deep' is a folder"),
            ("/nothing.csv", "there is no 'nothing.csv' in this folder"),
            ("/prices.csv/x", "through a file"),
            ("/deep/down/large.csv/x", "in a file"),
        ):
            with pytest.raises(InputError, match=words):
                await bring_dataset(f"{root}{path}", get)


@pytest.mark.parametrize(
    ("content", "path", "words"),
    [
        ("nonsense", "", "no content id"),
        (str(ContentId.of(CSV)), "a.csv", "is a file"),
        (str(UnixfsId.of_node(b"")), "../a", "not the name"),
        (str(UnixfsId.of_node(b"")), "/a", "not the name"),
        (str(UnixfsId.of_node(b"")), "a//b", "not the name"),
        (str(UnixfsId.of_node(b"")), "/".join("a" * 40), "40 folders"),
    ],
)
def test_a_place_that_is_none_is_refused(content: str, path: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_source(SOURCE.format(content=content, path=path))


async def test_a_maker_who_lies_about_sizes_is_found_out() -> None:
    async with open_memory_store(quota_bytes=1 << 26) as store:
        leaf = await keep_leaf(store, b"four")
        get = of_store(store)
        for size_bytes, kind, words in (
            (5, Malformed, "said to be 5"),
            (FILE_BYTES_MAX + 1, Oversize, "a file of"),
        ):
            lie = await keep_node(store, [Link(b"", leaf, 4)], (size_bytes,))
            with pytest.raises(kind, match=words):
                await bring_dataset(str(lie), get)
        deep = leaf
        for _ in range(20):
            deep = await keep_node(store, [Link(b"", deep, 4)], (4,))
        assert (await bring_dataset(str(deep), get)).body == b"four"
        wide = await keep_node(store, [Link(b"", leaf, 4)] * 2000, (4,) * 2000)
        wider = await keep_node(store, [Link(b"", wide, 8000)] * 3, (8000,) * 3)
        with pytest.raises(Oversize, match="pieces"):
            await bring_dataset(str(wider), get)
        bad = await store.put(b"no node")
        with pytest.raises(WireError):
            await bring_dataset(str(UnixfsId.of_node(b"no node")), get)
        assert bad


async def test_a_tree_of_nodes_that_name_much_is_not_read_into_memory() -> None:
    async with open_memory_store(quota_bytes=1 << 27) as store:
        leaf = await keep_leaf(store, b"1")
        # Each node has thousands of links, of which the first that is read leads to the next one.
        deep, size_bytes, read = leaf, 1, 0
        for _ in range(8):
            links = [Link(b"", deep, size_bytes), *[Link(b"", leaf, 1)] * 3000]
            deep = await keep_node(store, links, (size_bytes, *[1] * 3000))
            size_bytes += 3000
        get = of_store(store)

        async def counted(content: ContentId, size_bytes_max: int) -> bytes:
            nonlocal read
            read += 1
            return await get(content, size_bytes_max)

        with pytest.raises(Oversize, match="pieces"):
            await bring_dataset(str(deep), counted)
        assert read <= 3


async def test_content_that_comes_slowly_is_given_up(autojump_clock: MockClock) -> None:
    async with open_memory_store(quota_bytes=1 << 26) as store:
        leaf = await keep_leaf(store, b"four")
        wide = await keep_node(store, [Link(b"", leaf, 4)] * 2000, (4,) * 2000)
        get = of_store(store)

        async def slow(content: ContentId, size_bytes_max: int) -> bytes:
            await trio.sleep(14)
            return await get(content, size_bytes_max)

        begun_at_s = trio.current_time()
        with pytest.raises(TooSlow, match="did not come within"):
            await bring_dataset(str(wide), slow)
        assert trio.current_time() - begun_at_s <= DATASET_S_MAX


async def asked_of(
    network: Network, content: str, path: str, lie: Callable[[Brought], Brought] | None = None
) -> Kept:
    asker = await network.start(S)
    await data_peer_of(network, MadeUpNetwork(), lie)
    await network.settled()
    root = await published(asker.dependencies.store, network.folder / "data")
    record = read_source(SOURCE.format(content=content or root, path=path)).to_bytes()
    return await kept_of(asker, await fetched(asker, record=record))


@pytest.mark.parametrize(
    ("content", "path"),
    [("", "prices.csv"), ("", "deep/down/large.csv"), (str(file_id(LARGE)), "")],
)
async def test_whoever_checks_it_knows_that_it_is_that_content(
    autojump_clock: MockClock, tmp_path: Path, content: str, path: str
) -> None:
    async with open_network(tmp_path) as network:
        kept = await asked_of(network, content, path)
    report = await kept.report()
    assert report.holds
    assert "the published content that the source names" in points(report, Status.HOLDS)
    assert "told everybody the same" not in points(report, Status.UNKNOWN)


def another(brought: Brought) -> Brought:
    """Other bytes, with all that follows from them."""
    body = CSV + b"3,9.9\n"
    output = brought.output + b'["3","9.9"]\n'
    record = replace(
        brought.record, body=name_of(body), body_size_bytes=len(body), output=name_of(output)
    )
    return Brought(record, body, output)


def no_folders(brought: Brought) -> Brought:
    return replace(brought, record=replace(brought.record, folders=b""))


@pytest.mark.parametrize(
    ("content", "lie", "status"),
    [
        ("", another, Status.FAILS),
        (str(ContentId.of(CSV)), another, Status.FAILS),
        ("", no_folders, Status.UNKNOWN),
        (
            "",
            lambda it: replace(it, record=replace(it.record, folders=pack([b"no node"]))),
            Status.FAILS,
        ),
    ],
)
async def test_other_content_than_the_source_names_is_found(
    autojump_clock: MockClock,
    tmp_path: Path,
    content: str,
    lie: Callable[[Brought], Brought],
    status: Status,
) -> None:
    async with open_network(tmp_path) as network:
        path = "" if content else "prices.csv"
        if content:
            asker_has = await network.start(S)
            await asker_has.dependencies.store.put(CSV)
        kept = await asked_of(network, content, path, lie)
    assert "the published content that the source names" in points(await kept.report(), status)


async def test_nodes_of_strangers_are_not_read_on_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full one takes a tenth of a second and more, and a path may name hundreds of them."""
    files: dict[str, bytes | None] = {f"{number:04}": b"%d" % number for number in range(400)}
    on_loop: list[bool] = []
    read = UnixfsNode.from_bytes

    def noted(data: bytes, *size_bytes_max: int) -> UnixfsNode:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return read(data, *size_bytes_max)

    async with open_memory_store(quota_bytes=1 << 26) as store:
        put = FolderPut(store)
        published = await put.publish(write_folder(tmp_path / "in", files), lambda *_: None)
        monkeypatch.setattr(UnixfsNode, "from_bytes", noted)
        came = await bring_dataset(f"{published.root}/0007", of_store(store))
        assert came.body == b"7"
        assert (await put.tree_of(published.root)).counted_bytes > 400 * 4096
        await put.remove(published.root)
    assert len(on_loop) >= 3
    assert not any(on_loop)
