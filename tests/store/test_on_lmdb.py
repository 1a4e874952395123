"""What only the store on disk must bear: restarts, a map that grows, a full disk, lying bytes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest
import trio
import trio.testing

from store import Table, on_lmdb, open_store
from store.group_commit import QUEUE_MAX, CommitRequest, Committer
from store.on_lmdb import LmdbEnvironment
from store.rows import BLOCKS
from tests.store.samples import FULL, content
from wire.content import ContentId
from wire.errors import Corrupt, Missing, StoreFull, StoreUnusable
from wire.tree import split

QUOTA = 1 << 30


def damage(folder: Path, content_id: ContentId, data: bytes | None) -> None:
    """Write straight into the database of a store that nobody has open."""
    environment = lmdb.open(str(folder / "store"), max_dbs=32, map_size=1 << 30)
    blocks = environment.open_db(b"blocks")
    with environment.begin(write=True, db=blocks) as transaction:
        if data is None:
            transaction.delete(content_id)
        else:
            transaction.put(content_id, data)
    environment.close()


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    data = content(5 * FULL, 1)
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        large = await store.put(data, pin="model")
        small = await store.put(b"small")
        await store.write(Table.RECEIPTS, b"r", b"1")
        assert store.write_soon(Table.PEERS, b"p", b"2")
        before = store.statistics()
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        assert await store.get(large) == data
        assert await store.get(small) == b"small"
        assert store.read(Table.RECEIPTS, b"r") == b"1"
        assert store.read(Table.PEERS, b"p") == b"2"
        assert [pin.id for pin in store.pins()] == [large]
        after = store.statistics()
        assert (after.blocks, after.used_bytes) == (before.blocks, before.used_bytes)
        assert after.held_bytes == before.held_bytes > 5 * FULL
        assert (await store.check()).healthy


@pytest.mark.parametrize("in_the_way", ["nothing", "what a killed process left", "a file"])
async def test_pages_that_a_file_left_behind_are_given_back_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_way: str
) -> None:
    data, database = content(8 * FULL, 1), tmp_path / "store" / "data.mdb"
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        model = await store.put(data, pin="model")
        small = await store.put(b"small", pin="small")
        await store.write(Table.RECEIPTS, b"r", b"1")
        # Its blocks move from the table into a file.
        await store.file_of(model)
    full_bytes = database.stat().st_size
    assert full_bytes > 8 * FULL
    # By itself this is too little to be written anew.
    async with open_store(tmp_path, quota_bytes=QUOTA):
        assert database.stat().st_size == full_bytes
    monkeypatch.setattr(on_lmdb, "FREE_BYTES_MIN", 1 << 20)
    if in_the_way == "a file":
        (tmp_path / "store" / "anew").write_bytes(b"")
    elif in_the_way != "nothing":
        (tmp_path / "store" / "anew").mkdir()
        (tmp_path / "store" / "anew" / "data.mdb").write_bytes(b"half a copy")
    for _ in range(2):
        async with open_store(tmp_path, quota_bytes=QUOTA) as store:
            assert (database.stat().st_size < 1 << 20) is (in_the_way != "a file")
            assert database.stat().st_mode & 0o777 == 0o600
            assert await store.get(model) == data
            assert await store.get(small) == b"small"
            assert store.read(Table.RECEIPTS, b"r") == b"1"
            assert (await store.check()).healthy
            await store.put(content(FULL, 2))
    assert (tmp_path / "store" / "anew").exists() is (in_the_way == "a file")


async def test_a_smaller_quota_after_a_restart_evicts_down_to_it(tmp_path: Path) -> None:
    async with open_store(tmp_path, quota_bytes=10_000) as store:
        ids = [await store.put(content(1000, n)) for n in range(10)]
    async with open_store(tmp_path, quota_bytes=3000) as store:
        newest = await store.put(content(1000, 10))
        assert [store.has(one) for one in ids] == [False] * 8 + [True] * 2
        assert store.has(newest)


async def test_the_map_grows_by_itself_while_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_lmdb, "MAP_BYTES_START", 1 << 20)
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        first = await store.put(content(FULL, 0), pin="first")
        reads = 0
        writing = True

        async def read() -> None:
            nonlocal reads
            while writing:
                await store.get(first)
                reads += 1

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
            large = await store.put(content(8 << 20, 1))
            writing = False
        assert reads
        assert await store.get(large) == content(8 << 20, 1)
    size = (tmp_path / "store" / "data.mdb").stat().st_size
    assert size > 8 << 20


def test_the_map_does_not_grow_under_a_reader(tmp_path: Path) -> None:
    # LMDB itself would move the pages away from under whoever reads them.
    handle = lmdb.open(str(tmp_path), map_size=1 << 20, max_dbs=1)
    environment = LmdbEnvironment(handle, {BLOCKS: handle.open_db(b"blocks")})
    writer = threading.Thread(
        target=environment.write, args=(lambda rows: rows.put(BLOCKS, b"k", bytes(2 << 20)),)
    )
    with environment.reading() as rows:
        assert rows.get(BLOCKS, b"k") is None
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert handle.info()["map_size"] == 1 << 20
    writer.join(60)
    with environment.reading() as rows:
        assert rows.size(BLOCKS, b"k") == 2 << 20
    assert handle.info()["map_size"] > 2 << 20
    handle.close()


async def test_puts_that_come_together_share_a_commit(tmp_path: Path) -> None:
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(store.put, content(100, number))
        figures = store.statistics()
    assert figures.puts == 100
    assert figures.commits <= 3
    assert figures.largest_group >= 50


async def test_a_refused_put_does_not_touch_those_in_its_group(tmp_path: Path) -> None:
    outcomes: dict[int, str] = {}

    async with open_store(tmp_path, quota_bytes=10_000) as store:

        async def one(number: int) -> None:
            try:
                await store.put(content(20_000 if number % 2 else 100, number), pin="x")
                outcomes[number] = "kept"
            except StoreFull:
                outcomes[number] = "full"

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        assert outcomes == {n: "full" if n % 2 else "kept" for n in range(20)}
        assert store.statistics().blocks == 10
        assert (await store.check()).healthy


@pytest.mark.parametrize("large", [False, True])
async def test_a_block_corrupted_on_disk_is_never_served_and_can_be_fetched_again(
    tmp_path: Path, large: bool
) -> None:
    data = content(FULL if large else 1000, 1)
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        content_id = await store.put(data, pin="kept")
    damage(tmp_path, content_id, b"garbage" + data[7:])
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        with pytest.raises(Corrupt, match="fetch it again"):
            await store.get(content_id)
        with pytest.raises(Missing):
            await store.get_block(content_id)
        assert await store.missing(content_id) == [(content_id, 0)]
        assert await store.put(data) == content_id
        assert await store.get(content_id) == data
        assert (await store.check()).healthy


@pytest.mark.parametrize("which", [0, 7, -1])
async def test_check_drops_what_is_corrupt_in_a_pinned_tree(tmp_path: Path, which: int) -> None:
    data = content(10 * FULL, 1)
    blocks = list(split(data))
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        root = await store.put(data, pin="kept")
    damage(tmp_path, blocks[which].id, b"garbage of another length")
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        report = await store.check()
        assert report.corrupt == (blocks[which].id,)
        assert report.incomplete == (root,)
        assert "dropped 1 blocks" in report.repairs[0]
        assert not store.has(blocks[which].id)
        await store.put_block(blocks[which])
        assert await store.get(root) == data
        assert (await store.check()).healthy
        assert store.statistics().held_bytes == store.statistics().used_bytes


async def test_a_corrupt_node_is_told_as_missing_and_heals(tmp_path: Path) -> None:
    data = content(3 * FULL, 1)
    blocks = list(split(data))
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        root = await store.put(data, pin="kept")
    damage(tmp_path, root, b"garbage")
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        assert await store.missing(root) == [(root, 0)]
        await store.put_block(blocks[-1])
        assert await store.get(root) == data
        assert (await store.check()).healthy


async def test_check_counts_afresh_what_the_totals_got_wrong(tmp_path: Path) -> None:
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        gone = await store.put(content(1000, 1))
        await store.put(content(1000, 2), pin="kept")
    damage(tmp_path, gone, None)
    stray = content(500, 3)
    damage(tmp_path, ContentId.of(stray), stray)
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        report = await store.check()
        assert "counted afresh: 2 blocks of 1500 bytes" in report.repairs[0]
        assert store.statistics().used_bytes == 1500
        assert store.statistics().held_bytes == 1000
        assert (await store.check()).healthy


async def test_a_store_that_is_not_LMDB_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreUnusable, match="move the folder's 'store' away"):
        async with open_store(tmp_path, quota_bytes=QUOTA):
            pytest.fail("opened")


async def test_a_closed_store_takes_nothing_more(tmp_path: Path) -> None:
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        pass
    with pytest.raises(StoreUnusable, match="closed"):
        await store.put(b"late")
    assert not store.write_soon(Table.META, b"k", b"v")


async def test_a_caller_that_is_cancelled_leaves_the_others_alone(tmp_path: Path) -> None:
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(store.put, content(100, number))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert await store.get(await store.put(b"after")) == b"after"
        assert (await store.check()).healthy


# A disk with no room, for real


FULL_DISK = """
import resource, sys
from pathlib import Path
import trio
import store
from store import Table
from wire.errors import StoreFull

async def main() -> None:
    folder, limited = Path(sys.argv[1]), sys.argv[2] == "limit"
    async with store.open_store(folder, quota_bytes=1 << 30) as kept:
        if limited:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
        ids, refused = [], 0
        for number in range(60):
            data = number.to_bytes(4, "big") * 25_000
            try:
                ids.append((await kept.put(data), data))
            except StoreFull as error:
                assert "free some space" in str(error), str(error)
                refused += 1
        assert refused, "the disk was never full"
        assert ids, "nothing was ever kept"
        for content_id, data in ids:
            assert await kept.get(content_id) == data
        if limited:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        else:
            (folder.parent / "ballast").unlink()
        for number in range(60, 65):
            data = number.to_bytes(4, "big") * 25_000
            ids.append((await kept.put(data), data))
        assert (await kept.check()).healthy
    async with store.open_store(folder, quota_bytes=1 << 30) as kept:
        for content_id, data in ids:
            assert await kept.get(content_id) == data
        assert (await kept.check()).healthy
        print(refused, len(ids))

trio.run(main)
"""


def run_full_disk(folder: Path, kind: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(folder), kind],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused, kept = map(int, done.stdout.split())
    assert refused
    assert kept > 5


def test_a_file_that_may_not_grow_refuses_aloud_and_loses_nothing(tmp_path: Path) -> None:
    run_full_disk(tmp_path / "state", "limit")


def test_a_full_disk_refuses_aloud_loses_nothing_and_recovers(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        (disk / "ballast").write_bytes(bytes(2 << 20))
        run_full_disk(disk / "state", "disk")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# The committer by itself


async def test_a_full_queue_makes_callers_wait_and_drops_what_may_be_dropped() -> None:
    gate = trio.Event()
    groups: list[int] = []

    def commit(group: list[CommitRequest[object]]) -> None:
        trio.from_thread.run(gate.wait)
        groups.append(len(group))

    committer = Committer(commit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        for _ in range(QUEUE_MAX + 10):
            nursery.start_soon(committer.submit, lambda _: None, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert committer.statistics().queue_depth <= QUEUE_MAX
        assert not all(committer.offer(lambda _: None) for _ in range(QUEUE_MAX))
        assert committer.statistics().dropped
        gate.set()
        with trio.fail_after(10):
            while committer.statistics().puts < QUEUE_MAX + 10:
                await trio.testing.wait_all_tasks_blocked(0.001)
        committer.close()
    assert sum(groups) >= QUEUE_MAX + 10


async def test_a_disk_that_never_answers_is_told_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("store.group_commit.COMMIT_DEADLINE_S", 0.05)
    stuck = os.pipe()
    committer = Committer(lambda _: os.read(stuck[0], 1) and None)
    errors: list[str] = []

    async def submit() -> None:
        try:
            await committer.submit(lambda _: None, 1)
        except StoreUnusable as error:
            errors.append(error.message)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            for _ in range(3):
                nursery.start_soon(submit)
    assert len(errors) == 3
    assert committer.stuck
    await submit()
    assert "has not answered" in errors[-1]
    os.write(stuck[1], b"x")
    for end in stuck:
        os.close(end)


async def test_what_is_offered_goes_with_the_commits_of_others_or_alone_before_long(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, quota_bytes=QUOTA) as store:
        before = store.statistics().commits
        for number in range(20):
            assert store.write_soon(Table.PEERS, b"offered", b"%d" % number)
            await store.write(Table.RECEIPTS, b"waited for", b"%d" % number)
        assert store.statistics().commits - before == 20
        assert store.read(Table.PEERS, b"offered") == b"19"
        # A later one is not overtaken by an earlier one that somebody waits for.
        assert store.write_soon(Table.PEERS, b"waited for", b"1")
        await store.write(Table.PEERS, b"waited for", b"2")
        assert store.read(Table.PEERS, b"waited for") == b"2"
        assert store.write_soon(Table.PEERS, b"alone", b"1")
        with trio.fail_after(60):
            while store.read(Table.PEERS, b"alone") is None:
                await trio.sleep(0.05)
