"""A charge is told so that a juror knows who is accused of what, by whom, and what to look at."""

import pytest

from node.commands.charge_page import charge_map, show_charge
from node.evidence.charges import charged
from tests.evidence.disputed import Answered
from tests.ledger.made import TWO
from wire.generation import Ending, Generation, Token, to_frame

COLUMNS = 80


def test_a_page_names_all_sides_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    question = Generation(prompt="the capital is", messages="", tools="", schema="", stop=())
    word = Token(id=7, text=b" Lyon\x1b[2J", logprob_millionths=None, top=())
    ending = Ending(reason="stop", prompt_tokens=3, tokens=1, text_bytes=5)
    answer = to_frame(word) + to_frame(ending)
    answered = Answered(question=question.to_bytes(), answer=answer)
    charge = charged(answered.case)
    show_charge(charge, TWO.peer, 1_300_000, 7)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    told = dict(line.strip().split(maxsplit=1) for line in lines)
    assert told["accused"] == str(answered.worker.peer)
    assert told["accuser"] == str(TWO.peer)
    assert told["bond"] == "1.3 credits, in epoch 7"
    assert told["question"] == "the capital is"
    # Words of others move no cursor.
    assert told["answer"] == "Lyon\N{REPLACEMENT CHARACTER}[2J"
    assert "whether talker, asked this, answers so" in told["to"]


def test_what_is_no_text_or_too_long_is_said_in_few_words() -> None:
    odd = charge_map(charged(Answered(question=b"\xff" * 9, answer=b"x" * 400).case))
    assert odd["question"] == "9 B of numbers"
    assert odd["answer"].endswith("… (100 characters more)")
    named = charge_map(charged(Answered(answer=bytes(100_000)).case))
    assert named["answer"] == "too large for the ledger: jurors fetch it from who accuses"
