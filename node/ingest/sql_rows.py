"""What a database answers, as the body of a fetch: a table as lines of JSON. Pure."""

import datetime as dt
import decimal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from node.ingest.parsing import Cell, cell_of, to_lines
from wire.errors import Malformed, Oversize
from wire.fetch import COLUMNS_MAX

_TIMES = (dt.date, dt.time, dt.datetime)


def lines_of(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """The table; Malformed names the row and column of what has no place in one."""
    if len(columns) > COLUMNS_MAX:
        raise Oversize(f"{len(columns)} columns, at most {COLUMNS_MAX}; name those to take")
    if len(set(columns)) != len(columns):
        raise Malformed("two columns of the query have one name: rename one with AS")
    return to_lines(list(columns), _cells(columns, rows))


def _cells(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[list[Cell]]:
    for number, row in enumerate(rows, start=1):
        cells = []
        for name, value in zip(columns, row, strict=True):
            try:
                cells.append(_cell(value))
            except Malformed as error:
                raise Malformed(f"row {number}, column {name!r}: {error.message}") from error
        yield cells


def _cell(value: Any) -> Cell:
    if isinstance(value, decimal.Decimal) or type(value).__name__ == "UUID":
        # A number with as many digits as the database has: a float would lose some.
        return str(value)
    if isinstance(value, _TIMES):
        return value.isoformat()
    if value is not None and not isinstance(value, str | int | float | list | dict):
        raise Malformed(
            f"{type(value).__name__} has no place in a table: make text or a number of it in the"
            " query"
        )
    try:
        return cell_of(value)
    except TypeError as error:
        raise Malformed(f"{error}: make text of it in the query") from error
