"""Keeps what people say from becoming control tokens of a model. Pure.

Control tokens (`<|im_end|>`) have names that anybody can type. A mark, which is a character that
occurs nowhere in a request, is put into each text of the request wherever it holds such a name, or
could be the beginning, the end or the middle of one. The template then writes its own names whole
and everybody else's broken; the marks are taken out when the prompt is cut into tokens.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from wire.errors import ModelRefused

_MARKS = [chr(it) for it in range(0xF0000, 0xF0100)]
# Words that templates compare with: they are the protocol's, not somebody's text.
_WORDS = frozenset(
    (
        *("assistant", "function", "system", "tool", "user", "text", "type", "role", "name"),
        *("content", "tool_calls", "tool_call_id", "id", "arguments", "parameters", "properties"),
        *("object", "string", "number", "integer", "boolean", "array", "null", "description"),
        *("required", "items", "enum"),
    )
)


class ControlText:
    """`names` are those of a model's control tokens."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = sorted({it for it in names if it}, key=lambda it: (-len(it), it))
        self._pattern = re.compile("|".join(map(re.escape, self._names)) or "(?!)")
        self._infixes = {
            name[at:end]
            for name in self._names
            if len(name) <= 64
            for at in range(len(name))
            for end in range(at + 1, len(name) + 1)
        }
        self._longest = max(map(len, self._names), default=0)
        # Characters of which every name has one: without them nothing is a name.
        self._needed = _hitting(self._names)

    def mark_for(self, request: Any) -> str:
        """A character that occurs nowhere in a request."""
        text = "\n".join(_texts(request))
        for mark in _MARKS:
            if mark not in text:
                return mark
        raise ModelRefused("the messages have too many characters of private use")

    def broken(self, request: Any, mark: str) -> Any:
        """The request with every name of a control token in its texts broken by the mark."""
        return _mapped(request, lambda text: self._break(text, mark))

    def masked(self, request: Any, mark: str) -> Any:
        """As `broken`, with a mark after every character that a name could be made of."""
        table = str.maketrans({it: it + mark for it in self._needed})
        return _mapped(request, lambda text: self._break(text, mark).translate(table))

    def is_suspect(self, request: Any) -> bool:
        """Whether a template that rewrites texts could make a name out of these."""
        return any(self._needed & set(text) for text in _texts(request))

    def split(self, prompt: str) -> list[tuple[str, bool]]:
        """The prompt as parts, each with whether it is the name of a control token."""
        found, at = [], 0
        for match in self._pattern.finditer(prompt):
            if match.start() > at:
                found.append((prompt[at : match.start()], False))
            found.append((match.group(), True))
            at = match.end()
        if at < len(prompt):
            found.append((prompt[at:], False))
        return found

    def controls(self, prompt: str) -> list[str]:
        return self._pattern.findall(prompt)

    def _break(self, text: str, mark: str) -> str:
        if not text or text in _WORDS:
            return text
        # Names may overlap: after a mark within the first the second is looked for again.
        made = text
        while (match := self._pattern.search(made)) is not None:
            cut = match.start() + 1
            if len(match.group()) == 1:
                raise ModelRefused(f"{match.group()!r} is a control token of this model")
            made = made[:cut] + mark + made[cut:]
        most = min(len(made), self._longest - 1)
        if any(
            name.startswith(made[-size:]) for size in range(1, most + 1) for name in self._names
        ):
            made += mark
        if any(name.endswith(made[:size]) for size in range(1, most + 1) for name in self._names):
            made = mark + made
        if made in self._infixes:
            made = made[:1] + mark + made[1:]
        return made


def _hitting(names: Sequence[str]) -> frozenset[str]:
    found: set[str] = set()
    for name in names:
        if not found & set(name):
            signs = [it for it in name if not it.isalnum()]
            found.add((signs or [name[0]])[0])
    return frozenset(found)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(it, change) for it in value]
    if isinstance(value, dict):
        return {_mapped(key, change): _mapped(it, change) for key, it in value.items()}
    return value


def _texts(value: Any) -> list[str]:
    found: list[str] = []
    _mapped(value, lambda text: found.append(text) or text)  # type: ignore[func-returns-value]
    return found
