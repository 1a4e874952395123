"""Relays of a devnet with credits ask for what they pass on: what has to hold, and its controls."""

from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import MockClock

from node.devnet import homes
from node.devnet.economy_plan import RELAYED, prices_of
from node.devnet.faults import parse
from node.devnet.net import Devnet
from node.devnet.plan import plan_peers
from node.devnet.relay_accounts import FREE, NO_MORE, RelayAccounts
from node.devnet.report import report_of
from node.paying_config import RELAY, TypedPrice
from p2p.free_bytes import FREE_BYTES
from tests.devnet.running import economy, opened


def test_who_passes_on_asks_for_it_and_nobody_else_does() -> None:
    plans = plan_peers(20, 7)
    assert all(RELAY not in prices_of(it).models for it in plans)
    assert all(prices_of(it, relays=True).models[RELAY].given == RELAYED for it in plans)
    asker = next(it for it in plans if it.asks)
    assert prices_of(asker, relays=True).models == {RELAY: TypedPrice(0, RELAYED, 0)}


@pytest.mark.soak
@pytest.mark.parametrize("faults", ["", "relay_meters=0.9", "relay_kill=0.3"])
async def test_relays_are_paid_for_what_passes_and_for_no_more(
    autojump_clock: MockClock, tmp_path: Path, faults: str
) -> None:
    wanted = economy(peers=16, epochs=4, epoch_s=6, rate=2)
    wanted = replace(wanted, nat=homes.parse("0.5"), faults=parse(faults))
    async with opened(tmp_path, wanted) as net:
        await net.run()
        report = report_of(net)
        assert report.passed, report.lines()
        found = report.document
        assert found["relays_passed_bytes"] > found["relays_paid_bytes"] > 0
        assert found["relays_free_bytes_most"] < 2 * FREE_BYTES
        assert "bytes passed" in "\n".join(found["economy"]["told"])
        what_is_wrong_is_found(net)


def what_is_wrong_is_found(net: Devnet) -> None:
    """Controls: a relay that gives for nothing, an asker that pays for what did not pass."""
    assert net.economy is not None
    increments = net.economy.watch.increments
    good = {it.number for it in net.peers}

    def told() -> list[str]:
        net.violations.found.clear()
        RelayAccounts(net.violations).draw_up(net.peers, good, increments, 60.0)
        return [str(it) for it in net.violations.found]

    assert not told()
    asker, relay = next(
        (asker, relay)
        for asker in net.living()
        for relay in net.peers
        if relay.is_open and relay.relay_load.paid_for[asker.key.peer] and asker.node is not None
    )
    before = relay.relay_load.passed_for[asker.key.peer]
    relay.relay_load.passed_for[asker.key.peer] += relay.starts * 2 * FREE_BYTES
    assert any(FREE in it for it in told())
    relay.relay_load.passed_for[asker.key.peer] = before
    channel = asker.node.paying.payer.channels.by_peer[relay.key.peer]  # type: ignore[union-attr]
    channel.relayed += 2 * increments[relay.key.peer] + RELAYED
    assert any(NO_MORE in it for it in told())
