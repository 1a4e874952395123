"""What hangs on a key is not left behind for another: a key that is gone ends the start."""

from pathlib import Path

import pytest

from node.own_key import own_key
from store import Table, open_store
from wire.errors import StoreUnusable

QUOTA_BYTES = 1 << 26
FIRST, SECOND = bytes(range(32)), bytes(32)


@pytest.mark.parametrize(
    ("table", "held"),
    [
        (Table.MEMBERS, "its membership"),
        (Table.WALLET, "its credits"),
        (Table.LEDGER, "its credits"),
        (Table.RECEIPTS, "its receipts and standing"),
    ],
)
async def test_no_second_key_is_made_for_what_the_first_one_had(
    tmp_path: Path, table: Table, held: str
) -> None:
    async with open_store(tmp_path, quota_bytes=QUOTA_BYTES) as store:
        first = own_key(tmp_path, store, lambda: FIRST).peer
        await store.write(table, b"x", b"y")
        assert own_key(tmp_path, store, lambda: SECOND).peer == first
        (tmp_path / "key").rename(tmp_path / "elsewhere")
        with pytest.raises(StoreUnusable, match=f"key is gone, by which this peer has {held}"):
            own_key(tmp_path, store, lambda: SECOND)
        assert not (tmp_path / "key").exists()
        (tmp_path / "elsewhere").rename(tmp_path / "key")
        assert own_key(tmp_path, store, lambda: SECOND).peer == first


async def test_a_folder_with_models_and_others_receipts_alone_begins_as_ever(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, quota_bytes=QUOTA_BYTES) as store:
        for table in (Table.MODELS, Table.ANSWERS, Table.META, Table.KEPT):
            await store.write(table, b"x", b"y")
        assert own_key(tmp_path, store, lambda: FIRST) is not None
