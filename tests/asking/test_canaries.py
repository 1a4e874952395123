"""A verifier that says yes to what is wrong on purpose is found; an honest one never is."""

from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from node.asking import background_checks
from node.asking.canaries import altered_row
from node.devnet.adversary import misbehave
from node.peer import Node
from p2p.score import Standing
from tests.asking.test_background_checks import network_of, unchecked
from tests.node.asking import VECTORS, asked, request, texts_of
from tests.node.engines import Counted
from tests.node.network import open_network
from wire import limits
from wire.kinds import Level
from wire.payload import Vectors


@pytest.fixture(autouse=True)
def _every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_checks, "CANARY_SHARE", 1.0)


async def canaries_sent(asker: Node, count: int) -> int:
    """How many verifiers were fooled, once so many canaries were sent."""
    number = 0
    with trio.fail_after(600):
        while (found := asker.background_checks.statistics()).canaries < count:
            number += 1
            await unchecked(asker, number)
            await trio.sleep(5)
    await trio.sleep(5)
    found = asker.background_checks.statistics()
    return found.fooled


async def test_honest_verifiers_say_no_to_every_canary(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await network_of(network, Counted())
        assert await canaries_sent(asker, 4) == 0
        for node in network.nodes:
            if node is not asker:
                assert asker.peers.standing(node.peers.me) is Standing.GOOD
        # Nobody is blamed for what this peer made up.
        assert worker.peers.me not in asker.tasks.answers.liars


async def test_an_honest_verifier_that_knows_no_parts_is_not_blamed_for_other_rows(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, worker = await network_of(network, Counted())
        verifiers = [it for it in network.nodes if it not in (asker, worker)]
        for node in verifiers:
            # It draws an eighth of the rows for itself.
            node.peers.neighbours.speaks = limits.PARTS_VERSION - 1
        number = 0
        with trio.fail_after(600):
            while asker.background_checks.statistics().canaries < 4:
                number += 1
                data = texts_of(*(f"{number} {it}" for it in range(64)))
                await asked(asker, request(data=data, level=Level.SIGNED))
                await trio.sleep(10)
        assert asker.background_checks.statistics().fooled == 0
        for node in verifiers:
            assert asker.peers.standing(node.peers.me) is Standing.GOOD


async def test_a_verifier_that_says_yes_to_everything_is_found(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _ = await network_of(network, Counted())
        lazy = network.nodes[-1]
        misbehave(lazy, "lazy_verifier", Random(1))
        number = 0
        with trio.fail_after(600):
            while asker.peers.standing(lazy.peers.me) is not Standing.BANNED:
                number += 1
                await unchecked(asker, number)
                await trio.sleep(2)
        assert asker.background_checks.statistics().fooled >= 1
        for node in network.nodes[:-1]:
            if node is not asker:
                assert asker.peers.standing(node.peers.me) is Standing.GOOD


async def test_who_has_everything_checked_finds_a_verifier_that_does_not_look(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker, _ = await network_of(network, Counted())
        lazy = network.nodes[-1]
        misbehave(lazy, "lazy_verifier", Random(1))
        number = 0
        with trio.fail_after(600):
            while asker.peers.standing(lazy.peers.me) is not Standing.BANNED:
                number += 1
                await asked(asker, request(data=texts_of(str(number))))
                await trio.sleep(2)
        found = asker.background_checks.statistics()
        # Nothing is checked twice: all of it was looked at when it came.
        assert (found.drawn, found.fooled) == (0, 1)
        for node in network.nodes[1:-1]:
            assert asker.peers.standing(node.peers.me) is Standing.GOOD


def test_one_row_is_another_and_the_rest_is_as_it_was() -> None:
    honest = Vectors.from_bytes(VECTORS)
    seen = set()
    for seed in range(20):
        altered = altered_row(VECTORS, Random(seed))
        assert altered is not None
        found = Vectors.from_bytes(altered.output)
        size = 4 * honest.dimensions
        rows = [
            at
            for at in range(honest.rows)
            if found.data[at * size : (at + 1) * size] != honest.data[at * size : (at + 1) * size]
        ]
        assert rows == [altered.row]
        seen.add(rows[0])
    assert seen == {0, 1, 2}
    assert altered_row(b"no vectors", Random(1)) is None
    zeros = Vectors(dimensions=2, rows=1, data=bytes(8)).to_bytes()
    assert altered_row(zeros, Random(1)) is None
