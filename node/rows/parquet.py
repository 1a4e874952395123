"""Parquet, in and out: the only door to pyarrow, which is installed for who wants it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from node.rows.cells import TableRow
from node.rows.reading import check_column
from wire.errors import InputError

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise InputError(
        "Parquet needs a library that is not installed here: pyarrow",
        todo="pip install 'baton[rows]', or pip install pyarrow; CSV and JSON Lines need nothing",
    ) from error

# Rows that are decoded at once.
_BATCH_ROWS = 512
# Rows of one row group, and the bytes at which one is closed before.
_GROUP_ROWS = 16_384
_GROUP_BYTES = 16 << 20
_FAILED = (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError)


class ParquetRows:
    """A table in a Parquet file; of it only the column that is asked for is read."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column, self._read = path, column, 0
        try:
            # Nothing is read ahead: a row group may be larger than the memory.
            self._file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
            schema = self._file.schema_arrow
        except _FAILED as error:
            raise InputError(f"{path} cannot be read as Parquet: {_line(error)}") from error
        check_column(path, column, list(schema.names))
        kind = schema.field(column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            self._file.close()
            raise InputError(
                f"{path}: the column {column[:40]!r} has {kind}, not text",
                todo="name a column of texts, or convert it",
            )
        self.rows: int | None = self._file.metadata.num_rows

    @property
    def read_share(self) -> float:
        return min(1.0, self._read / max(1, self.rows or 0))

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[TableRow]:
        name = self._column
        try:
            for batch in self._file.iter_batches(_BATCH_ROWS, columns=[name], use_threads=False):
                for value in batch.column(0).to_pylist():
                    yield TableRow(self._read, {name: value})
                    self._read += 1
        except _FAILED as error:
            first, last = self._read, self._read + _BATCH_ROWS - 1
            raise InputError(
                f"{self._path}, rows {first} to {last}: they cannot be read ({_line(error)})",
                todo="see whether the file is whole",
            ) from error


class ParquetWriter:
    """Results as a Parquet file, in row groups of a bounded size."""

    def __init__(self, file: IO[bytes], answer: str, *, marks: bool) -> None:
        kind = pa.list_(pa.float32()) if answer == "vector" else pa.string()
        fields = [pa.field("row", pa.int64()), pa.field(answer, kind)]
        if marks:
            fields.append(pa.field("error", pa.string()))
        self._schema, self._answer, self._marks = pa.schema(fields), answer, marks
        # The numbers of vectors rarely repeat: a dictionary of them takes time, and room.
        repeating = [it.name for it in fields if pa.types.is_string(it.type)]
        self._writer = parquet.ParquetWriter(file, self._schema, use_dictionary=repeating)
        self._rows: list[tuple[int, Any, str]] = []
        self._size_bytes = 0

    def write(self, number: int, value: bytes | str | None, problem: str) -> None:
        """Add one row; a vector is its 32-bit floats, little-endian."""
        self._rows.append((number, value, problem))
        self._size_bytes += 0 if value is None else len(value)
        if len(self._rows) >= _GROUP_ROWS or self._size_bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        numbers, values, problems = zip(*self._rows, strict=True)
        columns = [pa.array(numbers, pa.int64()), self._answers(values)]
        if self._marks:
            columns.append(pa.array([it or None for it in problems], pa.string()))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows, self._size_bytes = [], 0

    def _answers(self, values: Sequence[Any]) -> Any:
        if self._answer != "vector":
            return pa.array(values, pa.string())
        lengths = [0 if it is None else len(it) // 4 for it in values]
        ends = np.cumsum([0, *lengths], dtype=np.int64)
        flat = np.frombuffer(b"".join(it for it in values if it is not None), "<f4")
        missing = pa.array([it is None for it in values], pa.bool_())
        return pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), pa.array(flat, pa.float32()), mask=missing
        )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
