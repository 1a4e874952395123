"""Calls of tools are found in what models write, however it is cut, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.gateway.tool_calls import ToolCall, ToolGate

TOOLS = frozenset({"f", "g"})
ONE = ToolCall("f", '{"a": 1}')


def read(text: str, size: int = 1000) -> tuple[str, list[ToolCall]]:
    gate = ToolGate(TOOLS)
    shown = "".join(gate.feed(text[at : at + size]) for at in range(0, len(text), size))
    rest, calls = gate.end()
    return shown + rest, calls


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', [ONE]),
        ('<tool_call>\n{"name": "f", "arguments": "{\\"a\\": 1}"}\n</tool_call>', [ONE]),
        (
            '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>\n'
            '<tool_call>{"name": "g", "arguments": {}}</tool_call>',
            [ONE, ToolCall("g", "{}")],
        ),
        # The last one's end was a token that is no text.
        ('<tool_call>{"name": "f", "arguments": {"a": 1}}', [ONE]),
        ('{"name": "f", "parameters": {"a": 1}}', [ONE]),
        ('<|python_tag|>{"name": "f", "parameters": {"a": 1}}', [ONE]),
        ('{"name": "f", "parameters": {"a": 1}}; {"name": "g"}', [ONE, ToolCall("g", "{}")]),
    ],
)
def test_both_ways_of_writing_a_call_are_read(text: str, calls: list[ToolCall], size: int) -> None:
    assert read(text, size) == ("", calls)


@pytest.mark.parametrize(
    "text",
    [
        "just words",
        '{"answer": 42}',
        '{"name": "unknown", "parameters": {}}',
        '{"name": "f", "parameters": [1]}',
        '{"name": "f", "parameters": {}} and words',
        "<tool_call>nonsense</tool_call>",
        '<tool_call>{"name": "unknown"}</tool_call>',
        "a < b, <tool> and <tool_cal",
        "<|python_tag|>",
        "  {",
        "",
    ],
)
def test_everything_else_is_text_and_stays_as_it_is(text: str) -> None:
    for size in (1, 2, 1000):
        assert read(text, size) == (text, [])


@given(st.text(alphabet='<>tool_call/{}"name:f,|python_tag ', max_size=60), st.integers(1, 9))
def test_how_it_is_cut_makes_no_difference(text: str, size: int) -> None:
    assert read(text, size) == read(text)


def test_text_before_a_call_is_shown_as_it_comes() -> None:
    gate = ToolGate(TOOLS)
    assert gate.feed("Let me see. <tool") == "Let me see. "
    assert gate.feed('_call>{"name": "f"') == ""
    assert gate.feed("}</tool_call>") == ""
    assert gate.end() == ("", [ToolCall("f", "{}")])


@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ('<tool_call>{"name": "f", "argum', "", [ToolCall("f", "")]),
        ('<tool_call>{"name": "f", "arguments": {"a": [1,', "", [ToolCall("f", '{"a": [1,')]),
        ('Wait. <tool_call>{"na', "Wait. ", []),
        ('{"name": "f", "parameters": {"a": "x', "", [ToolCall("f", '{"a": "x')]),
        (
            '<tool_call>{"name": "f", "arguments": {}}</tool_call><tool_call>{"name": "g"',
            "",
            [ToolCall("f", "{}"), ToolCall("g", "")],
        ),
        # What is no call stays text, cut or not.
        ('{"answer": [4', '{"answer": [4', []),
        ("just wor", "just wor", []),
    ],
)
def test_a_call_that_was_cut_is_never_text(text: str, shown: str, calls: list[ToolCall]) -> None:
    gate = ToolGate(TOOLS)
    before = gate.feed(text)
    rest, found = gate.end(cut=True)
    assert (before + rest, found) == (shown, calls)


def test_of_an_answer_that_has_to_be_a_call_nothing_is_text() -> None:
    gate = ToolGate(TOOLS, forced=True)
    assert gate.feed('{"na') + gate.end(cut=True)[0] == ""
