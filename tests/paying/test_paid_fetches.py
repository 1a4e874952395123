"""What data peers ask for where a user meets it: fetches, calls on sources, and workflows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.local.ask_commands import AskCommands
from node.local.fetch_commands import FetchCommands
from node.paying_config import DATA, TypedPrice, TypedPrices
from node.peer import Node
from tests.checking.exact_peers import NumpyEngine
from tests.engines.exact.samples import kept_at
from tests.ingest.servers import MadeUpNetwork, answering, reply
from tests.ingest.test_attested import unheard
from tests.ingest.test_bring import ingest_at
from tests.ingest.test_source_calls import BODY, MODEL, SOURCE, STACK, TERMS
from tests.ledger.test_members import genesis_of
from tests.node.network import D, I, S, open_network
from tests.paying.test_priced_peers import said_by
from tests.workflows.test_with_peers import command
from wire.errors import InputError
from wire.kinds import Role

FETCH, CALL = 100, 40


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Node, Node, Node]]:
    """An asker, a data peer that asks for a fetch, and a peer that asks for a call."""
    owner = folder / "owner"
    owner.mkdir()
    ingest = ingest_at(owner, MadeUpNetwork(answer=answering(reply(BODY))))
    ingest.owned.add("digits", SOURCE + STACK)
    async with open_network(folder) as network:
        shared: dict[str, Any] = {"genesis": genesis_of(network, members=1, granted=0)}
        asker = await network.start(S, Role.LEDGER, models=(), number=0, **shared)
        data = await network.start(
            D,
            S,
            alter=lambda it: replace(it, ingest=ingest),
            prices=TypedPrices({DATA: TypedPrice(FETCH, 0, 0)}),
            number=1,
            **shared,
        )
        file = str(kept_at(folder, MODEL, "digits"))
        worker = await network.start(
            I,
            S,
            engine=NumpyEngine(unit_s=0.01),
            models=(file,),
            prices=TypedPrices({file: TypedPrice(CALL, 0, 0)}),
            number=2,
            **shared,
        )
        await network.settled()
        with trio.fail_after(60):
            while not (said_by(asker, data) and said_by(asker, worker)):
                await trio.sleep(0.1)
        yield asker, data, worker


def paid_to(asker: Node, other: Node) -> int:
    assert asker.paying is not None
    channel = asker.paying.payer.channels.by_peer.get(other.peers.me)
    return 0 if channel is None else channel.charged


async def test_a_fetch_a_call_on_a_source_and_a_slot_are_paid_within_what_they_may_cost(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with opened(tmp_path) as (asker, data, worker):
        with pytest.raises(InputError, match="nothing may be paid for it") as refused:
            await AskCommands(asker).embed(TERMS, unheard)
        assert refused.value.todo == "allow more: --pay-max 0.0002"
        with pytest.raises(InputError, match=r"costs up to 0\.0001 .* 0\.00009"):
            await AskCommands(asker).embed(TERMS | {"price_max": 2 * FETCH - 20}, unheard)
        assert paid_to(asker, data) == 0
        found = await AskCommands(asker).embed(TERMS | {"price_max": 2 * FETCH}, unheard)
        assert [it["charged"] for it in found["fetched"]] == [FETCH]
        assert (found["charged"], found["charged_whole"]) == (CALL, FETCH + CALL)
        assert (found["price_max"], found["price_max_whole"]) == (FETCH, 2 * FETCH)
        assert (paid_to(asker, data), paid_to(asker, worker)) == (FETCH, CALL)

        fetch = {"name": "digits", "deadline_s": 30}
        with pytest.raises(InputError, match="nothing is to be paid"):
            await FetchCommands(asker).fetch(fetch, unheard)
        told: list[Any] = []
        alone = await FetchCommands(asker).fetch(fetch | {"price_max": FETCH}, told.append)
        assert (alone["charged"], alone["price_max"]) == (FETCH, FETCH)
        assert [it["least"] for it in told if it["event"] == "quote"] == [FETCH]

        model = '[model]\nname = "digits"\noperation = "call"\nlevel = "signed"\n'
        text = f'every = "1h"\ntries = 1\n[source]\nname = "digits"\n{model}'
        added = ("add", {"name": "w", "text": f'pay_max = "0.0002"\n{text}'})
        _, ran, told_of = await command(
            asker, added, ("run", {"name": "w"}), ("history", {"name": "w"})
        )
        assert (ran["end"], ran["why"], ran["charged"]) == ("done", "", FETCH + CALL)
        assert [it["charged"] for it in told_of["entries"]] == [FETCH + CALL]
        poor = ("add", {"name": "poor", "text": text})
        _, refused_run = await command(asker, poor, ("run", {"name": "poor"}))
        assert refused_run["end"] == "failed"
        assert "to be paid" in refused_run["why"]
        before = paid_to(asker, data)
        assert before == 3 * FETCH
