"""Cells of a table that are copied beside its answers. Pure."""

import datetime as dt
import decimal
import json
from collections.abc import Iterable, Sequence
from typing import Any

from node.rows.cells import TableRow, kind_of_cell
from wire.errors import InputError

# As a job keeps them: what JSON has, NaN included.
KeptCell = None | bool | int | float | str | list[Any] | dict[str, Any]
# What all results have.
OWN_NAMES = ("row", "error")
_INT_BITS = 63


def kept_cells(row: TableRow, columns: Sequence[str]) -> list[KeptCell]:
    """The cells of these columns; InputError for one that no result can have.

    What has no value, and what a row without cells has, is None.
    """
    if row.problem:
        return [None] * len(columns)
    return [_kept(row.cells.get(it), it) for it in columns]


def _kept(cell: object, column: str) -> KeptCell:
    if isinstance(cell, dt.datetime | dt.date | dt.time):
        return cell.isoformat()
    if isinstance(cell, decimal.Decimal):
        return str(cell)
    if cell is None or isinstance(cell, bool | int | float | str):
        return cell
    if isinstance(cell, list | dict):
        try:
            json.dumps(cell)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"the column {column[:40]!r} cannot be kept: {error}") from error
        return cell
    raise InputError(f"the column {column[:40]!r} has {kind_of_cell(cell)}, which is not kept")


def kinds_of(rows: Iterable[Sequence[KeptCell]], count: int) -> list[str]:
    """Of each of `count` columns what all its cells are: bool, int64, float64, else text."""
    found: list[set[str]] = [set() for _ in range(count)]
    for row in rows:
        for kinds, cell in zip(found, row, strict=True):
            if cell is not None:
                kinds.add(_kind(cell))
    return [_common(it) for it in found]


def _kind(cell: KeptCell) -> str:
    if isinstance(cell, bool):
        return "bool"
    if isinstance(cell, int) and cell.bit_length() <= _INT_BITS:
        return "int64"
    return "float64" if isinstance(cell, float) else "text"


def _common(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return kinds.copy().pop()
    return "float64" if kinds == {"int64", "float64"} else "text"


def as_text(cell: KeptCell) -> str | None:
    """A cell as a column of texts has it."""
    return cell if cell is None or isinstance(cell, str) else json.dumps(cell)
