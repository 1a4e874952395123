"""Verdicts on an answer of an exact transformer that disagree: who asked reads the answer again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from trio.testing import MockClock

from node.models.inspect import describe
from node.peer import Node
from p2p.score import Standing
from tests.checking.exact_text_peers import Alter, TextEngine, some_weights_off
from tests.engines.exact.text_models import made_at
from tests.node.asking import asked, failures, request, signers
from tests.node.network import I, Network, S, V, open_network
from wire.generation import Generation, Token, read_frames
from wire.kinds import Level, Role
from wire.model import ModelFile
from wire.task import Stage
from wire.tree import name_of

PROMPT = tuple(int(it) for it in np.random.default_rng(5).integers(0, 500, 12))
QUESTION = Generation(
    prompt="", messages="", tools="", schema="", stop=(), prompt_tokens=PROMPT
).to_bytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_at(tmp_path_factory.mktemp("exact"))


def generate(path: Path) -> Stage:
    data = path.read_bytes()
    content = ModelFile(name="model.exact", content=name_of(data), size_bytes=len(data))
    model = describe(path).manifest({"model.exact": content}).id
    parameters = {"tokens": 6, "ignore_eos": 1, "temperature": 1.0, "seed": 3}
    return Stage(role=Role.INFER, operation="generate", model=model, parameters=parameters)


async def add(
    network: Network, path: Path, role: Role, alter: Alter | None = None, unit_s: float = 0.05
) -> Node:
    """A peer with the model; one that alters it says that it is fast, and is asked first."""
    engine = TextEngine(unit_s) if alter is None else TextEngine(0.001, alter=alter)
    return await network.start(role, S, engine=engine, models=(str(path),))


@asynccontextmanager
async def asking(folder: Path, path: Path) -> AsyncIterator[tuple[Node, Network]]:
    """Who asks has the model too, and runs it for nobody."""
    async with open_network(folder) as network:
        asker = await network.start(S, engine=TextEngine(0.05))
        await asker.models.add(path)
        yield asker, network


async def test_an_answer_at_the_level_exact_holds_whatever_device_each_has(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        honest = await add(network, path, I)
        for _ in range(3):
            await add(network, path, V)
        await network.settled()
        wanted = request(generate(path), data=QUESTION, level=Level.EXACT)
        found, _ = await asked(asker, wanted)
        assert signers(found) == [honest.peers.me]
        assert len([it for it in read_frames(found.output) if isinstance(it, Token)]) == 6


async def test_a_liar_loses_though_a_verifier_agrees_with_it(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        liar = await add(network, path, I, some_weights_off)
        honest = await add(network, path, I)
        await add(network, path, V, some_weights_off)
        for _ in range(2):
            await add(network, path, V)
        await network.settled()
        wanted = request(generate(path), data=QUESTION, level=Level.EXACT)
        found, events = await asked(asker, wanted)
        assert signers(found) == [honest.peers.me]
        told = [it for it in failures(events, "dispute") if it.peer == liar.peers.me]
        assert "of the answer is another one" in told[0].why
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        assert asker.peers.standing(honest.peers.me) is Standing.GOOD


async def test_a_lying_verifier_loses_and_the_answer_holds(
    autojump_clock: MockClock, tmp_path: Path, path: Path
) -> None:
    async with asking(tmp_path, path) as (asker, network):
        honest = await add(network, path, I)
        liars = [await add(network, path, V, some_weights_off) for _ in range(2)]
        for _ in range(3):
            await add(network, path, V)
        await network.settled()
        wanted = request(generate(path), data=QUESTION, level=Level.EXACT)
        found, events = await asked(asker, wanted)
        assert signers(found) == [honest.peers.me]
        named = {it.peer for it in failures(events, "dispute")}
        assert named <= {it.peers.me for it in liars}
        assert asker.peers.standing(honest.peers.me) is Standing.GOOD
