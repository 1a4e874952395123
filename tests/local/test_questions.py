"""From what a command is given to what a model is asked."""

import json
from typing import Any

import pytest

from node.local.questions import (
    generate_input,
    generate_parameters,
    operation_of,
    rerank_input,
    search_input,
)
from wire import limits
from wire.content import ContentId
from wire.errors import InputError
from wire.generation import Generation
from wire.payload import QueryText, Texts

HELLO = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("arguments", "operations", "operation"),
    [
        ({}, ("generate",), "generate"),
        ({}, ("call",), "call"),
        ({}, ("embed", "nearest"), "embed"),
        ({}, ("complete", "generate"), "generate"),
        ({}, (), "embed"),
        ({"index": "x"}, ("embed", "nearest"), "nearest"),
        ({}, ("rerank",), "rerank"),
        ({"documents": ["a"]}, ("embed",), "rerank"),
        ({"system": "x"}, ("embed", "nearest", "generate"), "generate"),
        ({"messages": [HELLO]}, (), "generate"),
        ({"operation": "fly", "index": "x"}, ("embed",), "fly"),
    ],
)
def test_a_model_does_what_it_does_unless_told_otherwise(
    arguments: dict[str, Any], operations: tuple[str, ...], operation: str
) -> None:
    assert operation_of(arguments, operations) == operation


def test_each_document_is_asked_about_together_with_the_query() -> None:
    pairs = Texts.from_bytes(rerank_input("a dog", ["a cat", '"'])).texts
    assert [QueryText.from_text(it) for it in pairs] == [
        QueryText("a dog", "a cat"),
        QueryText("a dog", '"'),
    ]
    for documents in (None, [], [1], "a cat", ["x"] * (limits.PASSAGES_MAX + 1)):
        with pytest.raises(InputError, match="--document"):
            rerank_input("a dog", documents)
    with pytest.raises(InputError, match="at most"):
        rerank_input("a dog", ["x" * limits.TEXT_BYTES_MAX])


def test_a_conversation_is_what_was_said_then_what_is_asked() -> None:
    given = {"messages": [HELLO], "system": "be brief", "text": "bye", "schema": '{"a": 1}'}
    made = Generation.from_bytes(generate_input(given, chats=True))
    said = json.loads(made.messages)
    assert [it["content"] for it in said] == ["be brief", "hello", "bye"]
    assert (made.prompt, made.schema) == ("", '{"a": 1}')


def test_a_model_without_a_template_goes_on_from_one_text() -> None:
    made = Generation.from_bytes(generate_input({"text": "once upon"}, chats=False))
    assert (made.prompt, made.messages) == ("once upon", "")
    with pytest.raises(InputError, match="--text"):
        generate_input({"text": "x", "system": "y"}, chats=False)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"system": "x"},
        {"messages": "hello"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "root", "content": "x"}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [HELLO] * 4097},
        {"text": "x", "schema": "{"},
        {"text": "x", "schema": "[1]"},
        {"text": "x" * (limits.PROMPT_BYTES_MAX + 1)},
    ],
    ids=lambda it: str(it)[:40],
)
def test_what_is_no_conversation_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        generate_input(arguments, chats=True)


def test_settings_are_of_their_types_and_no_others() -> None:
    made = generate_parameters({"parameters": {"tokens": 5, "temperature": 1, "seed": 9}})
    assert made == {"tokens": 5, "temperature": 1.0, "seed": 9}
    # Without chance equal questions are one job.
    assert generate_parameters({"parameters": {"temperature": 0, "seed": 9}})["seed"] == 0
    for wrong in ({"fly": 1}, {"tokens": "5"}, {"tokens": True}, {"temperature": None}, [1]):
        with pytest.raises(InputError):
            generate_parameters({"parameters": wrong})


def test_a_question_has_a_bound() -> None:
    with pytest.raises(InputError, match=str(limits.TEXT_BYTES_MAX)):
        search_input("é" * limits.TEXT_BYTES_MAX, ContentId.of(b""), 1)
