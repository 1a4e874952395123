"""What every store promises of content and records, asked of both: on disk and in memory."""

from pathlib import Path

import pytest
import trio
import trio.testing

from store import Pin, Row, Store, Table, Write, open_memory_store
from tests.store.samples import FULL, content
from wire import limits
from wire.content import ContentId
from wire.errors import (
    Corrupt,
    InputError,
    Malformed,
    Missing,
    Oversize,
)
from wire.tree import Block, TreeNode, split


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


@pytest.mark.parametrize("size_bytes", [0, 1, 1024, FULL - 1, FULL, FULL + 1, 5 * FULL, 9_000_000])
async def test_what_is_put_is_what_is_got(store: Store, size_bytes: int) -> None:
    data = content(size_bytes)
    content_id = await store.put(data)
    assert await store.get(content_id) == data
    assert await store.missing(content_id) == []
    assert content_id == list(split(data))[-1].id


async def test_a_missing_key_is_Missing_not_None(store: Store) -> None:
    for absent in (ContentId.of(b"nope"), ContentId.of_tree(b"nope")):
        assert not store.has(absent)
        with pytest.raises(Missing, match="fetch it from another peer"):
            await store.get(absent)
        with pytest.raises(Missing):
            await store.get_block(absent)


async def test_a_file_of_many_blocks_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    data = content(37 * FULL + 5)
    (tmp_path / "in").write_bytes(data)
    heard: list[int] = []
    content_id = await store.put_file(tmp_path / "in", heard.append)
    assert content_id == list(split(data))[-1].id
    assert heard == sorted(heard)
    assert heard[-1] == len(data)
    assert await store.export(content_id, tmp_path / "out") == len(data)
    assert (tmp_path / "out").read_bytes() == data
    assert not leftovers(tmp_path)


async def test_an_empty_file_is_an_empty_blob(store: Store, tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    assert await store.get(await store.put_file(tmp_path / "in")) == b""


async def test_a_file_that_cannot_be_read_or_written_is_the_users_error(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        await store.put_file(tmp_path / "nope")
    content_id = await store.put(b"x")
    with pytest.raises(InputError, match="cannot be written: No such file"):
        await store.export(content_id, tmp_path / "nope" / "out")


async def test_an_export_that_fails_leaves_the_old_file(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    blocks = list(split(content(20 * FULL)))
    for block in blocks[:17] + blocks[18:]:
        await store.put_block(block)
    with pytest.raises(Missing):
        await store.export(blocks[-1].id, target)
    with pytest.raises(Oversize):
        await store.export(blocks[-1].id, target, size_bytes_max=20 * FULL - 1)
    assert target.read_bytes() == b"old"
    assert not leftovers(tmp_path)


async def test_a_blob_above_what_was_allowed_is_Oversize_before_it_is_read(store: Store) -> None:
    small, large = await store.put(content(1000)), await store.put(content(3 * FULL))
    assert len(await store.get(small, size_bytes_max=1000)) == 1000
    assert len(await store.get(large, size_bytes_max=3 * FULL)) == 3 * FULL
    with pytest.raises(Oversize):
        await store.get(small, size_bytes_max=999)
    with pytest.raises(Oversize):
        await store.get(large, size_bytes_max=3 * FULL - 1)


async def test_a_block_that_lies_about_its_id_is_refused(store: Store) -> None:
    named = ContentId.of(b"true")
    with pytest.raises(Corrupt):
        await store.put_block(Block(named, b"false"))
    with pytest.raises(Malformed):
        await store.put_block(Block(ContentId.of_tree(b"no node"), b"no node"))
    large = bytes(FULL + 1)
    with pytest.raises(Oversize):
        await store.put_block(Block(ContentId.of(large), large))
    assert not store.has(named)
    assert store.statistics().blocks == 0


async def test_a_block_kept_twice_is_kept_once(store: Store) -> None:
    for _ in range(3):
        await store.put(b"twice")
    assert store.statistics().blocks == 1
    assert store.statistics().used_bytes == 5


async def test_what_is_missing_of_a_tree_is_told_nodes_first(store: Store) -> None:
    # Three rows: 4097 blocks are more than one node can name.
    leaves = [content(8, seed) * (FULL // 8) for seed in range(3)]
    row = [ContentId.of(leaf) for leaf in leaves]
    wide = TreeNode(4096 * FULL, tuple(row[n % 2] for n in range(4096))).to_bytes()
    last = TreeNode(FULL, (row[2],)).to_bytes()
    children = (ContentId.of_tree(wide), ContentId.of_tree(last))
    top = TreeNode(4097 * FULL, children).to_bytes()
    root = ContentId.of_tree(top)

    assert await store.missing(root) == [(root, 0)]
    await store.put_block(Block(root, top))
    assert await store.missing(root) == [(children[0], 4096 * FULL), (children[1], FULL)]
    await store.put_block(Block(children[1], last))
    assert await store.missing(root) == [(children[0], 4096 * FULL), (row[2], FULL)]
    await store.put_block(Block(children[0], wide))
    # Each once, although one is named two thousand times.
    assert sorted(await store.missing(root)) == sorted((leaf, FULL) for leaf in row)
    assert len(await store.missing(root, limit=2)) == 2
    for leaf in leaves:
        await store.put_block(Block(ContentId.of(leaf), leaf))
    assert await store.missing(root) == []


async def test_a_tree_that_lies_about_sizes_is_Malformed_not_served(store: Store) -> None:
    leaf = await store.put(content(100))
    lie = TreeNode(200, (leaf,)).to_bytes()
    root = ContentId.of_tree(lie)
    await store.put_block(Block(root, lie))
    with pytest.raises(Malformed, match="100 bytes where the tree above says 200"):
        await store.get(root)


async def test_a_node_that_lies_about_its_size_to_its_parent_is_Malformed(store: Store) -> None:
    leaf = await store.put(content(100))
    node = TreeNode(100, (leaf,)).to_bytes()
    child = ContentId.of_tree(node)
    lie = TreeNode(FULL, (child,)).to_bytes()
    root = ContentId.of_tree(lie)
    await store.put_block(Block(child, node))
    await store.put_block(Block(root, lie))
    with pytest.raises(Malformed, match=f"100 bytes where the tree above says {FULL}"):
        await store.get(root)
    with pytest.raises(Malformed, match="nobody can read this blob"):
        await store.missing(root)


async def test_a_tree_that_goes_on_downwards_is_Malformed(store: Store) -> None:
    child = await store.put(content(100))
    for _ in range(limits.TREE_DEPTH_MAX + 1):
        node = TreeNode(100, (child,)).to_bytes()
        child = ContentId.of_tree(node)
        await store.put_block(Block(child, node))
    with pytest.raises(Malformed, match="deeper"):
        await store.get(child)
    with pytest.raises(Malformed, match="deeper"):
        await store.missing(child)


async def test_many_may_put_and_get_at_once(store: Store) -> None:
    async def one(number: int) -> None:
        data = content(2000, number)
        content_id = await store.put(data)
        assert await store.get(content_id) == data
        await store.write(Table.JOBS, str(number).encode(), content_id)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(one, number)
    assert store.statistics().blocks == 200
    assert len(store.scan(Table.JOBS)) == 200


async def test_a_record_is_kept_replaced_and_forgotten(store: Store) -> None:
    assert store.read(Table.JOBS, b"k") is None
    await store.write(Table.JOBS, b"k", b"1")
    await store.write(Table.JOBS, b"k", b"")
    assert store.read(Table.JOBS, b"k") == b""
    assert store.read(Table.PEERS, b"k") is None
    several = [(Table.PEERS, b"k"), (Table.JOBS, b"k"), (Table.JOBS, b"l"), (Table.JOBS, b"k")]
    assert store.read_each(several) == [None, b"", None, b""]
    assert store.read_each([]) == []
    await store.write(Table.JOBS, b"k", None)
    await store.write(Table.JOBS, b"k", None)
    assert store.read(Table.JOBS, b"k") is None


async def test_a_scan_is_in_order_bounded_and_by_prefix(store: Store) -> None:
    keys = [b"a", b"b\x00", b"b\x01", b"b\xff\xff", b"c"]
    await store.commit(Write(rows=tuple(Row(Table.JOURNAL, key, key) for key in reversed(keys))))
    assert [key for key, _ in store.scan(Table.JOURNAL)] == keys
    assert [key for key, _ in store.scan(Table.JOURNAL, prefix=b"b")] == keys[1:4]
    assert [key for key, _ in store.scan(Table.JOURNAL, prefix=b"b", limit=2)] == keys[1:3]
    assert [key for key, _ in store.scan(Table.JOURNAL, start=b"b\x01")] == keys[2:]
    assert store.scan(Table.JOURNAL, start=b"b\x01", prefix=b"b", limit=1) == [(keys[2], keys[2])]
    assert store.scan(Table.JOURNAL, start=b"d") == []
    assert store.scan(Table.JOURNAL, prefix=b"d") == []
    assert store.scan(Table.ADVERTS) == []


@pytest.mark.parametrize(
    ("key", "value"), [(b"", b"v"), (b"k" * 401, b"v"), (b"k", bytes((128 << 10) + 1))]
)
async def test_a_record_beyond_the_bounds_is_Oversize(
    store: Store, key: bytes, value: bytes
) -> None:
    with pytest.raises(Oversize):
        await store.write(Table.JOBS, key, value)
    with pytest.raises(Oversize):
        store.write_soon(Table.JOBS, key, value)
    await store.write(Table.JOBS, b"k" * 400, bytes(128 << 10))


async def test_a_batch_is_kept_all_together(store: Store) -> None:
    large = content(3 * FULL)
    blobs = (b"one", large)
    ids = await store.commit(
        Write(
            rows=(Row(Table.RECEIPTS, b"r", b"1"), Row(Table.JOBS, b"j", b"2")),
            blobs=blobs,
            pins=(Pin(ContentId.of(b"one"), "task"),),
        )
    )
    assert [await store.get(one) for one in ids] == list(blobs)
    assert store.read(Table.RECEIPTS, b"r") == b"1"
    assert store.read(Table.JOBS, b"j") == b"2"
    assert store.pins() == [Pin(ids[0], "task")]


async def test_rows_of_one_commit_take_effect_in_their_order(store: Store) -> None:
    def row(key: bytes, value: bytes | None, table: Table = Table.JOURNAL) -> Row:
        return Row(table, key, value)

    await store.write(Table.JOURNAL, b"gone", b"before")
    await store.commit(
        Write(
            rows=(
                *(row(b"%03d" % at, b"first") for at in range(300)),
                row(b"007", b"second"),
                row(b"other", b"", Table.ANSWERS),
                row(b"gone", b"again"),
                row(b"gone", None),
                row(b"008", None),
                row(b"009", None),
                row(b"009", b"back"),
                row(b"not there", None),
            )
        )
    )
    kept = dict(store.scan(Table.JOURNAL))
    assert (len(kept), kept[b"000"], kept[b"299"]) == (299, b"first", b"first")
    assert (kept[b"007"], kept[b"009"]) == (b"second", b"back")
    assert kept.keys().isdisjoint({b"gone", b"008", b"not there"})
    assert store.scan(Table.ANSWERS) == [(b"other", b"")]


async def test_what_is_written_soon_is_there_after_the_next_commit(store: Store) -> None:
    assert store.write_soon(Table.PEERS, b"p", b"1")
    await store.write(Table.META, b"m", b"2")
    assert store.read(Table.PEERS, b"p") == b"1"


async def test_a_sound_store_checks_as_healthy(store: Store) -> None:
    await store.put(content(10 * FULL), pin="a")
    await store.put(b"small")
    await store.write(Table.META, b"m", b"2")
    report = await store.check()
    assert report.healthy
    assert (report.blocks, report.rows, report.corrupt_count) == (12, 1, 0)
    assert report.bytes_read == store.statistics().used_bytes


async def test_a_pinned_tree_with_a_hole_is_named_by_check(store: Store) -> None:
    blocks = list(split(content(4 * FULL)))
    for block in blocks[1:]:
        await store.put_block(block)
    assert (await store.check()).healthy
    await store.pin(blocks[-1].id, "wanted")
    report = await store.check()
    assert not report.healthy
    assert report.incomplete == (blocks[-1].id,)
    assert report.repairs == ()


@pytest.mark.parametrize("why", ["", "x" * 65])
async def test_a_pin_needs_a_reason_of_bounded_length(store: Store, why: str) -> None:
    with pytest.raises(Oversize):
        await store.pin(ContentId.of(b""), why)
    with pytest.raises(Oversize):
        await store.put(b"data", pin=why)
    assert store.statistics().blocks == 0


async def test_the_store_in_memory_keeps_time_with_a_clock_that_jumps(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_store(quota_bytes=64 << 20) as store:
        for number in range(20):
            await store.get(await store.put(content(3 * FULL, number)))
            assert (await store.check()).healthy
    # A thread would have looked like idleness, and the clock would have jumped.
    assert trio.current_time() == 0
