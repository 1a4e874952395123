"""Results in a file: CSV, TSV and JSON Lines here, Parquet next door."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from node.rows.reading import JSON_LINES, PARQUET, TSV, format_of

# What spreadsheets take for a formula, also after blanks; and what they leave out before one.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BLANKS = ("\t", "\r", "\n")


class RowWriter(Protocol):
    """Where results go, row by row. Its methods write to the disk."""

    def write(self, number: int, value: bytes | str | None, problem: str) -> None:
        """Add one row: a text, or a vector as 32-bit floats; None where there is no answer."""

    def close(self) -> None:
        """Write what is left; the file itself is its owner's to close."""


def open_writer(
    path: Path, file: IO[bytes], answer: str, *, marks: bool, for_spreadsheets: bool = False
) -> RowWriter:
    """A writer of the format that `path` says, into `file`.

    `answer` is the name of the column of answers, `vector` or another; with `marks` there is a
    column of errors. In CSV and TSV that are `for_spreadsheets` a text is never a formula.
    """
    form = format_of(path)
    if form == PARQUET:
        from node.rows.parquet import ParquetWriter

        return ParquetWriter(file, answer, marks=marks)
    if form == JSON_LINES:
        return _JsonLines(file, answer)
    write = _no_formula if for_spreadsheets else str
    return _Csv(file, answer, "\t" if form == TSV else ",", marks=marks, write=write)


def _numbers(vector: bytes) -> str:
    """The floats of a vector as JSON, in the fewest digits that give the same 32 bits again.

    What JSON has no number for is null.
    """
    found = np.frombuffer(vector, "<f4")
    return "[" + ", ".join(str(it) if np.isfinite(it) else "null" for it in found) + "]"


def _no_formula(text: str) -> str:
    """The text, with a mark before it if a spreadsheet would run it; a number stays one."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.lstrip().startswith(_FORMULA) or text[:1] in _BLANKS else text
    return text


class _JsonLines:
    def __init__(self, file: IO[bytes], answer: str) -> None:
        self._file, self._answer = file, json.dumps(answer)

    def write(self, number: int, value: bytes | str | None, problem: str) -> None:
        words = _numbers(value) if isinstance(value, bytes) else json.dumps(value)
        told = f', "error": {json.dumps(problem)}' if problem else ""
        self._file.write(f'{{"row": {number}, {self._answer}: {words}{told}}}\n'.encode())

    def close(self) -> None:
        """Every line is in the file already."""


class _Csv:
    def __init__(
        self,
        file: IO[bytes],
        answer: str,
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
        self._csv.writerow(["row", answer, *(["error"] if marks else [])])

    def write(self, number: int, value: bytes | str | None, problem: str) -> None:
        words = _numbers(value) if isinstance(value, bytes) else self._write(value or "")
        row = [number, words, *([self._write(problem)] if self._marks else [])]
        (self._quoting if "\r" in words + problem else self._csv).writerow(row)

    def close(self) -> None:
        self._text.flush()
        self._text.detach()
