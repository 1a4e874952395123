"""The level spot: which answers are checked is drawn once they are signed, for all to redraw."""

from dataclasses import replace
from pathlib import Path

from trio.testing import MockClock

from node.asking.run import TaskRequest
from node.checking.audit import audit
from node.checking.report import ReceiptPart, Status
from node.checking.summary import summary_of
from p2p.score import Standing
from tests.checking.answers import answer_to, changed, have, policy
from tests.node.asking import EMBED, asked, request, signers, texts_of, vectors_of
from tests.node.engines import Liar, one_row
from tests.node.network import I, S, V, open_network
from wire import limits
from wire.errors import TaskFailed
from wire.kinds import Level
from wire.lottery import is_drawn
from wire.receipt import Answer, Receipt
from wire.signed import Signed, open_signed

ASKED = 16


def drawn(answer: Signed[Answer]) -> bool:
    last = open_signed(answer.record.receipts[-1], Receipt)
    return is_drawn(answer.record.secret, last.id)


def spot_answers() -> dict[bool, Signed[Answer]]:
    """An answer that the lottery draws, and one that it spares; both with verdicts."""
    found: dict[bool, Signed[Answer]] = {}
    number = 0
    while len(found) < 2:
        number += 1
        stage = replace(EMBED, parameters={"number": number})
        answer = answer_to(stage, checking=policy(Level.SPOT_CHECKED))
        found.setdefault(drawn(answer), answer)
    return found


def test_the_lottery_draws_about_as_many_as_it_says() -> None:
    receipt = open_signed(answer_to().record.receipts[0], Receipt).id
    count = sum(is_drawn(number.to_bytes(32, "big"), receipt) for number in range(4000))
    assert 900 < count < 1100
    assert limits.SPOT_ONE_IN == 4


def test_an_answer_that_was_drawn_needs_its_verdicts() -> None:
    answer = spot_answers()[True]
    assert audit(answer.raw, have).holds
    report = audit(changed(answer, verdicts=()).raw, have)
    assert not report.holds
    assert report.of_part(ReceiptPart.SELECTION).status is Status.FAILS
    assert "it was drawn, and there is no verdict" in report.of_part(ReceiptPart.VERDICTS).why


def test_an_answer_that_was_spared_holds_and_is_not_said_to_be_checked() -> None:
    answer = spot_answers()[False]
    spared = changed(answer, verdicts=(), candidates=())
    report = audit(spared.raw, have)
    assert report.holds
    assert any("one answer in 4" in it.detail for it in report.points)
    assert any("knew beforehand" in it.what and it.is_limit for it in report.points)
    assert report.answer is not None
    assert report.task is not None
    assert summary_of(report.answer, report.task, report.receipts, have).needed == 0
    # With verdicts all the same they are counted.
    assert audit(answer.raw, have).holds
    assert summary_of(answer, report.task, report.receipts, have).needed == 2


def test_another_secret_than_the_tasks_own_spares_nobody() -> None:
    spared = changed(spot_answers()[False], verdicts=(), secret=bytes(32))
    assert audit(spared.raw, have).of_part(ReceiptPart.SELECTION).status is Status.FAILS


async def test_what_is_drawn_is_checked_and_what_is_spared_is_not(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S)
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        checked = 0
        for number in range(ASKED):
            answered, _ = await asked(asker, spot(f"text {number}"))
            answer = answered.answer
            assert bool(answer.record.verdicts) is drawn(answer)
            assert audit(answer.raw, lambda _: None).holds
            checked += drawn(answer)
        assert 0 < checked < ASKED


async def test_a_liar_is_found_out_by_the_first_answer_that_is_drawn(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S, judges=True)
        liar = await network.start(I, S, engine=Liar(one_row))
        for _ in range(3):
            await network.start(V, S)
        await network.settled()
        spared, caught = 0, False
        while not caught and spared < 8 * limits.SPOT_ONE_IN:
            text = f"text {spared}"
            try:
                answered, _ = await asked(asker, spot(text))
            except TaskFailed:
                # Its answer was drawn, and nobody else is there to give another.
                caught = True
            else:
                assert not drawn(answered.answer)
                assert answered.output != vectors_of(text)
                assert signers(answered) == [liar.peers.me]
                spared += 1
        assert caught
        assert asker.peers.standing(liar.peers.me) is Standing.BANNED


def spot(text: str) -> TaskRequest:
    return request(data=texts_of(text), level=Level.SPOT_CHECKED, verifiers=3, needed=2)
