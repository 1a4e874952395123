"""What apps are used for, as gateways tell their owner: by the app, not by who paid."""

from pathlib import Path

import pytest

from node.commands.usage import Looking, app_rows, show_usage
from wire.errors import InputError

ADA = {"share": 50, "spent": 20, "calls": 2, "promised": 900, "paid": 700}
TOLD = {
    "owner": "12D3KooWOwner",
    "apps": [{"app": name, "mode": "call"} for name in ("idle", "reader", "writer")],
    "keys": [
        {"app": "writer", "label": "ada", "gateways": {"one": ADA, "two": ADA}},
        {"app": "writer", "label": "bob", "gateways": {"one": ADA | {"calls": 1}}},
        {"app": "reader", "label": "ada", "gateways": {"one": ADA | {"paid": 0}}},
    ],
}


def test_each_app_is_named_with_the_use_of_all_its_keys() -> None:
    rows = app_rows(TOLD)
    assert [it["app"] for it in rows] == ["writer", "reader", "idle"]
    assert rows[0] == {
        "app": "writer",
        "owner": "12D3KooWOwner",
        "mode": "call",
        "keys": 2,
        "gateways": 2,
        "calls": 5,
        "spent": 60,
        "paid": 2100,
    }
    assert (rows[1]["keys"], rows[1]["calls"], rows[1]["paid"]) == (1, 2, 0)
    assert (rows[2]["keys"], rows[2]["gateways"], rows[2]["calls"]) == (0, 0, 0)


async def test_a_ledgers_file_names_no_apps(tmp_path: Path) -> None:
    typed = {"week": "7d", "markets": (), "cohorts": False, "by": "app"}
    wanted = Looking.of(typed, offline=tmp_path / "all.ledger", genesis=None, html=None)
    with pytest.raises(InputError, match="names accounts, not apps") as refused:
        await show_usage(wanted, tmp_path, as_json=True)
    assert "--by account" in refused.value.todo
