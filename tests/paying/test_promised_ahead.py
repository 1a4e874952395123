"""Tasks that come together are promised before they are given, and wait as little as can be."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.paying import own_tariff, paying_channels
from tests.node.asking import asked, complete, request
from tests.node.network import open_network
from tests.paying.test_priced_peers import priced, settled, started
from wire.kinds import Level

BASE = 1000


async def _ask_at_once(asker: Any, numbers: range) -> None:
    async with trio.open_nursery() as nursery:
        for number in numbers:
            wanted = request(complete(1), data=b"%d" % number, level=Level.SIGNED, price_max=BASE)
            nursery.start_soon(asked, asker, wanted)


async def test_no_more_tasks_are_given_at_once_than_are_promised(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_tariff, "INCREMENT_TASKS", 10)
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=BASE))
        for number in range(20):
            await _ask_at_once(asker, range(number, number + 1))
        before = asker.tasks._direct.count
        await _ask_at_once(asker, range(100, 140))
        paid, earned = await settled(asker, worker)
        assert paid.charged == earned.charged == 60 * BASE
        # They came in one bundle, of which the first few went the short way.
        assert 0 < asker.tasks._direct.count - before < 40
        # A worker that has to refuse work as not paid is shown its channel anew, which takes long.
        assert worker.paying.till.unpaid == 0  # type: ignore[union-attr]


async def test_the_next_channel_is_shown_and_paid_by_one_message_as_the_one_before_ends(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paying_channels, "DEPOSIT_INCREMENTS_MAX", 1)
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=BASE))
        channels = asker.paying.payer.channels  # type: ignore[union-attr]
        shown, call = [], paying_channels.pay

        async def note(peers: Any, channel: Any, named: Any, voucher: Any, *, shows: bool) -> Any:
            shown.append((channel.name, shows, voucher is not None))
            return await call(peers, channel, named, voucher, shows=shows)

        monkeypatch.setattr(paying_channels, "pay", note)
        for at in range(0, 320, 64):
            await _ask_at_once(asker, range(at, at + 64))
            await trio.sleep(1)
        paid, _ = await settled(asker, worker)
        assert len(channels.used_up) == 2
        first = [next(it for it in shown if it[0] == of.name) for of in (*channels.used_up, paid)]
        assert first == [(it[0], True, True) for it in first]
        assert sum(it[1] for it in shown) == 3
        # What was promised ahead in the one before is, in the next one, too.
        assert paid.ahead >= BASE * 64
        assert worker.paying.till.unpaid == 0  # type: ignore[union-attr]
