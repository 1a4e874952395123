"""With few credits no channel is opened that pays for no task, and what is lacking is said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from node.local.quoting import show_quote
from node.paying.deposits import WantedChannel, deposits, too_few
from tests.ledger.made import ONE, THREE, TWO
from tests.ledger.test_members import CREDIT
from tests.node.asking import asked, request
from tests.node.network import open_network
from tests.paying.test_hostile_payments import paid_task
from tests.paying.test_priced_peers import priced, started
from wire.errors import InputError
from wire.kinds import Level

BASE = CREDIT // 10


def wanted(*needs: int) -> list[WantedChannel]:
    keys = (ONE, TWO, THREE)
    return [WantedChannel(keys[at].peer, 1000, need) for at, need in enumerate(needs)]


def test_a_deposit_pays_for_a_task_or_is_not_made() -> None:
    rich = deposits(wanted(100, 100), share=10_000, left=10_000, least=10)
    assert list(rich.values()) == [1000, 1000]
    # The part that each may have does not pay for a task: it gets what one needs.
    assert list(deposits(wanted(100), share=50, left=200, least=10).values()) == [100]
    # The cheapest has it where there is not enough for all.
    few = deposits(wanted(100, 90, 300), share=50, left=150, least=10)
    assert few == {TWO.peer: 90}
    assert not deposits(wanted(100), share=50, left=99, least=10)
    assert list(deposits(wanted(1), share=0, left=10, least=10).values()) == [10]


def test_no_more_is_locked_than_there_is() -> None:
    for left in range(0, 4000, 7):
        found = deposits(wanted(100, 400, 90), share=left // 12, left=left, least=50)
        assert sum(found.values()) <= left
        assert all(it >= 90 for it in found.values())


def test_what_is_lacking_is_said() -> None:
    error = too_few(ONE.peer, 5_000, wanted(100_000, 300_000), kept=1_000)
    assert "has 0.005 credits" in error.message
    assert "takes 0.101, of which 0.001 stay" in error.message
    assert "wallet faucet" in error.todo


async def test_few_credits_pay_for_one_task_and_then_for_none(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker, *_ = await started(network, priced(base=BASE), priced(base=CREDIT))
        assert asker.ledger is not None
        assert asker.paying is not None
        wallet, channels = asker.ledger.wallet, asker.paying.payer.channels
        balance = (await wallet.look()).balance
        await wallet.pay(worker.peers.me, balance - BASE - BASE // 2, lambda _: None)
        told: list[Mapping[str, Any]] = []
        await show_quote(asker, paid_task(1, price_max=2 * BASE), "hash", told.append)
        assert BASE <= told[0]["locks"] <= BASE + BASE // 2
        await asked(asker, paid_task(1, price_max=2 * BASE))
        (row,) = channels.rows()
        assert (row["peer"], row["deposit"], row["charged"]) == (str(worker.peers.me), BASE, BASE)
        orders, left = channels.orders, (await wallet.look()).balance
        with pytest.raises(InputError, match=r"0\.05 credits, too few .* it takes 0\.101"):
            await asked(asker, request(price_max=2 * BASE, level=Level.SIGNED, deadline_s=60))
        assert (channels.orders, (await wallet.look()).balance) == (orders, left)
