"""Results in a file: CSV, TSV and JSON Lines here, Parquet next door."""

import csv
import io
import json
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from node.rows.reading import JSON_LINES, PARQUET, TSV, format_of


class RowWriter(Protocol):
    """Where results go, row by row. Its methods write to the disk."""

    def write(self, number: int, value: bytes | str | None, problem: str) -> None:
        """Add one row: a text, or a vector as 32-bit floats; None where there is no answer."""

    def close(self) -> None:
        """Write what is left; the file itself is its owner's to close."""


def open_writer(path: Path, file: IO[bytes], answer: str, *, marks: bool) -> RowWriter:
    """A writer of the format that `path` says, into `file`.

    `answer` is the name of the column of answers, `vector` or another; with `marks` there is a
    column of errors.
    """
    form = format_of(path)
    if form == PARQUET:
        from node.rows.parquet import ParquetWriter

        return ParquetWriter(file, answer, marks=marks)
    if form == JSON_LINES:
        return _JsonLines(file, answer)
    return _Csv(file, answer, "\t" if form == TSV else ",", marks=marks)


def _numbers(vector: bytes) -> str:
    """The floats of a vector as JSON, in the fewest digits that give the same 32 bits again.

    What JSON has no number for is null.
    """
    found = np.frombuffer(vector, "<f4")
    return "[" + ", ".join(str(it) if np.isfinite(it) else "null" for it in found) + "]"


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
    def __init__(self, file: IO[bytes], answer: str, delimiter: str, *, marks: bool) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._csv = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._marks = marks
        self._csv.writerow(["row", answer, *(["error"] if marks else [])])

    def write(self, number: int, value: bytes | str | None, problem: str) -> None:
        words = _numbers(value) if isinstance(value, bytes) else value or ""
        self._csv.writerow([number, words, *([problem] if self._marks else [])])

    def close(self) -> None:
        self._text.flush()
        self._text.detach()
