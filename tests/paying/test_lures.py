"""Peers that ask for little or nothing, and do no work, keep no table from those that would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from node.asking.run import TaskRequest
from node.local.commands import LocalCommands
from node.local.within_bound import PRICE_HEADROOM, Tried, WithinBound
from node.paying.payer import PriceQuote
from node.task.price_bound import PriceBound
from tests.ledger.test_members import genesis_of
from tests.local.test_rows import asked as bundle_asked
from tests.node.asking import request
from tests.node.engines import Broken
from tests.node.network import D, I, S, open_network
from tests.paying.test_priced_peers import FREE, priced, said_by
from wire.kinds import Role

PRICE = 1000


async def test_a_table_goes_on_to_those_that_ask_for_more_than_lures(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        options: dict[str, Any] = {"genesis": genesis_of(network, members=1, granted=0)}
        asker = await network.start(S, Role.LEDGER, models=(), number=0, **options)
        worker = await network.start(I, number=1, prices=priced(base=PRICE), **options)
        lures = [
            await network.start(I, number=number, prices=it, engine=Broken(), **options)
            for number, it in enumerate((FREE, priced(base=1)), 2)
        ]
        await network.settled()
        with trio.fail_after(60):
            while not all(said_by(asker, it) for it in (worker, *lures)):
                await trio.sleep(0.1)
        heard: list[Mapping[str, Any]] = []
        wanted = bundle_asked(fresh=True, level="signed", price_max=100 * PRICE)
        assert (await LocalCommands(asker).commands()["rows"](wanted, heard.append))["tasks"] == 1
        assert [it["amount"] for it in heard if it["event"] == "charged"] == [PRICE]


async def test_an_index_is_of_all_sources_though_who_asks_for_less_fails(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        options: dict[str, Any] = {"genesis": genesis_of(network, members=1, granted=0)}
        asker = await network.start(S, Role.LEDGER, models=(), number=0, **options)
        await network.start(D, number=1, **options)
        worker = await network.start(I, number=2, prices=priced(base=PRICE), **options)
        lures = [
            await network.start(I, number=number, prices=it, engine=Broken(), **options)
            for number, it in enumerate((FREE, priced(base=1)), 3)
        ]
        await network.settled()
        with trio.fail_after(60):
            while not all(said_by(asker, it) for it in (worker, *lures)):
                await trio.sleep(0.1)
        names = ["pydoc:try", "pydoc:while", "pydoc:if"]
        wanted = {"model": "hash", "sources": names, "level": "signed", "price_max": 100 * PRICE}
        embed = LocalCommands(asker).commands()["embed"]
        more = {"deadline_s": 30, "needed": 0, "verifiers": 0}
        found = await embed(wanted | more, lambda _: None)
        assert (found["tasks"], found["skipped"]) == (len(names), [])
        assert found["charged"] == len(names) * PRICE


def test_a_quote_beyond_an_amount_leaves_out_the_cheapest() -> None:
    quote = PriceQuote(legs=((0, 3, 900), (1, 5)), checks=2)
    beyond = {it: quote.above(it) for it in (-1, 2, 3, 9, 10, 906, 907)}
    assert beyond == {-1: 3, 2: 3, 3: 10, 9: 10, 10: 907, 906: 907, 907: None}
    assert PriceQuote(legs=()).above(0) is None


async def test_what_was_tried_in_vain_is_tried_once_and_never_beyond_the_bound() -> None:
    prices, wanted = (1, 100, 5000), request()

    async def price_of(_: TaskRequest, beyond: int) -> int | None:
        return next((it for it in prices if it > beyond), None)

    within = WithinBound(PriceBound(2000), price_of, "this table", "its next task")
    tried, held = Tried(), list[int]()
    while True:
        try:
            async with within.part(wanted, tried) as part:
                held.append(part)
                raise RuntimeError
        except RuntimeError:
            if not await within.goes_on(wanted, tried):
                break
    assert held == [PRICE_HEADROOM, 100 * PRICE_HEADROOM]
    # Another begins with what those were left with; once one was done, failures are its own.
    other = Tried()
    async with within.part(wanted, other) as part:
        assert part == 100 * PRICE_HEADROOM
    within.bound.most = 10**6
    assert await within.goes_on(wanted, other)
    async with within.part(wanted, Tried()) as part:
        assert part == 100 * PRICE_HEADROOM
    # What is left is enough for the cheapest, who may be asked for that.
    within.bound.charged = 10**6 - 50
    async with within.part(wanted, Tried()) as part:
        assert part == 50
