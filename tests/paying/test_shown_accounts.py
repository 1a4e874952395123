"""What `wallet` and `earnings` show is the same on both sides, and says what it is."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands import ledger as shown
from node.engines.hash_engine import hash_manifest
from node.ledger.redeemed import redeemed_by
from node.local.commands import LocalCommands
from node.peer import Node
from tests.node.asking import asked, request
from tests.node.network import open_network
from tests.paying.test_hostile_payments import paid_task
from tests.paying.test_priced_peers import FREE, priced, settled, started
from wire.errors import NotAgreed
from wire.ledger import growth_of


async def told(node: Node, command: str) -> Any:
    return await LocalCommands(node).commands()[command]({}, lambda _: None)


async def test_work_that_too_few_looked_at_is_counted_alike_by_both(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker, verifier = await started(network, priced(base=100, check=10), verifiers=1)
        await trio.sleep(30)
        wanted = request(price_max=1000, verifiers=2, needed=2, deadline_s=20)
        with pytest.raises(NotAgreed, match=r"0.00011 credits were charged for the work"):
            await asked(asker, wanted)
        for payee, amount in ((worker, 100), (verifier, 10)):
            paid, earned = await settled(asker, payee)
            assert paid.charged == earned.charged == amount
        wallet, earnings = await told(asker, "wallet"), await told(worker, "earnings")
        (row,) = [it for it in wallet["paying"] if it["peer"] == str(worker.peers.me)]
        assert (row["charged"], row["not_counted_here"]) == (100, 0)
        assert earnings["charged"] == 100
        paid, _ = await settled(asker, worker)
        # What the payee counts and this peer does not is shown, too.
        paid.told = 130
        wallet = await told(asker, "wallet")
        assert {it["not_counted_here"] for it in wallet["paying"]} == {0, 30}


async def test_what_goes_to_the_fund_is_said_of_what_was_redeemed(
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))
        for number in range(5):
            await asked(asker, paid_task(number))
        _, earned = await settled(asker, worker)
        assert worker.paying is not None
        await worker.paying.till.channels.redeem()
        found = await told(worker, "earnings")
        assert found["redeemed"] == 500 < found["redeemed_whole"] == earned.redeemed
        assert found["to_fund"] == growth_of(earned.redeemed)

        # A gateway has no price for a model that others run, and names it as they do.
        (sums,) = found["sums"]
        assert sums["name"] == "hash"
        monkeypatch.setattr(worker.paying.own, "typed", FREE)
        (sums,) = (await told(worker, "earnings"))["sums"]
        assert sums["name"] == hash_manifest().name

        (order,) = [it for it in (await told(worker, "wallet_log"))["orders"] if it["redeemed"]]
        assert (order["spent"], order["taken"]) == (0, earned.redeemed)
        log = worker.ledger.wallet.log()  # type: ignore[union-attr]
        assert redeemed_by(reversed(log)) == {order["sequence"]: earned.redeemed}

        for number in range(5, 20):
            await asked(asker, paid_task(number))
        await settled(asker, worker)
        before = earned.redeemed
        await worker.paying.till.channels.redeem()
        log = worker.ledger.wallet.log()  # type: ignore[union-attr]
        assert list(redeemed_by(reversed(log)).values()) == [before, earned.redeemed - before]
        # Where earlier orders are not at hand, nobody knows what was redeemed before.
        assert redeemed_by(log[:1]) == {}

        async def answer(*_: Any, **__: Any) -> Any:
            return await told(worker, "wallet_log")

        monkeypatch.setattr(shown, "call", answer)
        await shown.show_log(tmp_path, as_json=False)
        assert "+0.0" in capsys.readouterr().out
