"""A disk that is nearly full: a store goes on with the room that it has, and says so."""

import shutil
from pathlib import Path

import pytest

from store import Store, open_store
from store.quota import Quota, nearly_full
from tests.store.samples import content
from wire.content import ContentId
from wire.errors import StoreFull

OWNER_BYTES = 1 << 30


class Disk:
    """What a test says of the disk."""

    free_bytes: int | None = None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr("store.quota.nearly_full", lambda _: found.free_bytes)
    monkeypatch.setattr("store.quota.SMALL_BYTES", 1000)
    return found


async def put(store: Store, *numbers: int, pin: str | None = None) -> list[ContentId]:
    return [await store.put(content(1000, it), pin=pin) for it in numbers]


async def test_on_a_disk_that_is_nearly_full_the_new_takes_the_place_of_the_old(
    tmp_path: Path, disk: Disk
) -> None:
    async with open_store(tmp_path, quota_bytes=OWNER_BYTES) as store:
        old = await put(store, *range(5))
        assert (store.statistics().quota_bytes, store.statistics().problem) == (OWNER_BYTES, "")
        disk.free_bytes = 3 << 20
        new = await put(store, *range(5, 8))
        assert [store.has(it) for it in (*old, *new)] == [False] * 3 + [True] * 5
        figures = store.statistics()
        assert (figures.used_bytes, figures.quota_bytes) == (5000, 5000)
        assert figures.problem.startswith("3 MiB are free on the disk")
        disk.free_bytes = None
        await put(store, *range(8, 12))
        assert store.statistics().used_bytes == 9000
        assert store.statistics().quota_bytes == OWNER_BYTES


async def test_what_is_pinned_finds_a_little_room_and_then_none(tmp_path: Path, disk: Disk) -> None:
    async with open_store(tmp_path, quota_bytes=OWNER_BYTES) as store:
        await put(store, *range(40), pin="wanted")
        disk.free_bytes = 0
        await put(store, 40, 41, pin="wanted")
        with pytest.raises(StoreFull) as caught:
            await put(store, 42)
        assert caught.value.todo.startswith("make room on its disk")
        disk.free_bytes = None
        await put(store, 42)


def test_a_store_that_has_hardly_begun_may_use_the_last_of_a_disk(
    tmp_path: Path, disk: Disk
) -> None:
    disk.free_bytes = 1
    assert Quota(OWNER_BYTES, tmp_path).now(0, 0).quota_bytes == 1000
    assert Quota(500, tmp_path).now(0, 0).quota_bytes == 500
    assert Quota(OWNER_BYTES).now(0, 0).quota_bytes == OWNER_BYTES


def test_a_disk_is_nearly_full_by_bytes_or_by_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("store.quota.FREE_BYTES_MIN", 2 * found.total)
    assert nearly_full(tmp_path) is None or found.free < found.total / 20
    monkeypatch.setattr("store.quota.FREE_SHARE_MIN", 2)
    assert nearly_full(tmp_path) == pytest.approx(found.free, abs=1 << 30)
    monkeypatch.setattr("store.quota.FREE_BYTES_MIN", 0)
    assert nearly_full(tmp_path) is None
    assert nearly_full(tmp_path / "missing") is None
