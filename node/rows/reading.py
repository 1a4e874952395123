"""Tables in files, read row by row: CSV, TSV and JSON Lines here, Parquet next door.

A file is never held whole, and no row is longer than `ROW_BYTES_MAX`, whatever the file says.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from node.rows.cells import ROW_BYTES_MAX, TableRow
from wire.errors import InputError

# Formats by the ends of their names.
CSV, TSV, JSON_LINES, PARQUET = "csv", "tsv", "jsonl", "parquet"
_SUFFIXES = {".csv": CSV, ".tsv": TSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES}
_SUFFIXES |= {".parquet": PARQUET, ".pq": PARQUET}
_SHOWN_COLUMNS = 20


class RowSource(Protocol):
    """A table that is read once, from its beginning. Its methods read the disk."""

    # How many rows there are; None where nobody knows before the end.
    rows: int | None

    @property
    def read_share(self) -> float:
        """How much of the file was read, from 0 to 1."""

    def __iter__(self) -> Iterator[TableRow]:
        """The rows in their order; InputError, with the row's number, for what ends the table."""

    def close(self) -> None:
        """Let go of the file."""


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return path.suffix.lower() in _SUFFIXES


def format_of(path: Path) -> str:
    """The format that a file's name says; InputError for another."""
    if (found := _SUFFIXES.get(path.suffix.lower())) is None:
        known = ", ".join(sorted(_SUFFIXES))
        raise InputError(
            f"{path}: the end of its name says no format of tables",
            todo=f"name it with one of {known}",
        )
    return found


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The columns of a table that are read: one of texts, some of numbers, and some as they are."""

    text: str = ""
    numbers: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Each of them once."""
        text = (self.text,) if self.text else ()
        return tuple(dict.fromkeys((*text, *self.numbers, *self.kept)))


def open_rows(path: Path, columns: str | TableColumns) -> RowSource:
    """Open a table that has to have these columns, or one of texts; InputError if it cannot be."""
    if isinstance(columns, str):
        columns = TableColumns(columns)
    form = format_of(path)
    if form == PARQUET:
        # It needs a library that not everybody has.
        from node.rows.parquet import ParquetRows

        return ParquetRows(path, columns)
    try:
        # It is closed by whoever reads it.
        file = path.open("rb")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", todo="check what --rows names"
        ) from error
    source = LineRows(path, file, form, columns)
    try:
        source.begin()
    except InputError:
        file.close()
        raise
    return source


class _Lines:
    """The lines of a file as text, each bounded, counted in bytes."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.read_bytes = 0
        # Of the row that is being read; a quoted cell may have several lines.
        self.row, self.row_bytes = 0, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        left = ROW_BYTES_MAX - self.row_bytes
        try:
            data = self.file.readline(left + 1)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error
        if len(data) > left:
            raise InputError(
                f"{self.path}, row {self.row}: it has more than {ROW_BYTES_MAX} bytes",
                todo="see whether the file has line ends, and an even number of quotes",
            )
        if not data:
            raise StopIteration
        self.read_bytes += len(data)
        self.row_bytes += len(data)
        try:
            return data.decode("utf-8-sig" if self.read_bytes == len(data) else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}, row {self.row}: it is not UTF-8 (byte {error.start} of the line)",
                todo="convert the file first, for example with iconv",
            ) from error


class LineRows:
    """A table of lines: CSV with the names of columns first, or one JSON object in each."""

    def __init__(self, path: Path, file: IO[bytes], form: str, columns: TableColumns) -> None:
        self.rows: int | None = None
        self._path, self._form, self._columns = path, form, columns
        self._lines = _Lines(path, file)
        self._size_bytes = path.stat().st_size
        self._csv: Iterator[list[str]] = iter(())
        self._names: list[str] = []

    @property
    def read_share(self) -> float:
        return min(1.0, self._lines.read_bytes / max(1, self._size_bytes))

    def close(self) -> None:
        self._lines.file.close()

    def begin(self) -> None:
        """Read the names of the columns, where they stand first; InputError if one is missing."""
        if self._form == JSON_LINES:
            return
        delimiter = "\t" if self._form == TSV else ","
        self._csv = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self._names = self._next_csv() or []
        check_columns(self._path, self._columns, self._names)

    def __iter__(self) -> Iterator[TableRow]:
        lines = self._lines
        number = 0
        while True:
            lines.row, lines.row_bytes = number, 0
            row = self._next_json(number) if self._form == JSON_LINES else self._csv_row(number)
            if row is None:
                return
            yield row
            number += 1

    def _next_csv(self) -> list[str] | None:
        try:
            # An empty line is no row.
            return next((it for it in self._csv if it), None)
        except csv.Error as error:
            raise InputError(
                f"{self._path}, row {self._lines.row}: it is not CSV ({error})",
                todo="cells with commas or quotes stand in double quotes, which are doubled inside",
            ) from error

    def _csv_row(self, number: int) -> TableRow | None:
        cells = self._next_csv()
        if cells is None:
            return None
        if len(cells) != len(self._names):
            has = f"it has {len(cells)} cells, and there are {len(self._names)} columns"
            return TableRow(number, problem=has)
        return TableRow(number, dict(zip(self._names, cells, strict=True)))

    def _next_json(self, number: int) -> TableRow | None:
        line = next((it for it in self._lines if it.strip()), None)
        if line is None:
            return None
        try:
            value = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return TableRow(number, problem=f"it is not JSON: {error}")
        if not isinstance(value, dict):
            return TableRow(number, problem="it is not a JSON object")
        return TableRow(number, value)


def check_columns(path: Path, columns: TableColumns, names: list[str]) -> None:
    """InputError unless exactly one column has each of these names."""
    for column in columns.names:
        if names.count(column) != 1:
            known = ", ".join(it[:40] for it in names[:_SHOWN_COLUMNS]) or "none"
            what = "no column" if column not in names else "more than one column"
            raise InputError(
                f"{path} has {what} {column[:40]!r}", todo=f"name one of its columns: {known}"
            )


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number of JSON")
