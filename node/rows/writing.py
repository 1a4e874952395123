"""Results in a file: CSV, TSV and JSON Lines here, Parquet next door."""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from node.rows.kept_cells import KeptCell, as_text
from node.rows.reading import JSON_LINES, PARQUET, TSV, format_of

# What spreadsheets take for a formula, also after blanks; and what they leave out before one.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BLANKS = ("\t", "\r", "\n")


# What stands in a result: a text, a vector's 32-bit floats, a tensor's numbers, a copied cell.
OutCell = KeptCell | bytes | np.ndarray


@dataclass(frozen=True, slots=True)
class OutColumn:
    """A column of results, and what its cells are.

    `kind` is text, vector (32-bit floats, little-endian), bool, int64, float64, or the element type
    of tensors that have `rank` dimensions.
    """

    name: str
    kind: str
    rank: int = 0


class RowWriter(Protocol):
    """Where results go, row by row. Its methods write to the disk."""

    def write(self, number: int, cells: Sequence[OutCell], problem: str) -> None:
        """Add one row, a cell for each column; None where there is no value."""

    def close(self) -> None:
        """Write what is left; the file itself is its owner's to close."""


def open_writer(
    path: Path,
    file: IO[bytes],
    columns: Sequence[OutColumn],
    *,
    marks: bool,
    for_spreadsheets: bool = False,
) -> RowWriter:
    """A writer of the format that `path` says, into `file`.

    With `marks` there is a column of errors. In CSV and TSV that are `for_spreadsheets` a text is
    never a formula.
    """
    form = format_of(path)
    if form == PARQUET:
        from node.rows.parquet import ParquetWriter

        return ParquetWriter(file, columns, marks=marks)
    if form == JSON_LINES:
        return _JsonLines(file, columns)
    write = no_formula if for_spreadsheets else str
    return _Csv(file, columns, "\t" if form == TSV else ",", marks=marks, write=write)


def _numbers(cell: bytes | np.ndarray) -> str:
    """Numbers as JSON, floats in the fewest digits that give the same bits again.

    What JSON has no number for is null.
    """
    found = np.frombuffer(cell, "<f4") if isinstance(cell, bytes) else cell
    if not found.ndim:
        return _number(found[()])
    if found.ndim > 1:
        return "[" + ", ".join(map(_numbers, found)) + "]"
    return "[" + ", ".join(map(_number, found)) + "]"


def _number(value: Any) -> str:
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    return str(value) if np.isfinite(value) else "null"


def no_formula(text: str) -> str:
    """The text, with a mark before it if a spreadsheet would run it; a number stays one."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.lstrip().startswith(_FORMULA) or text[:1] in _BLANKS else text
    return text


class _JsonLines:
    def __init__(self, file: IO[bytes], columns: Sequence[OutColumn]) -> None:
        self._file, self._names = file, [json.dumps(it.name) for it in columns]

    def write(self, number: int, cells: Sequence[OutCell], problem: str) -> None:
        told = [f"{name}: {_json(cell)}" for name, cell in zip(self._names, cells, strict=True)]
        told += [f'"error": {json.dumps(problem)}'] if problem else []
        self._file.write(f'{{"row": {number}, {", ".join(told)}}}\n'.encode())

    def close(self) -> None:
        """Every line is in the file already."""


def _json(cell: OutCell) -> str:
    if isinstance(cell, bytes | np.ndarray):
        return _numbers(cell)
    if isinstance(cell, float) and not math.isfinite(cell):
        return "null"
    return json.dumps(cell)


class _Csv:
    def __init__(
        self,
        file: IO[bytes],
        columns: Sequence[OutColumn],
        delimiter: str,
        *,
        marks: bool,
        write: Callable[[str], str],
    ) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._csv = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        # The library quotes a carriage return only where it is told to quote all.
        self._quoting = csv.writer(
            self._text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL
        )
        self._marks, self._write = marks, write
        names = [write(it.name) for it in columns]
        self._csv.writerow(["row", *names, *(["error"] if marks else [])])

    def write(self, number: int, cells: Sequence[OutCell], problem: str) -> None:
        words = [self._word(it) for it in cells]
        words += [self._write(problem)] if self._marks else []
        has_return = any("\r" in it for it in words)
        (self._quoting if has_return else self._csv).writerow([number, *words])

    def _word(self, cell: OutCell) -> str:
        if isinstance(cell, bytes | np.ndarray):
            # A missing number is an empty cell, as a missing text is.
            found = _numbers(cell)
            return "" if found == "null" else found
        return self._write(as_text(cell) or "")

    def close(self) -> None:
        self._text.flush()
        self._text.detach()
