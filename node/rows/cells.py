"""One row of a table as it was read, and what a model can be asked of it. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from wire import limits
from wire.errors import InputError

# What one row of a table may take, as it stands in its file.
ROW_BYTES_MAX = 1 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row by its number, from 0. `problem` says why it has no cells, where it has none."""

    number: int
    cells: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""


def text_of(row: TableRow, column: str) -> str:
    """The text in a column; InputError that says what is there instead."""
    if row.problem:
        raise InputError(row.problem)
    if column not in row.cells:
        raise InputError(f"there is no column {column[:40]!r}")
    value = row.cells[column]
    if value is None:
        raise InputError(f"the column {column[:40]!r} has no value")
    if not isinstance(value, str):
        raise InputError(f"the column {column[:40]!r} has {kind_of_cell(value)}, not text")
    if not value:
        raise InputError(f"the column {column[:40]!r} is empty")
    is_plain = value.isascii()
    if not is_plain and _SURROGATE.search(value):
        raise InputError(f"the column {column[:40]!r} has half a character, which is not text")
    size_bytes = len(value) if is_plain else len(value.encode())
    if size_bytes > limits.TEXT_BYTES_MAX:
        raise InputError(
            f"the column {column[:40]!r} has {size_bytes} bytes, at most"
            f" {limits.TEXT_BYTES_MAX} are taken"
        )
    return value


def kind_of_cell(value: object) -> str:
    """What a cell has, in words."""
    match value:
        case None:
            return "no value"
        case bool():
            return "true or false"
        case float() if not math.isfinite(value):
            return "a number that is none (NaN or infinite)"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case bytes():
            return "bytes"
        case _:
            return f"a {type(value).__name__}"
