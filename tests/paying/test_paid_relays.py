"""Bytes that a relay passes on are paid by who asked for the line, ahead, and by its own count."""

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands import ledger as shown
from node.devnet.relay_faults import BadRules
from node.local.ledger_commands import LedgerCommands
from node.paying_config import read_prices
from p2p.free_bytes import FREE_BYTES
from p2p.score import Standing
from tests.node.network import S, open_network
from tests.p2p.transports import until
from tests.paying.relays import (
    A_MIB,
    A_MIB_COSTS,
    ASKER,
    PRICE,
    add,
    add_relay,
    at_home,
    ends,
    get,
    homes,
    knows,
    quiet,
    relays,
    used,
)
from tests.paying.test_priced_peers import FREE
from tests.paying.test_shown_accounts import told as told_by
from wire.amount import show_credits
from wire.errors import BatonError

PAYS = {"relay_pay_max": 1_000_000}


async def test_what_a_priced_relay_passes_on_is_paid_by_who_asked_for_the_line(
    autojump_clock: MockClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network, **PAYS)
        await get(asker, kept, 6 * A_MIB)
        await quiet()
        paid, earned = ends(asker, relay)
        told = relay.peers.relaying.as_map()
        assert told["carried_bytes"] == told["carried_paid_bytes"] + told["carried_free_bytes"]
        assert told["carried_free_bytes"] < 3 * FREE_BYTES
        assert earned.charged == told["carried_earned"]
        assert earned.charged == pytest.approx(
            told["carried_paid_bytes"] * A_MIB_COSTS / A_MIB, abs=1
        )
        # By its own count, which has no byte beyond what the relay passed on.
        assert paid.charged == pytest.approx(earned.charged, abs=A_MIB_COSTS // 4)
        assert paid.relayed_bytes <= told["carried_bytes"]
        assert earned.tasks == paid.tasks == 0
        assert paid.signed <= paid.charged + paid.risked
        # Who is kept pays nothing.
        assert kept.paying.statistics()["spent"] == 0
        (sum_,) = LedgerCommands(relay).earned()
        assert (sum_["for"], sum_["charged"], sum_["tasks"]) == ("relay", earned.charged, 0)
        assert sum_["bytes"] == told["carried_paid_bytes"]
        (row,) = asker.paying.payer.channels.rows()
        assert row["relayed"] == row["charged"] == paid.charged

        async def call(state: Path, command: str, *_: object, **__: object) -> Any:
            return await told_by(asker if state.parent == tmp_path else relay, command)

        monkeypatch.setattr(shown, "call", call)
        await shown.show_account(tmp_path, None, as_json=False)
        await shown.show_earnings(tmp_path / "relay", redeem=False, as_json=False)
        text = " ".join(capsys.readouterr().out.split())
        amount = show_credits(paid.charged)
        assert f"{amount} paid for 0 tasks and 5.3 MB passed on ({amount})" in text
        assert "relay" in text
        assert "5.3 MB" in text.partition("credits earned")[2]


async def test_the_lines_of_who_pays_nothing_end_at_the_allowance(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network)
        with pytest.raises(BatonError):
            await get(asker, kept, 6 * A_MIB)
        told = relay.peers.relaying.as_map()
        assert told["carried_paid_bytes"] == told["carried_earned"] == 0
        assert FREE_BYTES < told["carried_free_bytes"] < 3 * FREE_BYTES
        # What is free is shared by networks: that of the asker's router, where the relay sees it.
        assert relay.peers.relaying.free is not None
        assert list(relay.peers.relaying.free._peers) == ["46.2.0.0/24"]
        problem = asker.peers.problems[f"relay {relay.peers.me}"]
        assert "asks for 1 credits for a million KiB, and nothing is to be paid" in problem
        assert "--relay-pay-max 1" in problem
        assert not asker.paying.payer.channels.all()
        assert asker.peers.relay_cost(str(relay.peers.me)) > 2.0**64


async def test_a_relay_that_counts_too_much_has_one_promise_and_is_left(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        bad = BadRules(relay.peers.relaying, "relay_meters", Random(1))
        relay.peers.endpoint.set_relay_rules(bad)
        asker, kept = await homes(network, **PAYS)
        problem = f"relay {relay.peers.me}"
        for seed in range(8):
            # Its lines end again and again, as it counts so much.
            with suppress(BatonError):
                await get(asker, kept, 4 * A_MIB, seed)
            await quiet()
            if problem in asker.peers.problems:
                break
        paid, _ = ends(asker, relay)

        assert paid.charged == pytest.approx(paid.relayed_bytes * A_MIB_COSTS / A_MIB, abs=1)
        assert paid.signed <= paid.charged + paid.increment
        assert "it is paid for no more" in asker.peers.problems[problem]
        assert asker.peers.relay_cost(str(relay.peers.me)) == float("inf")
        assert asker.peers.standing_at_work(relay.peers.me) is Standing.UNWELCOME
        signed = paid.signed
        with pytest.raises(BatonError):
            await get(asker, kept, 6 * A_MIB, 99)
        assert paid.signed == signed


@pytest.mark.soak
async def test_open_lines_go_on_by_another_price_once_both_agreed_on_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network, **PAYS)
        await get(asker, kept, 3 * A_MIB)
        own = relay.paying.own
        own.typed = read_prices(["relay=0.1/1m"], None)
        await own.refresh()
        before = ends(asker, relay)[1].charged
        await get(asker, kept, 8 * A_MIB, 1)
        await quiet()
        paid, earned = ends(asker, relay)
        assert earned.tariff == paid.tariff == own.now.id
        assert 0 < earned.charged - before < 0.85 * A_MIB_COSTS
        assert paid.charged == pytest.approx(earned.charged, abs=A_MIB_COSTS * 2)
        assert asker.peers.endpoint.lines()[kept.peers.me].moved_bytes > 11 * A_MIB


@pytest.mark.soak
async def test_a_relay_that_starts_again_goes_on_with_what_it_has_charged(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        member, relay = await relays(network, read_prices(["relay=2/1m"], None), PRICE)
        asker, kept = await homes(network, 2, **PAYS)
        await get(asker, kept, 3 * A_MIB)
        await quiet()
        before = ends(asker, relay)[1].charged
        store = relay.dependencies.store
        network.kill(relay)
        await trio.sleep(1)
        relay = await add_relay(network, store=store)
        await until(lambda: relay.peers.me in kept.peers.relaying.relays(), 300)
        await trio.sleep(30)
        # The one that is kept pays nothing, so it calls nobody for company through such a relay.
        assert not kept.peers.endpoint.relayed()
        await get(asker, kept, 3 * A_MIB, 1)
        await quiet()
        paid, earned = ends(asker, relay)
        assert earned.charged > before + 2 * A_MIB_COSTS
        assert paid.charged == pytest.approx(earned.charged, abs=A_MIB_COSTS * 2)
        assert member.peers.relaying.as_map()["carried_paid_bytes"] == 0


@pytest.mark.soak
async def test_an_asker_that_starts_again_goes_on_paying_out_of_its_channel(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network, **PAYS)
        await get(asker, kept, 3 * A_MIB)
        await quiet()
        before = ends(asker, relay)[0]
        store = asker.dependencies.store
        network.kill(asker)
        await trio.sleep(1)
        asker = await add(network, ASKER, at_home(2), S, store=store, **PAYS)
        await until(lambda: knows(asker, kept), 120)
        await get(asker, kept, 6 * A_MIB, 1)
        await quiet()
        paid, earned = ends(asker, relay)
        assert paid.name == before.name
        assert paid.charged > before.charged + 5 * A_MIB_COSTS
        assert paid.charged == pytest.approx(earned.charged, abs=A_MIB_COSTS // 4)
        assert not asker.peers.problems.get(f"relay {relay.peers.me}")


@pytest.mark.soak
async def test_a_relay_that_asks_for_nothing_is_used_before_one_that_asks(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        free, dear, cheap = await relays(network, FREE, read_prices(["relay=2/1m"], None), PRICE)
        asker, kept = await homes(network, 3, relay_pay_max=3_000_000)
        await get(asker, kept, 2 * A_MIB)
        assert used(asker, [free, dear, cheap]) is free
        for it in (cheap, dear):
            # Its prices are asked for when it may be used; until then it is none that is free.
            assert asker.peers.relay_cost(str(it.peers.me)) > 0.0
        await quiet()
        costs = [asker.peers.relay_cost(str(it.peers.me)) for it in (free, cheap, dear)]
        assert costs == [0.0, 1e6, 2e6]
        assert asker.peers.relay_cost("no peer") == 0.0
        assert not asker.paying.payer.channels.all()
