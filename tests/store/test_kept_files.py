"""Content that lies in files: once on the disk, counted, checked, never given out when changed."""

import os
import resource
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from store import Store, disk_bytes, open_memory_store, open_store
from wire.content import ContentId
from wire.errors import Corrupt, Missing, StoreFull
from wire.limits import BLOCK_BYTES_MAX
from wire.tree import name_of

Opening = Callable[..., AbstractAsyncContextManager[Store]]
QUOTA_BYTES = 64 << 20
DATA = os.urandom(5 * BLOCK_BYTES_MAX + 17)


@pytest.fixture(params=["lmdb", "memory"])
def opening(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Opening:
    state = tmp_path / "state"
    # Where a store in memory puts its files.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @asynccontextmanager
    async def on_disk(quota_bytes: int = QUOTA_BYTES) -> AsyncIterator[Store]:
        async with open_store(state, quota_bytes=quota_bytes) as store:
            yield store

    @asynccontextmanager
    async def in_memory(quota_bytes: int = QUOTA_BYTES) -> AsyncIterator[Store]:
        async with open_memory_store(quota_bytes=quota_bytes) as store:
            yield store

    return on_disk if request.param == "lmdb" else in_memory


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(DATA)
    return path


def kept(tmp_path: Path) -> list[Path]:
    """The files of the one store that is open."""
    (folder,) = (*tmp_path.glob("state/files"), *tmp_path.glob("baton-*"))
    return sorted(folder.iterdir())


async def test_a_file_is_taken_in_once(opening: Opening, model: Path, tmp_path: Path) -> None:
    async with opening() as store:
        root = await store.take_file(model, pin="model")
        assert root == name_of(DATA)
        assert await store.get(root) == DATA
        assert not await store.missing(root)
        path = await store.file_of(root)
        assert path.read_bytes() == DATA
        assert [path] == kept(tmp_path)
        counts = store.statistics()
        assert counts.used_bytes >= len(DATA)
        assert counts.held_bytes == counts.used_bytes
        assert not (await store.check()).corrupt
        assert (await store.check()).repairs == ()


async def test_it_is_on_the_disk_once(model: Path, tmp_path: Path) -> None:
    before_bytes = disk_bytes(tmp_path)
    async with open_store(tmp_path / "state", quota_bytes=QUOTA_BYTES) as store:
        await store.take_file(model, pin="model")
        assert disk_bytes(tmp_path / "state" / "store") < BLOCK_BYTES_MAX
    # A hard link, or shared blocks that du counts twice.
    assert disk_bytes(tmp_path) - before_bytes < len(DATA) + BLOCK_BYTES_MAX


async def test_small_and_empty_files_are_taken_in(opening: Opening, tmp_path: Path) -> None:
    async with opening() as store:
        for name, data in (("small", b"small"), ("empty", b"")):
            path = tmp_path / name
            path.write_bytes(data)
            root = await store.take_file(path, pin="model")
            assert root == ContentId.of(data)
            assert await store.get(root) == data
            assert (await store.file_of(root)).read_bytes() == data


async def test_the_original_may_go(opening: Opening, model: Path) -> None:
    async with opening() as store:
        root = await store.take_file(model, pin="model")
        model.unlink()
        assert await store.get(root) == DATA


async def test_what_was_changed_is_never_given_out(
    opening: Opening, model: Path, tmp_path: Path
) -> None:
    async with opening() as store:
        root = await store.take_file(model, pin="model")
        path = await store.file_of(root)
        with path.open("r+b") as file:
            file.seek(2 * BLOCK_BYTES_MAX)
            file.write(b"changed")
        with pytest.raises(Corrupt):
            await store.get(root)
        assert await store.missing(root)
        assert kept(tmp_path) == []
        with pytest.raises(Missing):
            await store.file_of(root)
        # What is put again is whole again.
        assert await store.put(DATA) == root
        assert (await store.file_of(root)).read_bytes() == DATA


async def test_a_changed_file_is_noticed_before_an_engine_has_it(
    opening: Opening, model: Path
) -> None:
    async with opening() as store:
        root = await store.take_file(model, pin="model")
        path = await store.file_of(root)
        path.write_bytes(DATA[:-1] + bytes((DATA[-1] ^ 1,)))
        os.utime(path, (1, 1))
        with pytest.raises(Missing):
            await store.file_of(root)


async def test_a_touched_file_that_is_the_same_stays(opening: Opening, model: Path) -> None:
    async with opening() as store:
        root = await store.take_file(model, pin="model")
        path = await store.file_of(root)
        os.utime(path, (1, 1))
        assert await store.file_of(root) == path
        path.unlink()
        with pytest.raises(Missing):
            await store.file_of(root)


async def test_blocks_that_came_move_into_the_file(opening: Opening, tmp_path: Path) -> None:
    async with opening() as store:
        root = await store.put(DATA, pin="model")
        before = store.statistics()
        path = await store.file_of(root)
        assert path.read_bytes() == DATA
        after = store.statistics()
        assert (after.blocks, after.used_bytes) == (before.blocks, before.used_bytes)
        assert after.held_bytes == before.held_bytes
        assert await store.get(root) == DATA
        assert kept(tmp_path) == [path]
        assert (await store.check()).repairs == ()


async def test_a_pinned_file_is_not_forgotten_and_another_goes(
    opening: Opening, model: Path, tmp_path: Path
) -> None:
    async with opening() as store:
        root = await store.take_file(model, pin="model")
        await store.forget_file(root)
        assert await store.get(root) == DATA
        await store.unpin(root, "model")
        await store.forget_file(root)
        assert kept(tmp_path) == []
        assert store.statistics().used_bytes < BLOCK_BYTES_MAX
        assert await store.missing(root)
        assert (await store.check()).repairs == ()


async def test_taken_in_twice_it_is_there_once(
    opening: Opening, model: Path, tmp_path: Path
) -> None:
    async with opening() as store:
        for _ in range(2):
            root = await store.take_file(model, pin="model")
        assert len(kept(tmp_path)) == 1
        assert await store.get(root) == DATA


async def test_the_quota_bounds_files_too(opening: Opening, model: Path, tmp_path: Path) -> None:
    async with opening(quota_bytes=len(DATA) // 2) as store:
        with pytest.raises(StoreFull):
            await store.take_file(model, pin="model")
        assert kept(tmp_path) == []
        await store.put(b"there is room for this")


async def test_it_is_there_after_a_start_and_what_nobody_knows_is_swept(
    model: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        root = await store.take_file(model, pin="model")
        (state / "files" / "99").write_bytes(b"left by a crash")
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        assert len(kept(tmp_path)) == 1
        assert await store.get(root) == DATA
        other = tmp_path / "other"
        other.write_bytes(os.urandom(BLOCK_BYTES_MAX + 1))
        await store.take_file(other)
        assert len(kept(tmp_path)) == 2


async def test_another_disk_gets_a_copy_and_a_full_one_is_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr("fcntl.ioctl", refuse)
    async with open_store(tmp_path / "state", quota_bytes=QUOTA_BYTES) as store:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) // 2, hard))
        try:
            with pytest.raises(StoreFull):
                await store.take_file(model)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert kept(tmp_path) == []
        root = await store.take_file(model)
        (path,) = kept(tmp_path)
        assert path.stat().st_ino != model.stat().st_ino
        assert await store.get(root) == DATA


async def test_a_file_that_is_read_stays_where_it_is_when_it_is_taken_in_again(
    opening: Opening, model: Path, tmp_path: Path
) -> None:
    async with opening() as store:
        root = await store.take_file(model, pin="model")
        path = await store.file_of(root)
        seen: list[int] = []
        assert await store.take_file(model, seen.append, pin="again") == root
        assert seen == [len(DATA)]
        assert await store.file_of(root) == path
        assert path.read_bytes() == DATA
        assert kept(tmp_path) == [path]
        await store.unpin(root, "model")
        await store.forget_file(root)
        # The second pin holds it.
        assert path.exists()


async def test_a_file_that_was_changed_is_taken_in_again(
    opening: Opening, model: Path, tmp_path: Path
) -> None:
    original = tmp_path / "original"
    original.write_bytes(DATA)
    async with opening() as store:
        root = await store.take_file(model, pin="model")
        path = await store.file_of(root)
        path.write_bytes(DATA[:-1] + bytes((DATA[-1] ^ 1,)))
        os.utime(path, (1, 1))
        assert await store.take_file(original, pin="model") == root
        assert (await store.file_of(root)).read_bytes() == DATA
