"""What a person types in a conversation, what the model is asked, and what reaches the screen."""

import json

import pytest

from node.commands.chat import ChatCommand, Conversation, read_line
from node.commands.streamed import CORRECTED, UNACCEPTED, StreamedAnswer
from wire.errors import InputError
from wire.generation import Token, to_frame


def piece(position: int, *texts: bytes) -> dict[str, object]:
    frames = (to_frame(Token(id=1, text=it, logprob_millionths=None, top=())) for it in texts)
    return {"event": "piece", "position": position, "data": b"".join(frames)}


def test_lines_are_questions_commands_or_nothing() -> None:
    assert read_line("  what?\n") == "what?"
    assert read_line(" \n") is None
    assert read_line("/save  a b.json ") == ChatCommand("save", "a b.json")
    assert read_line("//etc is a folder") == "/etc is a folder"
    with pytest.raises(InputError, match="did you mean /route"):
        read_line("/rout")
    with pytest.raises(InputError, match="/help lists all"):
        read_line("/")


def test_the_model_is_told_the_system_text_and_everything_answered_before() -> None:
    talk = Conversation("be brief")
    talk.answered("one?", "1")
    asked = talk.asked("two?")
    assert [it["content"] for it in asked] == ["be brief", "one?", "1", "two?"]
    assert [it["role"] for it in asked] == ["system", "user", "assistant", "user"]
    assert json.loads(talk.document(as_json=True)) == asked[:-1]
    assert "assistant: 1\n" in talk.document(as_json=False)
    talk.forget()
    assert [it["content"] for it in talk.asked("x")] == ["be brief", "x"]


def test_what_a_model_writes_reaches_the_terminal_as_text_alone() -> None:
    screen: list[str] = []
    answer = StreamedAnswer(screen.append, lambda _: None)
    answer.on_event(piece(0, b"a\x1b[2J", b"\x9b2J\tb\xc2", b"\xa0\r\n", "\u202eé".encode()))
    answer.finish({"text": "a\x1b[2J\x9b2J\tb\xa0\r\n\u202eé\x07"})
    text = "".join(screen)
    assert all(it.isprintable() or it == "\n" for it in text)
    assert "    b" in text
    assert text.endswith("é\N{REPLACEMENT CHARACTER}\n")


def test_each_token_is_shown_once_and_what_was_lost_on_the_way_comes_at_the_end() -> None:
    screen: list[str] = []
    told: list[object] = []
    answer = StreamedAnswer(screen.append, told.append)
    answer.on_event(piece(0, b"one ", b"two "))
    answer.on_event({"event": "failed", "what": "leg"})
    answer.on_event(piece(2, b"three "))
    # One piece was dropped: nothing is shown until the whole answer is there.
    answer.on_event(piece(5, b"six"))
    answer.finish({"text": "one two three four five six"})
    assert "".join(screen).replace("\n", "") == "one two three four five six"
    assert told == [{"event": "failed", "what": "leg"}]


def test_what_is_not_told_breaks_no_line() -> None:
    screen: list[str] = []
    told: list[object] = []
    answer = StreamedAnswer(screen.append, told.append, lambda event: event["event"] == "failed")
    answer.on_event(piece(0, b"one "))
    answer.on_event({"event": "leg"})
    answer.finish({"text": "one two"})
    assert "".join(screen) == "one two\n"
    assert told == []


def test_an_answer_that_takes_back_what_was_shown_says_so() -> None:
    screen: list[str] = []
    answer = StreamedAnswer(screen.append, lambda _: None)
    answer.on_event(piece(0, b"wrong"))
    answer.on_event({"event": "restarted", "position": 0})
    answer.on_event(piece(0, b"right"))
    answer.finish({"text": "right"})
    assert "".join(screen) == f"wrong\n{CORRECTED}\nright\n"


def test_what_was_shown_of_a_task_that_failed_is_said_to_be_no_answer() -> None:
    screen: list[str] = []
    answer = StreamedAnswer(screen.append, lambda _: None)
    answer.give_up()
    assert screen == []
    answer.on_event(piece(0, b"unchecked"))
    answer.give_up()
    assert "".join(screen) == f"unchecked\n{UNACCEPTED}\n"
    assert len(UNACCEPTED) <= 80
