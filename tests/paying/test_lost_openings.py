"""Either end dies between a channel's settled opening and its rows: the deposit is found again."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.paying import paying_channels
from node.paying.earning_channels import IN
from node.paying.settling_up import SettlingUp
from store import Write, open_memory_store
from tests.ledger.test_members import epoch
from tests.node.asking import asked
from tests.node.network import I, S, open_network
from tests.paying.test_hostile_payments import paid_task
from tests.paying.test_lost_disks import PRICE, ask, known, two
from tests.paying.test_priced_peers import priced, settled
from wire.kinds import Role


class Dying:
    """A store that keeps no rows of channels any more: its peer dies before they are there."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.reached = trio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def commit(self, write: Write) -> None:
        self.reached.set()
        await trio.sleep_forever()

    def write_soon(self, table: Any, key: bytes, value: bytes | None) -> None:
        assert key.startswith(IN)
        self.reached.set()


async def test_a_payer_that_dies_as_it_opens_a_channel_uses_it_when_it_starts_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        open_network(tmp_path) as network,
        open_memory_store(quota_bytes=1 << 30) as one,
        open_memory_store(quota_bytes=1 << 30) as two_,
    ):
        asker, worker = await two(network, [one, two_])
        assert asker.paying is not None
        channels = asker.paying.payer.channels
        channels.store = dying = Dying(one)  # type: ignore[assignment]
        with trio.move_on_after(20):
            await asked(asker, paid_task(1, price_max=PRICE, deadline_s=10))
        assert dying.reached.is_set()
        assert not channels.by_peer
        locked = (await asker.ledger.wallet.look()).deposits  # type: ignore[union-attr]
        assert locked
        genesis = asker.config.genesis
        network.kill(asker)
        await trio.sleep(20)
        asker = await network.start(S, Role.LEDGER, models=(), number=0, genesis=genesis, store=one)
        await known(network, asker, worker)
        await ask(asker, 1, 5)
        paid, earned = await settled(asker, worker)
        assert paid.charged == earned.charged == 5 * PRICE
        assert asker.paying is not None
        channels = asker.paying.payer.channels
        assert (channels.orders, paid.deposit) == (0, locked)
        assert (await asker.ledger.wallet.look()).deposits == locked  # type: ignore[union-attr]
        # It is noted now, and no second time.
        await SettlingUp(asker.paying.payer).find_forgotten(at_once=True)
        assert channels.all() == [paid]


async def test_a_channel_that_was_taken_back_is_not_found_again(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paying_channels, "EXPIRY_EPOCHS", 2)
    async with (
        open_network(tmp_path) as network,
        open_memory_store(quota_bytes=1 << 30) as one,
        open_memory_store(quota_bytes=1 << 30) as two_,
    ):
        asker, worker = await two(network, [one, two_])
        await ask(asker, 1, 2)
        await epoch(asker, 5)
        await trio.sleep(60)
        assert asker.paying is not None
        assert asker.paying.payer.channels.rows() == []
        genesis = asker.config.genesis
        network.kill(asker)
        await trio.sleep(20)
        asker = await network.start(S, Role.LEDGER, models=(), number=0, genesis=genesis, store=one)
        await known(network, asker, worker)
        assert asker.paying is not None
        assert asker.paying.payer.channels.rows() == []


async def test_a_payee_that_dies_as_a_channel_is_shown_is_shown_it_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        open_network(tmp_path) as network,
        open_memory_store(quota_bytes=1 << 30) as one,
        open_memory_store(quota_bytes=1 << 30) as two_,
    ):
        asker, worker = await two(network, [one, two_])
        assert worker.paying is not None
        assert asker.paying is not None
        earning = worker.paying.till.channels
        earning.store = dying = Dying(two_)  # type: ignore[assignment]
        channels = asker.paying.payer.channels
        with trio.move_on_after(20):
            await asked(asker, paid_task(1, price_max=PRICE, deadline_s=10))
        assert dying.reached.is_set()
        assert earning.by_name
        network.kill(worker)
        await trio.sleep(20)
        worker = await network.start(
            I, number=1, genesis=asker.config.genesis, prices=priced(base=PRICE), store=two_
        )
        assert worker.paying is not None
        assert not worker.paying.till.channels.by_name
        await known(network, asker, worker)
        await ask(asker, 2, 5)
        paid, earned = await settled(asker, worker)
        # It sees the whole deposit, out of which it is paid; no other channel was opened.
        assert (earned.name, earned.deposit) == (paid.name, paid.deposit)
        assert earned.highest >= earned.charged
        assert (channels.orders, channels.used_up) == (1, [])
