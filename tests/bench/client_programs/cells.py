"""What the programs of this folder share: a client's features are tried, and each has its cell.

It runs in a client's own environment, so it imports the standard library alone. A cell works, is
refused by name where a program says which name that is, or fails; nothing else is a success.
"""

import json
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

WORKS, REFUSED, FAILS = "works", "refused", "fails"
WORDS_MAX = 600
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Bonn", "Köln"]}},
    "required": ["city"],
    "additionalProperties": False,
}

URL, MODEL, EMBEDDER = sys.argv[1:4]
_tried: dict[str, tuple[Callable[[], object], str]] = {}


def cell(feature: str, refused: str = "") -> Callable[[Callable[[], object]], None]:
    """Mark what tries a feature. `refused`: the field that has to be named in a 400 instead."""

    def mark(function: Callable[[], object]) -> None:
        _tried[feature] = (function, refused)

    return mark


def raises(kind: type[BaseException], function: Callable[[], object]) -> BaseException:
    """The error of this kind that a call ends with; AssertionError if it does not."""
    try:
        function()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def tell(*distributions: str) -> None:
    """Try every feature, and print one document with all cells."""
    only = set(sys.argv[4:])
    found = {name: _told(*tried) for name, tried in _tried.items() if not only or name in only}
    versions = {name: version(name) for name in distributions}
    sys.stdout.write(json.dumps({"versions": versions, "cells": found}) + "\n")


def _told(function: Callable[[], object], refused: str) -> dict[str, str]:
    try:
        function()
    except Exception as error:  # noqa: BLE001  any client may raise anything
        words = f"{type(error).__name__}: {error}"[:WORDS_MAX]
        if refused and "400" in _statuses(error) and refused in str(error):
            return {"state": REFUSED, "why": refused}
        place = traceback.extract_tb(error.__traceback__)
        own = [str(it.lineno) for it in place if Path(it.filename).name == Path(sys.argv[0]).name]
        return {"state": FAILS, "why": f"{words} (line {', '.join(own)})"}
    if refused:
        return {"state": FAILS, "why": f"{refused} was not refused"}
    return {"state": WORKS, "why": ""}


def _statuses(error: BaseException | None) -> str:
    """The HTTP status of an error and of what it came from, as text."""
    found = []
    while error is not None:
        found.append(str(getattr(error, "status_code", "")))
        found.append(str(error)[:200])
        error = error.__cause__ or error.__context__
    return " ".join(found)
