"""JSON from clients: bounded in depth before it is parsed, and what is wrong with it in words."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from node.gateway.errors import bad

DEPTH_MAX = 64
# Strings are passed over, one that does not end too: no byte is looked at twice.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]+|[\]}]+', re.DOTALL)
# What pydantic says of each problem is the first that it met; more than this helps nobody.
PROBLEMS_SHOWN = 3


def is_too_deep(data: bytes) -> bool:
    """Whether brackets are nested deeper than any request needs."""
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return False
    depth = 0
    for run in _BRACKETS.finditer(data):
        found = run[0]
        if found[:1] == b'"':
            continue
        depth += len(found) if found[:1] in b"[{" else -len(found)
        if depth > DEPTH_MAX:
            return True
    return False


def json_body_of(data: bytes) -> Any:
    """The JSON of a body; HttpError if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise bad(f"the body is no JSON: {error}", code="invalid_json") from error


def words_of(problems: Iterable[Mapping[str, Any]]) -> tuple[str, str | None]:
    """What is wrong with a request, and where the first of it is."""
    found = list(problems)
    places = [_place(it["loc"]) for it in found]
    shown = [
        f"{where}: {it['msg']}" if where else str(it["msg"])
        for where, it in zip(places[:PROBLEMS_SHOWN], found, strict=False)
    ]
    return "; ".join(shown), places[0] or None


def _place(location: Iterable[str | int]) -> str:
    parts = [str(it)[:64] for it in location if it not in ("body", "query", "path")]
    return ".".join(parts)
