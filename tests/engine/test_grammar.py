"""Schemas of clients: those that would take for ever to compile are refused before they do."""

import json
from typing import Any

import pytest

from node.engines.grammar import PARTS_MAX, _check
from wire.errors import ModelRefused

PRIMES = (999983, 999979, 999961, 999959, 999953)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "allOf": [{"multipleOf": it} for it in PRIMES]},
        {"properties": {f"p{it}": {"type": "string"} for it in range(PARTS_MAX)}},
        {"type": "string", "pattern": "(a|b)*" * 100},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 1e12},
    ],
)
def test_a_schema_that_takes_too_long_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused):
        _check(schema)


def test_what_people_ask_for_is_fine() -> None:
    person = {"type": "object", "properties": {"age": {"type": "integer", "multipleOf": 5}}}
    _check(json.loads(json.dumps({"type": "array", "items": person, "maxItems": 100})))
