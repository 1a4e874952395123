"""One table of a workflow's TOML file, read key by key: each error names the line. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from node.workflows.toml_lines import line_of
from wire.errors import InputError


@dataclass(frozen=True, slots=True)
class TableReader:
    """A table at `path` in `text`; with `keys`, which are all that it may have."""

    text: str
    path: tuple[str | int, ...]
    found: Mapping[str, Any]
    keys: Sequence[str]

    def __post_init__(self) -> None:
        for key in self.found:
            if key not in self.keys:
                self.reject(key, f"there is no {key!r}", f"there may be {', '.join(self.keys)}")

    def reject(self, key: str, what: str, todo: str = "") -> NoReturn:
        """Raise an InputError that names the line of a key, or of the table without it."""
        path = (*self.path, key) if key else self.path
        line = line_of(self.text, path)
        place = "" if line is None else f"line {line}: "
        dotted = ".".join(str(it) for it in self.path if isinstance(it, str))
        where = f" in [{dotted}]" if dotted else ""
        raise InputError(f"{place}{what}{where}", todo=todo)

    def again(self, key: str, error: InputError) -> NoReturn:
        """Raise an error about the value of a key once more, with its line."""
        self.reject(key, f"{key}: {error.message}", error.todo)

    def has(self, key: str) -> bool:
        """Whether a key is there."""
        return key in self.found

    def string(self, key: str, default: str | None = None, *, chars_max: int = 2048) -> str:
        """A text; refused if it is missing without a default, empty, or too long."""
        value = self.found.get(key, default)
        if value is None:
            self.reject(key, f"{key} is missing")
        if not isinstance(value, str) or (not value and default != ""):
            self.reject(key, f"{key} is a text, in quotes")
        if len(value) > chars_max:
            self.reject(key, f"{key} has {len(value)} characters, at most {chars_max} are taken")
        return value

    def number(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number within bounds."""
        value = self.found.get(key, default)
        if type(value) is not int or not low <= value <= high:
            self.reject(key, f"{key} is a whole number from {low} to {high}")
        return value

    def word(self, key: str, default: str, words: Sequence[str]) -> str:
        """One of some words."""
        value = self.found.get(key, default)
        if value not in words:
            self.reject(key, f"{key} is one of {', '.join(words)}")
        return str(value)

    def strings(self, key: str, count_max: int) -> tuple[str, ...]:
        """A list of texts; empty if it is not there."""
        value = self.found.get(key, [])
        if not isinstance(value, list) or not all(isinstance(it, str) for it in value):
            self.reject(key, f"{key} is a list of texts")
        if len(value) > count_max:
            self.reject(key, f"{key} has {len(value)} items, at most {count_max} are taken")
        return tuple(value)

    def numbers(self, key: str, count_max: int) -> tuple[int, ...]:
        """A list of whole numbers above 0; empty if it is not there."""
        value = self.found.get(key, [])
        right = isinstance(value, list) and len(value) <= count_max
        if not right or not all(type(it) is int and 0 < it < 1 << 31 for it in value):
            self.reject(key, f"{key} is a list of at most {count_max} whole numbers above 0")
        return tuple(value)

    def table(self, key: str, keys: Sequence[str]) -> "TableReader":
        """The table below a key; empty if it is not there."""
        value = self.found.get(key, {})
        if not isinstance(value, dict):
            self.reject(key, f"{key} is a table: [{'.'.join(map(str, (*self.path, key)))}]")
        return TableReader(self.text, (*self.path, key), value, keys)

    def tables(self, key: str, count_max: int) -> list[tuple[tuple[str | int, ...], Any]]:
        """The tables of an array, each with its path."""
        value = self.found.get(key, [])
        if not isinstance(value, list) or not all(isinstance(it, dict) for it in value):
            self.reject(key, f"{key} is an array of tables: [[{key}]]")
        if len(value) > count_max:
            self.reject(key, f"there are {len(value)} of [[{key}]], at most {count_max} are taken")
        return [((*self.path, key, place), it) for place, it in enumerate(value)]
