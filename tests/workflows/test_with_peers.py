"""Workflows among real peers: sources are fetched, models asked, receipts kept and checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from node.checking.audit import audit
from node.ingest.http_post import HttpPoster
from node.ingest.owned import OwnedSources
from node.local.control import unheard
from node.local.peer_workflows import open_peer_workflows
from node.peer import Node
from tests.ingest.servers import TLS, MadeUpNetwork, answering, reply
from tests.ingest.test_attested import PRICES, data_peer
from tests.ingest.test_bring import ingest_at
from tests.node.network import D, I, Network, S, V, open_network
from wire.content import ContentId
from wire.errors import BatonError

EMBED = '[model]\nname = "hash"\noperation = "embed"\nlevel = "signed"\n'
TABLE = b'[{"t": 1, "price": 1.5}, {"t": 2, "price": 2.5}]'


POSTER = HttpPoster(MadeUpNetwork().seam, TLS)


async def own_data_peer(network: Network, site: MadeUpNetwork) -> Node:
    """A peer that brings in its owner's sources, and keeps workflows."""
    folder = network.folder / str(network.opened)
    folder.mkdir(exist_ok=True)
    ingest = ingest_at(folder, site)
    return await network.start(D, S, alter=lambda it: replace(it, ingest=ingest))


async def command(node: Node, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the commands say, one after the other."""
    found: list[dict[str, Any]] = []
    refused: BatonError | None = None
    async with open_peer_workflows(node, POSTER) as commands:
        try:
            for name, given in calls:
                found.append(dict(await commands[f"workflows-{name}"](given, unheard)))
        except BatonError as error:
            # Raised outside, where it is no group.
            refused = error
    if refused is not None:
        raise refused
    return found


async def test_a_run_fetches_asks_and_keeps_what_its_receipts_stand_on(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    site = MadeUpNetwork(answer=answering(reply(TABLE)))
    async with open_network(tmp_path) as network:
        keeping = await own_data_peer(network, site)
        await network.start(I, S)
        for _ in range(2):
            await network.start(V, S)
        await network.settled()
        OwnedSources(keeping.config.state).add("prices", PRICES)
        text = 'every = "1h"\n[source]\nname = "prices"\n' + EMBED.replace(
            'level = "signed"', 'verdicts = "1/2"'
        )
        added, ran, again, listed, history = await command(
            keeping,
            ("add", {"name": "w", "text": text}),
            ("run", {"name": "w"}),
            ("run", {"name": "w"}),
            ("list", {}),
            ("history", {"name": "w"}),
        )
        assert added["slots"][0] == "2027-01-15T09:00:00.000Z"
        assert (ran["end"], ran["tries"], ran["why"]) == ("done", 1, "")
        assert (ran["result"]["dimensions"], ran["result"]["verdicts"]) == (64, 1)
        # Each run is a task and a fetch of its own.
        assert again["receipt"] != ran["receipt"]
        assert len([it for it in site.asked if "robots" not in it]) == 2
        assert listed["workflows"][0]["last"]["number"] == 2
        assert [it["number"] for it in history["entries"]] == [2, 1]
        store = keeping.dependencies.store
        pins = {it.id for it in store.pins() if it.why == "workflow:w:1"}
        answers = [ContentId.parse(it) for it in (ran["receipt"], *ran["fetch_receipts"])]
        assert set(answers) <= pins
        contents = {it: await store.get(it) for it in pins}
        for answer in answers:
            assert audit(contents[answer], contents.get).holds


async def test_an_inline_source_is_the_owners_own_for_its_own_peer_and_a_strangers_for_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    site = MadeUpNetwork(answer=answering(reply(TABLE)))
    text = f'every = "1h"\ntries = 1\n[source]\n{PRICES.replace("keep_headers", "keep_headers")}'
    async with open_network(tmp_path) as network:
        own = await own_data_peer(network, site)
        other = await network.start(S)
        await network.settled()
        _, ran = await command(own, ("add", {"name": "w", "text": text}), ("run", {"name": "w"}))
        assert ran["result"] == {"columns": ["t", "price"], "rows": [[1, 1.5], [2, 2.5]]}
        assert ran["receipt"] is None
        assert len(ran["fetch_receipts"]) == 1
        _, refused = await command(
            other, ("add", {"name": "w", "text": text}), ("run", {"name": "w"})
        )
        assert refused["end"] == "failed"
        assert refused["why"]


async def test_a_quorum_of_data_peers_stands_behind_a_result(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = f'every = "1h"\n[source]\nquorum = 3\nagree = "median 1%"\n{PRICES}{EMBED}'
    async with open_network(tmp_path) as network:
        keeping = await network.start(S)
        await network.start(I, S)
        for _ in range(3):
            await data_peer(network, strangers="*")
        await network.settled()
        _, ran = await command(
            keeping, ("add", {"name": "w", "text": text}), ("run", {"name": "w"})
        )
        assert (ran["end"], len(ran["fetch_receipts"])) == ("done", 3)


async def test_what_cannot_be_done_is_the_entrys_reason(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        keeping = await network.start(S)
        await network.start(I, S)
        await network.settled()
        words = 'every = "1h"\ntries = 1\n[source]\n'
        for text, said in (
            (words + 'name = "gone"\n' + EMBED, "no other data peer is known here"),
            (words + 'text = "a"\n' + EMBED.replace('"hash"', '"fly"'), "no model 'fly'"),
            (words + 'text = "a"\n' + EMBED.replace('"embed"', '"generate"'), "hash"),
        ):
            _, ran, _ = await command(
                keeping,
                ("add", {"name": "w", "text": text}),
                ("run", {"name": "w"}),
                ("rm", {"name": "w"}),
            )
            assert said in ran["why"] or ran["end"] == "done"


async def test_a_workflow_that_is_not_there_is_said_to_be_missing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        keeping = await network.start(S)
        for what in ("show", "run", "history", "pause", "resume", "rm"):
            with pytest.raises(BatonError, match="no workflow 'gone' here"):
                await command(keeping, (what, {"name": "gone"}))
            with pytest.raises(BatonError, match="the name is missing"):
                await command(keeping, (what, {}))


async def test_a_model_that_cannot_do_what_is_asked_is_found_when_the_workflow_is_added(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    small = 'every = "1h"\n[source]\ntext = "a"\n[model]\nname = "{model}"\n'
    async with open_network(tmp_path) as network:
        keeping = await network.start(S)
        await network.start(I, S)
        await network.settled()
        with pytest.raises(BatonError, match=r"minilm has no operation 'generate'.*= \"embed\""):
            await command(keeping, ("add", {"name": "w", "text": small.format(model="minilm")}))
        text = small.format(model="hash").replace("text = ", 'name = "p"\n#')
        text += '[model.inputs.x]\ncolumns = ["a"]\n'
        with pytest.raises(BatonError, match="the model hash has no operation 'call'"):
            await command(keeping, ("add", {"name": "w", "text": text}))
        # One that nobody runs yet may come.
        await command(keeping, ("add", {"name": "w", "text": small.format(model="later")}))
