"""`leave` for a peer that is gone before its word came through; other commands say so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from node.commands import owner
from wire.errors import Disconnected


async def gone(*_: object, **__: object) -> Mapping[str, Any]:
    raise Disconnected("the peer on this machine has closed the connection")


async def test_a_peer_that_is_gone_at_once_has_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(owner, "call", gone)
    await owner.have_done(Path("state"), "leave", as_json=False)
    assert capsys.readouterr().out == "it leaves now\n"
    with pytest.raises(Disconnected):
        await owner.have_done(Path("state"), "pause", as_json=False)
