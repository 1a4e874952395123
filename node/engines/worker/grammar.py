"""Answers that have to fit a JSON schema: which tokens may come next. Worker only."""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from node.engines.worker.gguf_tokens import TokenTable
from node.engines.worker.json_keys import JsonKeys
from wire.errors import ModelRefused

# Keys that a schema does not name: an object without an end takes all of an answer's length.
EXTRA_KEYS_MAX = 32
ANY_OBJECT: dict[str, Any] = {"type": "object", "maxProperties": EXTRA_KEYS_MAX}
# Within these a schema's names are the client's own, and no words of the language.
_NAMED = frozenset(("properties", "$defs", "definitions", "patternProperties"))
_LITERAL = frozenset(("const", "enum", "default", "examples", "required"))
MASK_BITS = 32
# What the library says of a schema's words that it does not compile.
_UNKNOWN = re.compile(r"Unimplemented keys: \[(.*?)\]")
# Where any white space may stand between two words, models lose themselves in it.
COMPACT: Any = {"whitespace_flexible": False}

# The library that compiles schemas takes up to a second for some that are within these, and for
# ever for some that are not, whatever its own limits are set to; meanwhile nobody's answer goes on.
SCHEMA_BYTES_MAX = 32 << 10
PARTS_MAX = 1000
PATTERN_CHARS_MAX = 256
COUNT_MAX = 4096
# Patterns that a text has to fit all at once take twice as long for each; a divisor takes states.
PATTERNS_JOINED_MAX = 8
DIVISOR_MAX = 10_000
_JOINING = frozenset(("allOf", "$ref"))
_REMARKS = frozenset(("$defs", "definitions", "$schema", "$id", "title", "description", "default"))
_COUNTS = frozenset(("minLength", "maxLength", "minItems", "maxItems", "minProperties"))


def _check(schema: Any) -> None:
    """ModelRefused for a schema that would take too long to compile."""
    parts, patterns, divisors, joined, left = 0, 0, 0, False, [schema]
    while left:
        part = left.pop()
        parts += 1
        if parts > PARTS_MAX:
            raise ModelRefused(f"the schema has more than {PARTS_MAX} parts")
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            divisors += "multipleOf" in part
            if divisors > 1:
                raise ModelRefused("the schema has more than one multipleOf")
            _check_divisor(part.get("multipleOf"))
            pattern = part.get("pattern")
            if isinstance(pattern, str):
                patterns += 1
                if len(pattern) > PATTERN_CHARS_MAX:
                    raise ModelRefused(f"a pattern of {len(pattern)} characters")
            joined = joined or _joins(part)
            for name in _COUNTS & part.keys():
                if isinstance(part[name], int | float) and part[name] > COUNT_MAX:
                    raise ModelRefused(f"{name} {part[name]:g} is beyond {COUNT_MAX}")
            left += part.values()
    if joined and patterns > PATTERNS_JOINED_MAX:
        raise ModelRefused(
            f"a schema that joins others has {patterns} patterns, at most {PATTERNS_JOINED_MAX}"
        )


def closed(schema: Any) -> Any:
    """A schema whose objects end: their keys are those that it names.

    Other keys may come only where it gives a type for them, or names none at all; then at most
    `EXTRA_KEYS_MAX`, as far as such a bound can be compiled. Where several parts have to fit one
    value at once they stay as they are: each would forbid the others' keys.
    """
    if isinstance(schema, list):
        return [closed(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    schema = _with_names(schema)
    found = {
        name: _closed_part(name, value) for name, value in schema.items() if name not in _LITERAL
    }
    found |= {name: schema[name] for name in schema.keys() & _LITERAL}
    if "allOf" in schema or ("$ref" in schema and "properties" in schema):
        return found
    named, rest = schema.get("properties"), schema.get("additionalProperties")
    if named and rest in (None, True) and "patternProperties" not in schema:
        return found | {"additionalProperties": False}
    is_object = schema.get("type") == "object" or isinstance(rest, dict)
    bounds = set(named or ()) <= set(schema.get("required", ())) and rest is not False
    if is_object and bounds and "patternProperties" not in schema:
        most = len(named or ()) + EXTRA_KEYS_MAX
        return found | {"maxProperties": min(most, schema.get("maxProperties", most))}
    return found


def _with_names(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose `propertyNames`, where they can be, are said in words that can be compiled."""
    names, rest = schema.get("propertyNames"), schema.get("additionalProperties")
    if not isinstance(names, dict) or names.get("type", "string") != "string":
        return schema
    told = names.keys() - _REMARKS - {"type"}
    found = {name: value for name, value in schema.items() if name != "propertyNames"}
    if not told:
        # A key is a text anyway.
        return found
    if schema.keys() & {"properties", "patternProperties"}:
        return schema
    value = rest if isinstance(rest, dict) else {}
    if told == {"pattern"} and isinstance(names["pattern"], str):
        return found | {
            "patternProperties": {names["pattern"]: value},
            "additionalProperties": False,
        }
    allowed = names.get("enum")
    if (
        told == {"enum"}
        and isinstance(allowed, list)
        and all(isinstance(it, str) for it in allowed)
    ):
        return found | {
            "properties": dict.fromkeys(allowed, value),
            "additionalProperties": False,
        }
    return schema


def _closed_part(name: str, value: Any) -> Any:
    if name == "allOf":
        return value
    if name in _NAMED and isinstance(value, dict):
        return {key: closed(it) for key, it in value.items()}
    return closed(value)


def _check_divisor(divisor: Any) -> None:
    if not isinstance(divisor, int | float):
        return
    if not abs(divisor) <= DIVISOR_MAX or _digits(divisor) > DIVISOR_MAX:
        raise ModelRefused(f"multipleOf {str(divisor)[:40]} is beyond {DIVISOR_MAX}, or too exact")


def _digits(number: float) -> int:
    """A number without its point and its zeros at the end."""
    return int("".join(map(str, Decimal(repr(float(number))).normalize().as_tuple().digits)))


def _joins(part: dict[str, Any]) -> bool:
    """Whether something has to fit two parts of the schema at once."""
    joining = part.keys() & _JOINING
    others = part.get("allOf")
    several = isinstance(others, list) and len(others) > 1
    return several or (bool(joining) and len(part.keys() - _REMARKS) > 1)


class Grammars:
    """Makes a grammar for each answer that has a schema."""

    def __init__(self, table: TokenTable) -> None:
        self._words = len(table.names)
        ends = sorted(table.ends)
        self._tokens = LLTokenizer(
            TokenizerWrapper(_Table(table, ends[0])), n_vocab=self._words, eos_token=ends
        )
        self._texts = table.texts
        self._quotes = np.array([text.count(b'"') for text in table.texts], np.int32)

    def of(self, schema: str) -> "Grammar":
        """The grammar of a schema; ModelRefused says why there is none."""
        if len(schema) > SCHEMA_BYTES_MAX:
            raise ModelRefused(f"a schema of {len(schema)} characters, at most {SCHEMA_BYTES_MAX}")
        try:
            found = json.loads(schema)
            if not isinstance(found, dict | bool):
                raise ModelRefused("the schema is not a JSON object")
            _check(found)
            source = LLMatcher.grammar_from_json_schema(
                json.dumps(ANY_OBJECT if found == {} else closed(found)), defaults=COMPACT
            )
        except (ValueError, RecursionError) as error:
            raise ModelRefused(f"the schema cannot be read: {str(error)[:200]}") from error
        matcher = LLMatcher(self._tokens, source)
        grammar = Grammar(matcher, self._words, self._texts, self._quotes)
        grammar.check()
        return grammar


class Grammar:
    """What one answer may go on with."""

    def __init__(self, matcher: LLMatcher, words: int, texts: Sequence[bytes], quotes: Any) -> None:
        self._matcher = matcher
        self._words = words
        # What each token says, and how many quotes are in it.
        self._texts = texts
        self._quotes = quotes
        self._keys = JsonKeys()

    def check(self) -> None:
        """ModelRefused if no answer can fit the schema any more."""
        if self._matcher.is_error():
            reason = " ".join(self._matcher.get_error().split())[:300]
            if (unknown := _UNKNOWN.match(reason)) is not None:
                words = unknown[1].replace('"', "")
                raise ModelRefused(f"the schema has {words}, which is not done here")
            raise ModelRefused(f"no answer fits the schema: {reason}")

    @property
    def ended(self) -> bool:
        """Whether nothing more fits, or only an end."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> Any:
        """A truth for each token; ModelRefused if there is none left."""
        mask = np.zeros(-(-self._words // MASK_BITS), np.int32)
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self.check()
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little", count=self._words)
        if not bits.any():
            raise ModelRefused("no answer fits the schema: no token is left")
        return self._without_doubles(bits.astype(bool))

    def _without_doubles(self, allowed: Any) -> Any:
        """Without tokens that would give an object a key again, if any others are left."""
        least = self._keys.quotes_min()
        if not least:
            return allowed
        few = np.flatnonzero(allowed & (self._quotes >= least))
        doubled = [at for at in few.tolist() if self._keys.doubles(self._texts[at])]
        if not doubled or len(doubled) == np.count_nonzero(allowed):
            return allowed
        allowed[doubled] = False
        return allowed

    def take(self, token: int) -> None:
        """Go on behind this token; ModelRefused if no answer can fit the schema any more."""
        self._matcher.consume_token(token)
        self.check()
        self._keys.take(self._texts[token])


class _Table:
    """A table of tokens as llguidance asks for it."""

    def __init__(self, table: TokenTable, end: int) -> None:
        self.eos_token_id = end
        self.bos_token_id = table.begin
        self.special_token_ids: Sequence[int] = sorted(table.special | table.ends)
        # A special token is told by a byte that begins no text.
        self.tokens: Sequence[bytes] = [
            b"\xff" + name.encode() if at in table.special else text
            for at, (name, text) in enumerate(zip(table.names, table.texts, strict=True))
        ]
        self._pairs = table.pairs

    def __call__(self, text: bytes) -> list[int]:
        return list(self._pairs.encode(text.decode("utf-8", "replace")).ids)
