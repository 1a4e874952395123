"""x402 clients of npm and PyPI, as their users install them, pay a gateway in credits.

They are installed for the test, so it runs with --soak, and is skipped aloud where npm is not.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from node.apps.own_apps import OwnApp
from tests.gateway.test_credit_payments import Shop, shop_in
from tests.gateway.test_user_payments import hall_in
from tests.gateway.test_x402_npm import PATIENCE_S, said
from tests.live.command_line import ROOT

PACKAGES = ("@x402/fetch@2.27.0",)
PYPI = "x402[httpx]==2.25.0"
HERE = Path(__file__).parent


async def _run(command: list[str], folder: Path, **more: Any) -> bytes:
    with trio.fail_after(PATIENCE_S):
        return (await trio.run_process(command, cwd=folder, capture_stdout=True, **more)).stdout


async def _rows(command: list[str], folder: Path, shop: Shop, **more: Any) -> list[dict[str, Any]]:
    asked = [*command, shop.url, os.fspath(shop.payer.config.state)]
    told = await _run(asked, folder, **more)
    return [json.loads(it) for it in told.decode().splitlines()]


def _check(rows: list[dict[str, Any]], shop: Shop) -> None:
    assert shop.gateway.paying is not None
    for row in rows:
        assert row.get("status") == 200, row
        assert "hello" in said(row["text"]), row
        if row["receipt"] is not None:
            assert row["receipt"]["success"], row
            assert int(row["receipt"]["amount"]) > 0
        else:
            # Of a stream that a voucher pays for, its end tells what is paid.
            assert (row["who"].split()[1], row["what"]) == ("batch-settlement", "stream"), row
            last = json.loads(row["text"].split("data: ")[-2])
            assert int(last["x_baton"]["amount"]) > 0
    # All that were paid by vouchers were paid by one channel, and each was charged.
    [channel] = shop.gateway.paying.till.channels.by_name.values()
    assert channel.tasks == sum("batch-settlement" in it["who"] for it in rows)
    assert channel.charged <= channel.highest


@pytest.mark.soak
@pytest.mark.timeout(2 * PATIENCE_S)
async def test_npms_client_pays_in_credits(tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed here: no client of npm was tried")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    await _run(install, tmp_path)
    shutil.copy(ROOT / "examples" / "x402_credits.mjs", tmp_path)
    program = shutil.copy(HERE / "x402_credit_clients.mjs", tmp_path)
    async with shop_in(tmp_path / "shop") as shop:
        rows = await _rows([node, program], tmp_path, shop)
        assert len(rows) == 2 * 2 * 3
        _check(rows, shop)


@pytest.mark.soak
@pytest.mark.timeout(2 * PATIENCE_S)
async def test_pypis_client_pays_in_credits(tmp_path: Path) -> None:
    await _run([sys.executable, "-m", "venv", "venv"], tmp_path)
    python = os.fspath(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", PYPI]
    await _run(install, tmp_path)
    shutil.copy(ROOT / "examples" / "x402_credits.py", tmp_path)
    program = shutil.copy(HERE / "x402_credit_clients.py", tmp_path)
    # What it imports of ours needs nothing but this checkout and its libraries.
    path = os.pathsep.join([os.fspath(ROOT), *[it for it in sys.path if "site-packages" in it]])
    async with shop_in(tmp_path / "shop") as shop:
        env = {**os.environ, "PYTHONPATH": path}
        rows = await _rows([python, os.fspath(program)], tmp_path, shop, env=env)
        assert len(rows) == 2 * 3
        _check(rows, shop)
    # Beside the key of an app whose users pay.
    async with hall_in(tmp_path / "hall") as hall, hall.open() as http:
        key = hall.key(OwnApp(name="reader", mode="open", users_pay=True))
        asked = [python, os.fspath(program), str(http.base_url).rstrip("/")]
        told = await _run([*asked, os.fspath(hall.user.config.state), key], tmp_path, env=env)
        rows = [json.loads(it) for it in told.decode().splitlines()]
        assert [it["status"] for it in rows] == [200] * 6, rows
        assert hall.charged > 0
