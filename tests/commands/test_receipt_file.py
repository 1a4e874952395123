"""A kept receipt is found by a part of its id, if only one is called so."""

from pathlib import Path

import pytest

from node.commands import kept
from node.commands.receipt_file import full_id
from wire.content import ContentId
from wire.errors import InputError

IDS = [str(ContentId.of(it)) for it in (b"one", b"two", b"three")]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of the first, and a store that keeps the others."""
    (tmp_path / "receipts").mkdir()
    (tmp_path / "receipts" / f"{IDS[0]}.receipt").write_bytes(b"")

    async def kept_ids(_state: Path) -> list[str]:
        return IDS[1:]

    monkeypatch.setattr(kept, "kept_ids", kept_ids)
    return tmp_path


@pytest.mark.parametrize("receipt", IDS)
def test_a_beginning_or_an_end_is_enough(state: Path, receipt: str) -> None:
    for part in (receipt[-8:], f"…{receipt[-8:]}", receipt[:30], receipt):
        assert full_id(state, part) == receipt


def test_what_several_are_called_is_refused_and_nothing_else_is_touched(state: Path) -> None:
    with pytest.raises(InputError, match="3 receipts are called 'bafkrei'"):
        full_id(state, "bafkrei")
    for other in ("x", "no-such.receipt", "bafkrei" + "a" * 20, "../receipt", "[a-z]*"):
        assert full_id(state, other) == other
