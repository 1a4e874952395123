"""npm's x402 clients, as their users install them, pay a gateway: both versions, `exact`, `upto`.

They are installed for the test, so it runs with --soak, and is skipped aloud where npm is not.
"""

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from node.gateway_config import EvmPay, HttpPay
from node.paying_config import read_price
from tests.gateway.conftest import QUICK, serving
from tests.gateway.facilitator import facilitating
from tests.node import network

PACKAGES = ("x402-fetch@1.2.0", "@x402/fetch@2.27.0", "@x402/evm@2.27.0", "viem@2")
CLIENTS = Path(__file__).with_name("x402_clients.mjs")
PAY_TO = "0x" + "ab" * 20
PATIENCE_S = 600


@pytest.mark.soak
@pytest.mark.timeout(2 * PATIENCE_S)
def test_npms_clients_pay_for_chat_stream_and_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What they sign holds by the clock of this machine.
    monkeypatch.setattr(network, "START_S", time.time())
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed here: no client of npm was tried")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=PATIENCE_S, capture_output=True)
    program = shutil.copy(CLIENTS, tmp_path)
    with facilitating() as fake:
        evm = EvmPay(facilitator=fake.url, pay_to=PAY_TO)
        pay = HttpPay(price=read_price("0.01/1k:0.6/1k+0.001"), evm=evm)
        with serving(tmp_path / "shop", replace(QUICK, pay=pay)) as served:
            done = subprocess.run(
                [node, program, served.url],
                cwd=tmp_path,
                check=True,
                timeout=PATIENCE_S,
                capture_output=True,
                text=True,
            )
    told = [json.loads(it) for it in done.stdout.splitlines()]
    assert len(told) == 3 * 3
    for row in told:
        assert row.get("status") == 200, row
        assert "hello" in said(row["text"]), row
        if row["receipt"] is not None:
            assert row["receipt"]["success"], row
        else:
            # Of a stream that is paid by its length its end tells what is paid.
            assert (row["who"], row["what"]) == ("v2 upto", "stream"), row
            last = json.loads(row["text"].split("data: ")[-2])
            assert int(last["x_baton"]["amount"]) > 0
    assert len(fake.settled) == len(told)


def said(text: str) -> str:
    """What an answer says, or the pieces of a stream together."""
    if not text.startswith("data: "):
        choice = json.loads(text)["choices"][0]
        return str(choice.get("text") or choice["message"]["content"])
    chunks = [json.loads(it) for it in text.split("data: ")[1:-1]]
    return "".join(it["choices"][0]["delta"].get("content") or "" for it in chunks)
