"""Schemas of clients: those that would take for ever to compile are refused before they do."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from node.engines.formats.gguf import describe
from node.engines.worker.gguf_tokens import read_table
from node.engines.worker.grammar import PARTS_MAX, PATTERNS_JOINED_MAX, Grammars, _check, closed
from node.gateway.requests import ChatRequest
from node.gateway.sampling import chat_input
from tests.engines.tiny_gguf import write_gguf
from wire.errors import ModelRefused
from wire.generation import Generation

PRIMES = (999983, 999979, 999961, 999959, 999953)
PATTERNS = [f".*a.{{{at}}}.*" for at in range(16)]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "allOf": [{"multipleOf": it} for it in PRIMES]},
        {"properties": {f"p{it}": {"type": "string"} for it in range(PARTS_MAX)}},
        {"type": "string", "pattern": "(a|b)*" * 100},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 1e12},
        {"type": "integer", "multipleOf": PRIMES[0]},
        {"type": "number", "multipleOf": PRIMES[0] / 1000},
        {"type": "number", "multipleOf": float("inf")},
        {"type": "integer", "multipleOf": 10**400},
        {"type": "number", "multipleOf": float("nan")},
        {"allOf": [{"type": "string", "pattern": pattern} for pattern in PATTERNS]},
        {"allOf": [{"properties": {"a": {"pattern": pattern}}} for pattern in PATTERNS]},
        {
            "$defs": {
                f"d{at}": {"$ref": f"#/$defs/d{at + 1}", "pattern": pattern}
                for at, pattern in enumerate(PATTERNS)
            },
            "$ref": "#/$defs/d0",
        },
    ],
)
def test_a_schema_that_takes_too_long_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused):
        _check(schema)


def test_what_people_ask_for_is_fine() -> None:
    person = {"type": "object", "properties": {"age": {"type": "integer", "multipleOf": 5}}}
    _check(json.loads(json.dumps({"type": "array", "items": person, "maxItems": 100})))
    named = {"$ref": "#/$defs/person", "description": "who it is about"}
    fields = {f"f{at}": {"type": "string", "pattern": "^[a-z]+$"} for at in range(30)}
    _check({"$defs": {"person": person}, "properties": {"who": named, **fields}})
    _check({"type": "number", "multipleOf": 0.0001})


def test_the_worst_that_is_let_through_takes_no_time_that_anybody_misses(tmp_path: Path) -> None:
    table = read_table(describe(write_gguf(tmp_path / "model.gguf", seed=7)))
    grammars = Grammars(table)
    began_at_s = time.process_time()
    for schema in (
        {"type": "integer", "multipleOf": 9973},
        {"type": "number", "multipleOf": 9.973, "minimum": -3.1},
    ):
        assert grammars.of(json.dumps(schema)).allowed().any()
    joined = [{"type": "string", "pattern": it} for it in PATTERNS[:PATTERNS_JOINED_MAX]]
    with pytest.raises(ModelRefused, match="regex is empty"):
        grammars.of(json.dumps({"allOf": joined}))
    # A second or so; those that are refused take minutes and more.
    assert time.process_time() - began_at_s < 20


PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        (PERSON, ['{"name":"a","age":1}', "{}"], ['{"name":"a","x":1}', '{"age":1,"age":1}']),
        ({**PERSON, "additionalProperties": True}, ['{"age":1}'], ['{"x":1}']),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            ['{"x":1}'],
            ['{"x":"a"}', "{" + ",".join(f'"k{at}":1' for at in range(99)) + "}"],
        ),
        (
            {"type": "array", "items": PERSON},
            ['[{"age":1}]'],
            ['[{"age":1,"agee":2}]'],
        ),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            ['{"x":1,"xx":2}', '{"x\\"":1,"x":2}'],
            ['{"x":1,"x":2}', '{"x":1,"y":2,"\\u0078":3}'],
        ),
        (
            {},
            ['{"a":{"a":[{"a":1},{"a":"a"}]},"b":"a"}'],
            ['{"a":1,"b":{"c":1,"c":2}}', '{"a":[{"b":1,"b":2}]}', '{"a":{},"a":1}'],
        ),
        ({}, ['{"any":[1]}'], ["{" + ",".join(f'"k{at}":1' for at in range(99)) + "}"]),
        ({"allOf": [PERSON, {"properties": {"x": {"type": "integer"}}}]}, ['{"age":1,"x":1}'], []),
    ],
    ids=str,
)
def test_an_object_that_is_not_closed_ends(
    tmp_path: Path, schema: dict[str, Any], fits: list[str], does_not: list[str]
) -> None:
    grammars = Grammars(read_table(describe(write_gguf(tmp_path / "model.gguf", seed=7))))

    def taken(text: str) -> bool:
        grammar = grammars.of(json.dumps(schema))
        for byte in text.encode():
            # The table's first tokens are the bytes.
            if not grammar.allowed()[byte]:
                return False
            grammar.take(byte)
        return True

    assert [taken(it) for it in fits] == [True] * len(fits)
    assert [taken(it) for it in does_not] == [False] * len(does_not)


NAMED: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    ("names", "fits", "fails"),
    [
        ({"type": "string"}, '{"any":1}', '{"any":"x"}'),
        ({"pattern": "^[a-z]$"}, '{"b":1}', '{"B":1}'),
        ({"type": "string", "enum": ["a", "b"]}, '{"b":1}', '{"c":1}'),
    ],
)
def test_names_of_keys_are_kept_to(
    tmp_path: Path, names: dict[str, Any], fits: str, fails: str
) -> None:
    table = read_table(describe(write_gguf(tmp_path / "model.gguf", seed=7)))
    schema = json.dumps({**NAMED, "propertyNames": names})
    for text, right in ((fits, True), (fails, False)):
        grammar = Grammars(table).of(schema)
        made = True
        for token in [it for it in table.of(text) if it != table.begin]:
            made = made and bool(grammar.allowed()[token])
            if made:
                grammar.take(token)
        assert made is right


def test_a_word_that_is_not_compiled_is_named(tmp_path: Path) -> None:
    table = read_table(describe(write_gguf(tmp_path / "model.gguf", seed=7)))
    with pytest.raises(ModelRefused, match="has propertyNames, which is not done here"):
        Grammars(table).of(json.dumps({**NAMED, "propertyNames": {"maxLength": 3}}))


def test_a_tool_may_have_parts_that_are_named_elsewhere(tmp_path: Path) -> None:
    table = read_table(describe(write_gguf(tmp_path / "model.gguf", seed=7)))
    leaf = {"type": "object", "properties": {"leaves": {"type": "array", "items": {"$ref": "#"}}}}
    tree = {
        "$defs": {"leaf": {"type": "object", "properties": {"x": {"const": {"$ref": "#/a"}}}}},
        "type": "object",
        "properties": {"one": {"$ref": "#/$defs/leaf"}},
    }
    tools = [{"name": f"t{at}", "parameters": it} for at, it in enumerate((leaf, tree))]
    asked = ChatRequest.model_validate(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "function", "function": it} for it in tools],
            "tool_choice": "required",
        }
    )
    schema = Generation.from_bytes(chat_input(asked)).schema
    assert '"const": {"$ref": "#/a"}' in schema
    Grammars(table).of(schema)


def test_what_is_a_value_in_a_schema_is_left_as_it_is() -> None:
    for schema in (
        {"enum": [{"properties": {"a": 1}}]},
        {"const": {"type": "object"}},
        {"properties": {"properties": {"type": "string"}}, "additionalProperties": False},
    ):
        assert closed(schema) == schema
