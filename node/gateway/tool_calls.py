"""Calls of tools as models write them, found in their text. A pure core.

Two ways of writing are known: `<tool_call>{"name": …, "arguments": …}</tool_call>` (Qwen, Hermes)
and, as llama 3 does, an answer that is nothing but such an object, with `parameters` perhaps, or
several with semicolons between them, perhaps after `<|python_tag|>`.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

OPENING, CLOSING, PYTHON_TAG = "<tool_call>", "</tool_call>", "<|python_tag|>"
CALLS_MAX = 32


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The name of a tool, and its arguments as JSON."""

    name: str
    arguments: str


@dataclass(slots=True)
class ToolGate:
    """Lets text through that is no call of a tool, and keeps what may be one until the end."""

    tools: Collection[str]
    # Whether the whole answer has to be a call.
    forced: bool = False
    _held: str = ""
    _begun: bool = False
    _calling: bool = False

    def feed(self, text: str) -> str:
        """The text that may be shown by now."""
        self._held += text
        if self._calling:
            return ""
        if not self._begun:
            start = self._held.lstrip()
            if not start or PYTHON_TAG.startswith(start[: len(PYTHON_TAG)]):
                # A short beginning of the tag, or all of it.
                self._calling = start.startswith(PYTHON_TAG)
                return ""
            if start.startswith("{"):
                self._calling = True
                return ""
            self._begun = True
        at = self._held.find(OPENING)
        if at >= 0:
            self._calling = True
        else:
            at = len(self._held) - _overlap(self._held, OPENING)
        shown, self._held = self._held[:at], self._held[at:]
        return shown

    def end(self, *, cut: bool = False) -> tuple[str, list[ToolCall]]:
        """What is left of the text, and the calls that were in it.

        Of an answer that was `cut` in the middle of a call there is what is known of it: its name
        and the beginning of its arguments, or nothing. A piece of a call is never text.
        """
        held, self._held = self._held, ""
        if cut and self.tools:
            before, begun, found = _cut_call(held, self.tools, forced=self.forced)
            if begun:
                text, calls = self._whole(before) if before.strip() else ("", [])
                return text, [*calls, *found]
        return self._whole(held)

    def _whole(self, held: str) -> tuple[str, list[ToolCall]]:
        calls: list[ToolCall] = []
        if OPENING in held:
            rest = []
            before, *blocks = held.split(OPENING)
            rest.append(before)
            for block in blocks:
                inside, _, after = block.partition(CLOSING)
                call = _call_of(_json_of(inside), self.tools)
                if call is None or len(calls) >= CALLS_MAX:
                    rest.append(OPENING + block)
                else:
                    calls.append(call)
                    rest.append(after)
            text = "".join(rest)
            return (text.strip() if calls else text), calls
        objects = _objects_in(held.strip().removeprefix(PYTHON_TAG))
        for value in objects:
            call = _call_of(value, self.tools)
            if call is None:
                return held, []
            calls.append(call)
        return ("" if calls else held), calls


_NAME = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"')
_ARGUMENTS = re.compile(r'\s*,\s*"(?:arguments|parameters)"\s*:\s*(\{.*)', re.DOTALL)
_BEGINNING = '{"name":"'


def _cut_call(
    text: str, tools: Collection[str], *, forced: bool
) -> tuple[str, bool, list[ToolCall]]:
    """What comes before a call that was cut, whether there is one, and what is known of it."""
    marked = OPENING in text and CLOSING not in text.rpartition(OPENING)[2]
    before, _, piece = text.rpartition(OPENING) if marked else ("", "", text)
    piece = piece.strip().removeprefix(PYTHON_TAG)
    if not marked and ";" in piece and not forced:
        before, _, piece = piece.rpartition(";")
    if _json_of(piece) is not None:
        return text, False, []
    if (named := _NAME.match(piece)) is None:
        compact = re.sub(r"\s", "", piece)
        begun = marked or forced or (len(compact) > 2 and compact.startswith(_BEGINNING[:8]))
        return before, begun, []
    if named[1] not in tools:
        return (before, True, []) if marked or forced else (text, False, [])
    arguments = _ARGUMENTS.match(piece, named.end())
    return before, True, [ToolCall(named[1], arguments[1] if arguments else "")]


def is_whole(call: ToolCall) -> bool:
    """Whether all of its arguments are there."""
    return isinstance(_json_of(call.arguments), dict)


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of the text may be the beginning of the mark."""
    sizes = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(mark[:size])), 0)


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _objects_in(text: str) -> list[Any]:
    """The JSON objects that a text is made of, semicolons between them; none if it is not."""
    decoder, at = json.JSONDecoder(), 0
    found: list[Any] = []
    while at < len(text) and len(found) < CALLS_MAX:
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        found.append(value)
        while at < len(text) and text[at] in "; \n\t":
            at += 1
    return found if at >= len(text) else []


def _call_of(value: Any, tools: Collection[str]) -> ToolCall | None:
    if not isinstance(value, dict) or value.get("name") not in tools:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        # Some write the arguments as OpenAI does, as a text that is JSON.
        arguments = _json_of(arguments)
    if not isinstance(arguments, dict):
        return None
    return ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False))
