"""Peers that ask for something: quotes, caps, what is charged, and what an auditor finds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.asking.affording import quote_of
from node.asking.answers import Answered
from node.checking.audit import audit
from node.checking.report import ReceiptPart, Status
from node.paying import paying_channels
from node.paying.channels import PaidChannel
from node.paying.pricing import REUSED_PART, cost_and_need, units_at_most
from node.paying_config import TypedPrice, TypedPrices
from node.peer import Node
from node.task.events import Failed
from tests.ledger import test_members
from tests.ledger.test_members import CREDIT, epoch, genesis_of
from tests.node.asking import (
    EMBED,
    MODEL,
    TEXTS,
    asked,
    complete,
    failures,
    request,
    signers,
    task_of,
)
from tests.node.network import I, Network, S, V, open_network
from wire import limits
from wire.content import ContentId
from wire.errors import InputError, Refused
from wire.kinds import Level, RefusalCode, Role
from wire.ledger import growth_of
from wire.operations import GENERATE
from wire.receipt import Answer
from wire.signed import sign
from wire.tariff import UNITS, ChargeKind
from wire.task import Stage

FREE = TypedPrices()


def priced(base: int = 0, given: int = 0, made: int = 0, check: int = 0) -> TypedPrices:
    return TypedPrices({"hash": TypedPrice(base, given * UNITS, made * UNITS)}, check)


async def started(
    network: Network,
    *prices: TypedPrices,
    verifiers: int = 0,
    verdicts: TypedPrices | None = None,
) -> list[Node]:
    """An asker that is the only member, workers with these prices, and verifiers with the last."""
    genesis = genesis_of(network, members=1, granted=0)
    options: dict[str, Any] = {"genesis": genesis}
    nodes = [await network.start(S, Role.LEDGER, models=(), number=0, **options)]
    nodes += [
        await network.start(I, number=number, prices=it, **options)
        for number, it in enumerate(prices, 1)
    ]
    nodes += [
        await network.start(V, number=100 + it, prices=verdicts or prices[-1], **options)
        for it in range(verifiers)
    ]
    await network.settled()
    with trio.fail_after(60):
        while not all(said_by(nodes[0], it) for it in nodes[1:]):
            await trio.sleep(0.1)
    return nodes


def said_by(asker: Node, other: Node) -> bool:
    """Whether the asker has heard what the other asks for."""
    heard = asker.peers.view.advert_of(other.peers.me)
    asks = bool(other.config.prices.check or other.config.prices.models)
    return heard is not None and (heard.record.tariff is not None) is asks


def charges_of(answered: Answered) -> list[tuple[ChargeKind, int]]:
    return [(it.kind, it.amount) for it in answered.answer.record.charges]


def cost_of(answered: Answered, **have: bytes) -> Status:
    """What an auditor finds of the charges, offline."""
    kept = {ContentId.of(it): it for it in (TEXTS, answered.output, *have.values())}
    return audit(answered.answer.raw, kept.get).of_part(ReceiptPart.COST).status


async def test_a_task_costs_what_the_tariff_says_and_an_auditor_finds_the_same(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100, given=20))
        wanted = request(level=Level.SIGNED, price_max=1000)
        quote = await quote_of(asker.leg_server.dispatcher.directory, wanted)
        assert quote is not None
        assert (quote.least, quote.most) == (160, 160)
        answered, _ = await asked(asker, wanted)
        assert charges_of(answered) == [(ChargeKind.LEG, 160)]
        assert cost_of(answered) is Status.HOLDS
        record = answered.answer.record
        for amount in (159, 161):
            charge = replace(record.charges[0], amount=amount)
            altered = sign(replace(record, charges=(charge,)), asker.dependencies.key)
            assert cost_of(replace(answered, answer=altered)) is Status.FAILS
        mine = sign(worker.paying.own.now.record, asker.dependencies.key)  # type: ignore[union-attr]
        charge = replace(record.charges[0], tariff=mine.raw)
        altered = sign(replace(record, charges=(charge,)), asker.dependencies.key)
        assert cost_of(replace(answered, answer=altered)) is Status.FAILS
        assert Answer.from_bytes(record.to_bytes()) == record


async def test_who_has_kept_the_answer_is_paid_for_it_and_less(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100, given=20))
        wanted = request(level=Level.SIGNED, price_max=1000)
        first, again = [(await asked(asker, wanted))[0] for _ in range(2)]
        assert charges_of(first) == [(ChargeKind.LEG, 160)]
        assert charges_of(again) == [(ChargeKind.LEG, 160 // REUSED_PART)]
        assert cost_of(again) is Status.HOLDS
        assert worker.paying is not None
        (channel,) = worker.paying.till.channels.by_name.values()
        assert channel.charged == 160 + 160 // REUSED_PART


async def test_nothing_asked_for_costs_nothing_and_needs_no_credits(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, dear, free = await started(network, priced(base=100), FREE)
        for number in range(3):
            answered, _ = await asked(asker, request(complete(2 + number), level=Level.SIGNED))
            assert signers(answered) == [free.peers.me]
            assert charges_of(answered) == []
        assert dear.leg_server.done == 0


async def test_a_task_that_would_cost_more_is_refused_before_it_is_accepted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _worker = await started(network, priced(base=20_000))
        for price_max in (0, 19_999):
            with pytest.raises(InputError) as refused:
                await asker.tasks.submit(request(level=Level.SIGNED, price_max=price_max))
            assert "0.02 credits" in refused.value.message
            assert "--pay-max 0.02" in refused.value.todo
        assert asker.tasks.statistics().accepted == 0
        answered, _ = await asked(asker, request(level=Level.SIGNED, price_max=20_000))
        assert charges_of(answered) == [(ChargeKind.LEG, 20_000)]


async def test_a_peer_takes_no_task_that_pays_less_than_it_asks(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))
        till = worker.leg_server.till
        assert till is not None
        wall_s = asker.dependencies.environment.wall_s()
        await asked(asker, request(complete(1), level=Level.SIGNED, price_max=100))
        for price_max in (0, 99):
            task = task_of(asker.dependencies.key, wall_s, price_max=price_max)
            with pytest.raises(Refused) as refused:
                till.seat(task, EMBED, TEXTS, 3)
            assert refused.value.code is RefusalCode.NOT_PAID
        till.seat(task_of(asker.dependencies.key, wall_s, price_max=100), EMBED, TEXTS, 3)
        till.seat(task_of(worker.dependencies.key, wall_s), EMBED, TEXTS, 3)


async def test_the_longest_prompt_can_be_paid(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        _, worker = await started(network, priced(base=1, given=1, made=3))
        assert worker.paying is not None
        tariff = worker.paying.own.now
        assert tariff is not None
        parameters = {"tokens": 4096}
        stage = Stage(role=Role.INFER, operation=GENERATE, model=MODEL, parameters=parameters)
        most = units_at_most(stage, bytes(limits.PROMPT_BYTES_MAX))
        assert cost_and_need(tariff.record, stage, most)[1] <= tariff.record.increment


async def test_every_verdict_is_paid_and_a_dear_verifier_is_not_asked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, *_ = await started(network, priced(base=100, check=10), verifiers=3)
        genesis = asker.config.genesis
        dear = await network.start(V, number=9, prices=priced(check=5000), genesis=genesis)
        await network.settled()
        with trio.fail_after(60):
            while not said_by(asker, dear):
                await trio.sleep(0.1)
        wanted = request(price_max=1000, verifiers=3, needed=2)
        answered, events = await asked(asker, wanted)
        kinds = charges_of(answered)
        assert kinds[0] == (ChargeKind.LEG, 100)
        verdicts = len(answered.answer.record.verdicts)
        assert kinds[1:] == [(ChargeKind.CHECK, 10)] * verdicts
        assert verdicts >= 2
        assert dear.verify_role.checked == 0
        assert cost_of(answered) is Status.HOLDS
        assert not [it for it in failures(events) if isinstance(it, Failed) and it.for_good]


async def settled(asker: Node, worker: Node) -> tuple[Any, Any]:
    """The two ends of a channel, once nothing is under way."""
    assert asker.paying is not None
    assert worker.paying is not None
    await trio.sleep(2)
    paid = asker.paying.payer.channels.by_peer[worker.peers.me]
    earned = worker.paying.till.channels.of(asker.peers.me)
    assert earned is not None
    assert (paid.held, paid.shown, earned.held) == (0, 0, 0)
    assert paid.signed <= paid.charged + paid.increment
    assert earned.highest <= paid.signed
    return paid, earned


async def test_many_tasks_are_paid_by_few_vouchers_and_redeemed_by_one_order(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))
        async with trio.open_nursery() as nursery:
            for number in range(100):
                wanted = request(
                    complete(1), data=b"%d" % number, level=Level.SIGNED, price_max=100
                )
                nursery.start_soon(asked, asker, wanted)
        paid, earned = await settled(asker, worker)
        assert paid.charged == earned.charged == 10_000
        assert paid.tasks == earned.tasks == 100
        assert asker.paying is not None
        assert asker.paying.payer.channels.vouchers <= 25
        assert asker.paying.payer.channels.orders == 1
        wallet = asker.ledger.wallet  # type: ignore[union-attr]
        with trio.fail_after(120):
            while earned.unredeemed or not earned.redeemed:
                await trio.sleep(1)
        growth = growth_of(earned.redeemed)
        assert growth == earned.redeemed // 20 > 0
        balance = (await wallet.look(worker.peers.me)).balance
        assert balance == earned.redeemed - growth
        # The fund has the rest, and the supply is what it was.
        await epoch(asker, 3)
        books = asker.ledger.member.replica.books  # type: ignore[union-attr]
        assert books.fund == asker.config.genesis.fund + growth  # type: ignore[union-attr]
        assert books.supply == asker.config.genesis.supply  # type: ignore[union-attr]
        assert worker.paying.till.channels.orders <= 2  # type: ignore[union-attr]


async def test_a_stream_goes_on_as_it_is_paid(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(made=100))
        wanted = request(complete(2000), data=b"go", level=Level.SIGNED, price_max=300_000)
        answered, _ = await asked(asker, wanted)
        paid, earned = await settled(asker, worker)
        assert len(answered.output) > 0
        assert paid.charged == earned.charged == 200_000
        assert asker.paying.payer.channels.vouchers >= 2  # type: ignore[union-attr]


async def test_an_account_without_credits_is_told_so_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=100))
        poor = await network.start(S, models=(), number=50, genesis=asker.config.genesis)
        await network.settled()
        with trio.fail_after(60):
            while not said_by(poor, worker):
                await trio.sleep(0.1)
        with pytest.raises(InputError, match="has 0 credits"):
            await poor.tasks.submit(request(level=Level.SIGNED, price_max=100))


async def test_a_channel_that_is_used_up_or_has_expired_has_another_in_its_place(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paying_channels, "DEPOSIT_INCREMENTS", 1)
    monkeypatch.setattr(paying_channels, "EXPIRY_EPOCHS", 2)
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=1000))
        channels = asker.paying.payer.channels  # type: ignore[union-attr]
        for number in range(140):
            wanted = request(complete(1), data=b"%d" % number, level=Level.SIGNED, price_max=1000)
            await asked(asker, wanted)
        await settled(asker, worker)
        assert channels.orders == 2
        assert len(channels.used_up) == 1
        await epoch(asker, 5)
        await trio.sleep(60)
        assert channels.rows() == []
        view = await asker.ledger.wallet.look()  # type: ignore[union-attr]
        assert view.deposits == 0
        assert 100 * CREDIT - view.balance >= 140_000
        assert 100 * CREDIT - view.balance <= 140_000 + 128_000
        answered, _ = await asked(asker, request(level=Level.SIGNED, price_max=3000))
        assert charges_of(answered) == [(ChargeKind.LEG, 1000)]


async def test_who_pays_much_uses_one_channel_after_the_other_and_waits_for_none(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paying_channels, "DEPOSIT_INCREMENTS_MAX", 1)
    monkeypatch.setattr(paying_channels, "DEPOSIT_TASKS", 4)
    # What is due is redeemed every ten minutes, unless channels become many.
    monkeypatch.setattr(test_members, "EPOCH_S", 3600)
    async with open_network(tmp_path) as network:
        asker, worker = await started(network, priced(base=2000))
        channels = asker.paying.payer.channels  # type: ignore[union-attr]
        for number in range(30):
            wanted = request(complete(1), data=b"%d" % number, level=Level.SIGNED, price_max=2000)
            await asked(asker, wanted)
            await trio.sleep(1)
        paid, _ = await settled(asker, worker)
        assert len(channels.used_up) >= 5
        # The next one is open before it is needed, and its payee is known by what it did before.
        assert worker.peers.me in channels.spare
        assert paid.before + paid.charged == 60_000
        assert paid.risked > 16 * 2000
        assert worker.paying.till.channels.orders >= 1  # type: ignore[union-attr]
        again = PaidChannel.from_bytes(paid.name, paid.to_bytes())
        assert (again.before, again.charged) == (paid.before, paid.charged)
        assert sum(it.charged for it in channels.all()) == 60_000
