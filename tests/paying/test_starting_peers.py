"""A peer with prices does nothing for free while it starts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node import peer as peer_module
from node.ledger.peer_ledger import open_ledger
from tests.node.asking import EMBED, TEXTS, task_of
from tests.node.network import I, open_network
from tests.paying.test_cheating_payers import end_of
from tests.paying.test_priced_peers import priced, started
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.message import Offer, Refuse
from wire.signed import sign


async def test_a_model_whose_price_is_not_in_the_tariff_yet_is_not_run_for_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))
        till = worker.leg_server.till
        assert till is not None
        tariff = till.own.now
        assert tariff is not None
        task = task_of(asker.dependencies.key, asker.dependencies.environment.wall_s())
        for stale in (None, sign(replace(tariff.record, models=()), worker.dependencies.key)):
            till.own.now = stale
            with pytest.raises(Refused) as refused:
                till.seat(task, EMBED, TEXTS, 3)
            assert refused.value.code is RefusalCode.NOT_PAID
            assert refused.value.retry_after_s is not None
        assert not till.own.awaits(None)


async def test_who_has_prices_takes_no_work_until_they_are_known(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = trio.Event()

    async def slowly(*parts: Any, **options: Any) -> Any:
        await opened.wait()
        return await open_ledger(*parts, **options)

    async with open_network(tmp_path) as network:
        asker, _ = await started(network, priced(base=100))
        monkeypatch.setattr(peer_module, "open_ledger", slowly)
        genesis, prices = asker.config.genesis, priced(base=100)
        task = task_of(asker.dependencies.key, asker.dependencies.environment.wall_s())
        offer = Offer(
            task=task.raw,
            stage=0,
            receipts=(),
            input=TEXTS,
            deadline_ms=60_000,
            units=3,
            resume=None,
            avoid=(),
        )
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                node = await network.start(I, number=9, genesis=genesis, prices=prices)
                assert not node.leg_server.paused

            nursery.start_soon(start)
            await trio.sleep(5)
            async with asker.peers.call(network.key(9).peer, deadline_s=50) as call:
                await call.send(offer)
                refused = await end_of(call)
            assert isinstance(refused, Refuse)
            assert refused.cause is RefusalCode.PAUSED
            opened.set()
