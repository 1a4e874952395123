"""JSON from clients: bounded in depth before it is parsed, and what is wrong with it in words."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from node.gateway.errors import bad
from node.gateway.requests import FIELD_FAULT

DEPTH_MAX = 64
# Strings are passed over, one that does not end too: no byte is looked at twice.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKETS = bytes(it for it in range(256) if it not in b"[]{}")
# What pydantic says of each problem is the first that it met; more than this helps nobody.
PROBLEMS_SHOWN = 3


def is_too_deep(data: bytes) -> bool:
    """Whether brackets are nested deeper than any request needs."""
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return False
    # Whole passes over the bytes: a step of Python for each bracket would take seconds.
    rest = _STRINGS.sub(b"", data).translate(_ONE_KIND, _NO_BRACKETS)
    if b"(" * (DEPTH_MAX + 1) in rest:
        return True
    for _ in range(DEPTH_MAX):
        before, rest = len(rest), rest.replace(b"()", b"")
        if len(rest) == before:
            break
    return b"()" in rest or rest.count(b"(") > DEPTH_MAX


def json_body_of(data: bytes) -> Any:
    """The JSON of a body; HttpError if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise bad(f"the body is no JSON: {error}", code="invalid_json") from error


_WORDS = {
    "missing": "is missing",
    "string_type": "has to be text",
    "int_type": "has to be a whole number",
    "int_from_float": "has to be a whole number",
    "float_type": "has to be a number",
    "bool_type": "has to be true or false",
    "list_type": "has to be a list",
    "dict_type": "has to be an object",
    "model_type": "has to be an object",
    "model_attributes_type": "has to be an object",
    "finite_number": "has to be a finite number",
    "greater_than_equal": "has to be at least {ge}",
    "greater_than": "has to be more than {gt}",
    "less_than_equal": "has to be at most {le}",
    "less_than": "has to be less than {lt}",
    "string_too_long": "has at most {max_length} characters",
    "string_too_short": "has at least {min_length} characters",
    "too_long": "has at most {max_length} items",
    "too_short": "has at least {min_length} items",
    "literal_error": "has to be {expected}",
    "union_tag_invalid": "has a type that is not done here; done are {expected_tags}",
    "union_tag_not_found": "has to say its type",
    "string_pattern_mismatch": "does not have the form {pattern}",
    "string_unicode": "has to be text",
    FIELD_FAULT: "{words}",
}


def words_of(problems: Iterable[Mapping[str, Any]], body: Any) -> tuple[str, str | None]:
    """What is wrong with a request, in words of this project, and where the first of it is.

    `problems` are pydantic's, `body` is what was read. A place that may be one of several things
    is told once, with all that it may be.
    """
    told: dict[str, list[str]] = {}
    for problem in problems:
        words = _words(problem)
        place = _place(problem, body)
        if words not in told.setdefault(place, []):
            told[place].append(words)
    # Where something inside is wrong, that is it: the other things the whole may be are no help.
    found = {
        place: words
        for place, words in told.items()
        if not any(it.startswith(f"{place}.") for it in told)
    }
    shown = [
        f"{place or 'the body'}{':' if place else ''} {', or '.join(words)}"
        for place, words in list(found.items())[:PROBLEMS_SHOWN]
    ]
    return "; ".join(shown), next(iter(found)) or None


def _words(problem: Mapping[str, Any]) -> str:
    form = _WORDS.get(problem["type"])
    if form is None:
        return "cannot be read"
    try:
        return form.format(**problem.get("ctx", {}))
    except KeyError:
        return "cannot be read"


def _place(problem: Mapping[str, Any], body: Any) -> str:
    """Where in the body it is; without the names of the alternatives that were tried there."""
    where, *rest = problem["loc"]
    if where != "body":
        return ".".join(str(it)[:64] for it in (rest if where in ("query", "path") else [where]))
    parts: list[str] = []
    for part in rest:
        inside = (isinstance(body, dict) and part in body) or (
            isinstance(body, list) and type(part) is int and part < len(body)
        )
        if inside:
            body = body[part]
        if inside or (part == rest[-1] and problem["type"] == "missing"):
            parts.append(str(part)[:64])
    if problem["type"] == FIELD_FAULT:
        parts.append(problem["ctx"]["field"][:64])
    return ".".join(parts)
