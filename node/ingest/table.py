"""An output that is a table, read back: the names of its columns, and its rows. Pure."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from node.ingest.parsing import ROWS_MAX, Cell
from wire.errors import Malformed, Oversize

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class DataTable:
    """Rows of cells, one for each column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def from_bytes(cls, output: bytes) -> "DataTable":
        """Read the lines of JSON that `parsing.to_lines` writes; Malformed for others.

        Oversize for more lines than that writes. A large table takes a second: read it in a thread.
        """
        said = output.splitlines()
        if len(said) > ROWS_MAX + 1:
            raise Oversize(f"a table of {len(said) - 1} rows, at most {ROWS_MAX}")
        try:
            lines = [json.loads(it) for it in said]
        except (ValueError, RecursionError) as error:
            raise Malformed(f"not a table: {error}") from error
        if not lines or not all(isinstance(it, list) and len(it) == len(lines[0]) for it in lines):
            raise Malformed("not a table: its lines are not of one length")
        if not all(isinstance(it, str) for it in lines[0]):
            raise Malformed("not a table: its first line has the names of the columns")
        if not all(_is_cell(cell) for line in lines for cell in line):
            raise Malformed("not a table: a cell has text, a number, true, false or null")
        return cls(tuple(lines[0]), tuple(map(tuple, lines[1:])))

    def words(self) -> list[str]:
        """Each row as text for a model: its only cell, or a line for each cell that has a value."""
        if len(self.columns) == 1:
            return [_word(row[0]) for row in self.rows]
        return [
            "\n".join(
                f"{name}: {_word(cell)}"
                for name, cell in zip(self.columns, row, strict=True)
                if cell is not None
            )
            for row in self.rows
        ]


def _is_cell(value: Any) -> bool:
    """Whether `parsing.to_lines` could have written this: anybody may have."""
    if isinstance(value, str):
        return _SURROGATE.search(value) is None
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, int)


def _word(cell: Cell) -> str:
    return cell if isinstance(cell, str) else "" if cell is None else json.dumps(cell)
