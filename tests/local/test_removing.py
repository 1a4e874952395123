"""Published content that is kept no longer: what others need stays, and any end is gone on from."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.local import folder_put
from node.local.folder_put import FolderPut
from store import Store, Write, open_memory_store
from tests.local.folders import FILES, write_folder
from tests.local.test_folders import Peer, alone, unheard
from wire import limits
from wire.errors import InputError, Missing, StoreUnusable
from wire.unixfs import UnixfsId

QUOTA_BYTES = 4 << 20
LARGE = Random(3).randbytes(limits.BLOCK_BYTES_MAX + 5)


async def remove(peer: Peer, content: object) -> int:
    found = await peer.commands.remove({"id": str(content)}, unheard)
    return int(found["released_bytes"])


async def fill(store: Store) -> None:
    """Other content takes all the room that nothing holds, also what was read lately."""
    for number in range(50):
        await store.put(bytes([number]) * (200 << 10))


async def test_what_another_folder_has_too_stays(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one")
    two = write_folder(tmp_path / "two", {**FILES, "more": b"only here"})
    async with alone(tmp_path, QUOTA_BYTES) as peer:
        first, second = await peer.put(one), await peer.put(two)
        released_bytes = await remove(peer, first["id"])
        # Its own node alone: all files are in the other folder too.
        assert 0 < released_bytes < 2000
        assert await remove(peer, first["id"]) == 0
        await fill(peer.store)
        assert not peer.store.has(UnixfsId.parse(first["id"]).block)
        assert (await peer.put(two))["stored_bytes"] == 0
        assert await remove(peer, second["id"]) > second["size_bytes"] - 2000
        assert not peer.store.pins()
        with pytest.raises(Missing, match="nothing of"):
            await remove(peer, first["id"])


async def test_a_file_that_was_put_by_itself_outlives_its_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {"a": b"alone and in a folder"})
    async with alone(tmp_path) as peer:
        file = await peer.commands.put({"path": str(folder / "a")}, unheard)
        root = (await peer.put(folder))["id"]
        await remove(peer, root)
        assert [str(it.id) for it in peer.store.pins()] == [file["id"]]
        assert await remove(peer, file["id"]) == len(b"alone and in a folder")
        assert not peer.store.pins()


class _Ends:
    """A store that takes so many more commits, and then no other: as if the peer were killed."""

    def __init__(self, store: Store, commits: int) -> None:
        self._store = store
        self.left = commits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, batch: Write) -> object:
        if not self.left:
            raise StoreUnusable("killed")
        self.left -= 1
        return await self._store.commit(batch)


async def test_removing_goes_on_after_an_end_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_put, "_BATCH_BLOCKS", 1)
    folder = write_folder(tmp_path / "in", {"a": b"1", "b/c": b"2", "b/large": LARGE})
    commits = 0
    while True:
        async with open_memory_store(quota_bytes=1 << 20) as store:
            root = (await FolderPut(store).publish(folder, lambda *_: None)).root
            try:
                await FolderPut(_Ends(store, commits)).remove(root)  # type: ignore[arg-type]
            except StoreUnusable:
                # What was released may be gone by the time that it goes on.
                await fill(store)
                assert store.has(root.block)
                await FolderPut(store).remove(root)
                assert not store.pins()
            else:
                break
        commits += 1
    # Four leaves, the node of the large file, and three folders.
    assert commits == 8


async def test_what_a_killed_publication_left_is_released_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_put, "_BATCH_BLOCKS", 1)
    folder = write_folder(tmp_path / "in", {"a": b"1", "b/c": b"2", "b/large": LARGE})
    small = write_folder(tmp_path / "small", {"x": b"other"})
    async with open_memory_store(quota_bytes=1 << 20) as store:
        await store.put(b"another's", pin="put")
        with pytest.raises(StoreUnusable):
            await FolderPut(_Ends(store, 3)).publish(folder, lambda *_: None)  # type: ignore[arg-type]
        assert len(store.pins()) > 1
        published = await FolderPut(store).publish(small, lambda *_: None)
        assert {it.why for it in store.pins()} == {"put", str(published.root)}
        await FolderPut(store).remove(published.root)
        assert [it.why for it in store.pins()] == ["put"]


async def test_what_is_no_id_is_refused(tmp_path: Path) -> None:
    async with alone(tmp_path) as peer:
        for wrong in ("", "x", "bafy", None):
            with pytest.raises(InputError):
                await remove(peer, wrong)


async def test_what_was_put_under_an_older_id_is_read_and_removed_as_ever(tmp_path: Path) -> None:
    async with alone(tmp_path) as peer:
        old = await peer.store.put(LARGE, pin="put")
        assert old.is_tree
        (tmp_path / "in").write_bytes(LARGE)
        found = await peer.commands.put({"path": str(tmp_path / "in")}, unheard)
        assert found["id"] != str(old)
        # Both ids lead to the same pieces, which are stored once.
        assert peer.store.statistics().used_bytes < len(LARGE) + 1000
        arguments = {"id": str(old), "path": str(tmp_path / "out")}
        await peer.commands.get(arguments, unheard)
        assert (tmp_path / "out").read_bytes() == LARGE
        assert await remove(peer, old) > 0
        assert await remove(peer, found["id"]) > len(LARGE)
        assert not peer.store.pins()
