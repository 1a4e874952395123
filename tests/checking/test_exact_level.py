"""The level exact: of models in whole numbers, equal without tolerance, disputes in any check."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.checking.audit import audit
from node.checking.report import ReceiptPart
from node.commands.verify_dispute import is_dispute, verify_dispute
from node.peer import Node
from p2p.score import Standing
from tests.checking.exact_peers import asked_of
from tests.checking.test_exact_disputes import (
    MODEL,
    RIGHT,
    ROWS,
    Parties,
    call,
    parties,
    wrong,
)
from tests.node.asking import asked, failures, request, signers
from tests.node.network import I, S, V, open_network
from wire.errors import InputError
from wire.kinds import Level


async def honest_and_verifiers(opened: Parties, verifiers: int = 3) -> Node:
    honest = await opened.add(I)
    for _ in range(verifiers):
        await opened.add(V)
    await opened.network.settled()
    return honest


async def test_an_answer_at_the_level_exact_holds(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with parties(tmp_path) as (asker, opened):
        honest = await honest_and_verifiers(opened)
        wanted = request(call(tmp_path), data=asked_of(MODEL, [ROWS]), level=Level.EXACT)
        found, _ = await asked(asker, wanted)
        assert (signers(found), found.output) == ([honest.peers.me], RIGHT)
        report = audit(found.answer.raw, lambda _: None)
        assert report.holds
        assert report.level is Level.EXACT
        assert ReceiptPart.VERDICTS in report.promised
        assert any("no difference at all" in it.what for it in report.points)


async def test_a_liar_is_convicted_though_a_verifier_agrees_with_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with parties(tmp_path) as (asker, opened):
        liar = await opened.add(I, wrong)
        await opened.add(V, wrong)
        honest = await honest_and_verifiers(opened, 2)
        wanted = request(call(tmp_path), data=asked_of(MODEL, [ROWS]), level=Level.EXACT)
        found, events = await asked(asker, wanted)
        assert (signers(found), found.output) == ([honest.peers.me], RIGHT)
        assert liar.peers.me in {it.peer for it in failures(events, "dispute")}
        assert asker.peers.standing(honest.peers.me) is Standing.GOOD


async def test_a_model_with_tolerance_is_refused_in_words(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        await network.settled()
        with pytest.raises(InputError, match="the level exact is for models in whole numbers"):
            await asked(asker, request(level=Level.EXACT))


async def test_a_background_check_of_an_exact_model_ends_in_a_dispute_and_its_file(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with parties(tmp_path) as (_, opened):
        asker = await opened.network.start(S, background_checks=1.0)
        liar = await opened.add(I, wrong)
        for _ in range(3):
            await opened.add(V)
        await opened.network.settled()
        wanted = request(call(tmp_path), data=asked_of(MODEL, [ROWS]), level=Level.SIGNED)
        found, _ = await asked(asker, wanted)
        assert signers(found) == [liar.peers.me]
        assert found.output != RIGHT
        with trio.fail_after(300):
            while not asker.background_checks.statistics().wrong:
                await trio.sleep(0.2)
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED
        file = next((asker.config.state / "receipts").glob("*.dispute"))
        assert is_dispute(file)
        model = tmp_path / "digits.exact"
        verify_dispute(file, (), model, as_json=False)
        assert "the prover" in capsys.readouterr().out
