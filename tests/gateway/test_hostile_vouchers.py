"""Vouchers by which a client would have work done for nothing, or make others worthless."""

import base64
from pathlib import Path

import pytest

from node.asking.answers import Answered
from node.asking.following import Follower
from node.asking.run import TaskRequest
from node.asking.tasks import TaskRunner
from tests.gateway.test_credit_payments import shop_in
from tests.gateway.test_voucher_payments import OTHER, cost_of, earning, till_of
from wire.content import ContentId
from wire.ledger import ModelPart

MODEL = ContentId.of(b"a model")


async def test_who_asks_for_what_it_paid_for_has_it_again_and_no_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[TaskRequest] = []
    ask, submit = TaskRunner.ask, TaskRunner.submit

    async def asking(self: TaskRunner, request: TaskRequest, follower: Follower) -> Answered | None:
        begun.append(request)
        return await ask(self, request, follower)

    async def submitting(self: TaskRunner, request: TaskRequest) -> ContentId:
        begun.append(request)
        return await submit(self, request)

    monkeypatch.setattr(TaskRunner, "ask", asking)
    monkeypatch.setattr(TaskRunner, "submit", submitting)
    async with shop_in(tmp_path) as shop:
        till = await till_of(shop)
        price = int(till.offer["amount"])
        payload = till.payload(price)
        cost = cost_of(await till.ask(payload))
        tasks = len(begun)
        assert tasks
        for _ in range(3):
            assert cost_of(await till.ask(payload)) == cost
        assert len(begun) == tasks


async def test_no_voucher_over_http_makes_one_that_names_models_worthless(tmp_path: Path) -> None:
    async with shop_in(tmp_path) as shop:
        till = await till_of(shop)
        price = int(till.offer["amount"])
        cost_of(await till.ask(till.payload(price)))
        channels = earning(shop)
        [channel] = channels.by_name.values()
        # Work for tasks was done, too, and the voucher for it names its model.
        channel.charged += price
        channel.models[MODEL] = price
        parts = (ModelPart(model=MODEL, amount=price),)
        named = base64.b64decode(till.payload(3 * price, models=parts)["voucher"])
        channels._take(channel, named)
        assert channel.named == {MODEL: price}
        assert await channels.redeem() == 3 * price
        await till.refused(till.payload(5 * price), "names less for a model", body=OTHER)
        assert channel.highest == 3 * price
