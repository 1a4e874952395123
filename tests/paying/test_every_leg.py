"""Legs after the first, verdicts and copies are paid too, each to who did them, and no more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.checking.audit import audit
from node.checking.report import ReceiptPart, Status
from node.local.ask_commands import AskCommands
from node.local.content_commands import ContentCommands
from node.local.ledger_commands import LedgerCommands
from node.paying.till import GivenBy
from node.paying_config import DATA, STORE, TypedPrice, TypedPrices
from node.peer import Node
from tests.node.asking import EMBED, TEXTS, asked, request, task_of
from tests.node.engines import Counted, Liar, one_row
from tests.node.network import D, I, Network, S, open_network
from tests.paying.test_priced_peers import priced, said_by, settled, started
from wire.content import ContentId
from wire.errors import InputError, Refused
from wire.kinds import RefusalCode
from wire.tariff import UNITS, ChargeKind


async def with_data(network: Network, *prices: TypedPrices, data: int) -> tuple[Node, ...]:
    """As `started`, with a verifier, and a data peer that asks for so much for each passage."""
    nodes = await started(network, *prices, verifiers=1)
    fetch = TypedPrices({DATA: TypedPrice(7, data * UNITS, 0)})
    more = await network.start(
        D, models=(), number=50, genesis=nodes[0].config.genesis, prices=fetch
    )
    await network.settled()
    # The price of a model is said once the model is ready.
    await trio.sleep(30)
    return (*nodes, more)


TERMS = {"model": "hash", "sources": ["pydoc:try"], "needed": 1, "verifiers": 1}


async def test_every_leg_of_an_index_is_paid_though_one_peer_hands_on_to_the_next(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker, checker, data = await with_data(network, priced(given=3, check=5), data=2)
        told: list[Mapping[str, Any]] = []
        with pytest.raises(InputError, match=r"its next part costs up to 0\.000172: 0 parts"):
            await AskCommands(asker).embed(TERMS | {"price_max": 10}, told.append)
        found = await AskCommands(asker).embed(TERMS | {"price_max": 100_000}, told.append)
        parts = [it for it in told if it["event"] == "part"]
        assert found["tasks"] == len(parts) == [it["event"] for it in told].count("accepted") > 0
        passages = found["passages"]
        for part in parts:
            assert [it["peer"] for it in part["route"]] == [
                str(it.peers.me) for it in (data, worker)
            ]
            (verdict,) = part["verdicts"]
            assert verdict["peer"] == str(checker.peers.me)
            split = [(it["peer"], it["for"], it["leg"]) for it in part["charges"]]
            assert split == [
                (str(data.peers.me), "leg", 1),
                (str(worker.peers.me), "leg", 2),
                (str(checker.peers.me), "check", 2),
            ]
            raw = await asker.dependencies.store.get(ContentId.parse(part["receipt"]))
            outputs = [
                await node.dependencies.store.get(ContentId.parse(leg["output"]))
                for node, leg in zip((data, worker), part["route"], strict=True)
            ]
            report = audit(raw, {ContentId.of(it): it for it in outputs}.get)
            assert report.of_part(ReceiptPart.COST).status is Status.HOLDS
        fetched = 7 * len(parts) + 2 * passages
        for node, amount in (
            (data, fetched),
            (worker, 3 * passages),
            (checker, 5 * len(parts)),
        ):
            paid, earned = await settled(asker, node)
            assert paid.charged == earned.charged == amount
        wanted = [it["for"] for it in LedgerCommands(data).earned()]
        assert wanted == ["data"]


async def test_an_index_costs_no_more_in_all_than_it_may(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, *_ = await with_data(network, priced(given=3, check=5), data=2)
        two = TERMS | {"sources": ["pydoc:try", "pydoc:with"], "price_max": 200}
        with pytest.raises(InputError, match="credits are left for this index"):
            await AskCommands(asker).embed(two, lambda _: None)
        channels = asker.paying.payer.channels.by_peer  # type: ignore[union-attr]
        assert 0 < sum(it.charged for it in channels.values()) <= 200
        found = await AskCommands(asker).embed(two | {"price_max": 400}, lambda _: None)
        assert found["tasks"] == 2
        assert found["charged"] <= 400


async def test_nobody_has_a_leg_paid_that_is_not_its_to_give(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker, checker, data = await with_data(network, priced(given=3, check=5), data=2)
        await AskCommands(asker).embed(TERMS | {"price_max": 100_000}, lambda _: None)
        till, wall_s = worker.leg_server.till, asker.dependencies.environment.wall_s()
        assert till is not None
        task = task_of(asker.dependencies.key, wall_s, price_max=20)
        signers_of = [data.peers.me]
        for by, given_by in ((checker.peers.me, GivenBy.OTHER), (data.peers.me, GivenBy.DOER)):
            assert GivenBy.of(by, worker.peers.me, asker.peers.me, signers_of) is given_by
        assert GivenBy.of(data.peers.me, worker.peers.me, asker.peers.me, []) is GivenBy.OTHER
        with pytest.raises(Refused) as refused:
            till.seat(task, EMBED, TEXTS, 3, given_by=GivenBy.OTHER)
        assert refused.value.code is RefusalCode.NOT_PAID
        # Given on twice, by one who means ill: the task still costs no more than it allows.
        first = till.seat(task, EMBED, TEXTS, 3, given_by=GivenBy.DOER)
        second = till.seat(task, EMBED, TEXTS, 3, given_by=GivenBy.DOER)
        assert first is not None
        assert second is not None
        with pytest.raises(Refused, match="the task pays at most"):
            till.seat(task, EMBED, TEXTS, 3, given_by=GivenBy.DOER)
        second.close()
        third = till.seat(task, EMBED, TEXTS, 3, given_by=GivenBy.DOER)
        assert third is not None
        for seat in (first, third):
            seat.close()
        assert till.channels.of(asker.peers.me).held == 0  # type: ignore[union-attr]


async def test_who_keeps_a_copy_is_paid_once_it_has_shown_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (asker,) = await started(network)
        keep = TypedPrices({STORE: TypedPrice(3, 2 * UNITS, 0)})
        options = {"genesis": asker.config.genesis, "prices": keep}
        keepers = [await network.start(S, models=(), number=it, **options) for it in (60, 61)]
        await network.settled()
        with trio.fail_after(60):
            while not all(said_by(asker, it) for it in keepers):
                await trio.sleep(0.1)
        file = tmp_path / "kept"
        file.write_bytes(bytes(5000))
        put = ContentCommands(asker).put
        terms = {"path": str(file), "copies": 3}
        found = await put(terms | {"price_max": 25}, lambda _: None)
        assert found["copies"] == 1
        assert {it["why"] for it in found["refusals"]} == {
            "it asks for 0.000013 credits, and at most 0.000012 are to be paid"
        }
        for _ in range(2):
            # The second time nothing is due: it was paid for as long.
            found = await put(terms | {"price_max": 26}, lambda _: None)
            assert found["copies"] == 3
        for node in keepers:
            paid, earned = await settled(asker, node)
            assert paid.charged == earned.charged == 3 + 2 * 5
            assert [it["for"] for it in LedgerCommands(node).earned()] == ["store"]


async def test_who_finds_an_answer_wrong_is_paid_too_and_who_made_it_is_not(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        prices = priced(base=100, check=10)
        asker, checker = await started(network, verifiers=1, verdicts=prices)
        options = {"genesis": asker.config.genesis, "prices": prices}
        liar = await network.start(I, engine=Liar(one_row), number=60, **options)
        honest = await network.start(I, engine=Counted(), number=61, **options)
        await network.settled()
        # The price of a model is said once the model is ready.
        await trio.sleep(30)
        # Who says that it takes no time is asked first.
        answered, _ = await asked(asker, request(price_max=1000, verifiers=1, needed=1))
        kinds = [(it.kind, it.amount) for it in answered.answer.record.charges]
        assert sorted(kinds) == [
            (ChargeKind.LEG, 100),
            (ChargeKind.CHECK, 10),
            (ChargeKind.REJECTED, 10),
        ]
        kept = {ContentId.of(it): it for it in (TEXTS, answered.output)}
        report = audit(answered.answer.raw, kept.get).of_part(ReceiptPart.COST)
        assert report.status is Status.HOLDS
        paid, earned = await settled(asker, checker)
        assert paid.charged == earned.charged == 20
        assert (await settled(asker, honest))[0].charged == 100
        assert asker.paying.payer.channels.by_peer[liar.peers.me].charged == 0  # type: ignore[union-attr]
