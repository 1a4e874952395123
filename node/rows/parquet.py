"""Parquet, in and out: the only door to pyarrow, which is installed for who wants it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from node.rows.cells import TableRow
from node.rows.kept_cells import as_text
from node.rows.reading import TableColumns, check_columns
from node.rows.writing import OutCell, OutColumn
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
    """A table in a Parquet file; of it only the columns that are asked for are read."""

    def __init__(self, path: Path, columns: TableColumns) -> None:
        self._path, self._columns, self._read = path, columns, 0
        try:
            # Nothing is read ahead: a row group may be larger than the memory.
            self._file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
            schema = self._file.schema_arrow
        except _FAILED as error:
            raise InputError(f"{path} cannot be read as Parquet: {_line(error)}") from error
        try:
            check_columns(path, columns, list(schema.names))
            if columns.text:
                _check_kind(path, columns.text, schema, _is_text, "text", "a column of texts")
            for name in columns.numbers:
                wanted = "a column of numbers, or of lists of them"
                _check_kind(path, name, schema, _is_numbers, "numbers", wanted)
        except InputError:
            self._file.close()
            raise
        self.rows: int | None = self._file.metadata.num_rows

    @property
    def read_share(self) -> float:
        return min(1.0, self._read / max(1, self.rows or 0))

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[TableRow]:
        names = list(self._columns.names)
        try:
            for batch in self._file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
                for cells in zip(*(batch.column(it).to_pylist() for it in names), strict=True):
                    yield TableRow(self._read, dict(zip(names, cells, strict=True)))
                    self._read += 1
        except _FAILED as error:
            first, last = self._read, self._read + _BATCH_ROWS - 1
            raise InputError(
                f"{self._path}, rows {first} to {last}: they cannot be read ({_line(error)})",
                todo="see whether the file is whole",
            ) from error
        if self._read != self.rows:
            raise InputError(
                f"{self._path} says that it has {self.rows} rows, and {self._read} are in it",
                todo="see whether the file is whole, or write it anew",
            )


def _check_kind(
    path: Path,
    column: str,
    schema: Any,
    fits: Callable[[Any], bool],
    wanted: str,
    todo: str,
) -> None:
    """InputError if a column is not of a kind that `fits`."""
    kind = schema.field(column).type
    if not fits(kind.value_type if pa.types.is_dictionary(kind) else kind):
        raise InputError(
            f"{path}: the column {column[:40]!r} has {kind}, not {wanted}",
            todo=f"name {todo}, or convert it",
        )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_numbers(kind: Any) -> bool:
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_numbers(kind.value_type)
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


class ParquetWriter:
    """Results as a Parquet file, in row groups of a bounded size."""

    def __init__(self, file: IO[bytes], columns: Sequence[OutColumn], *, marks: bool) -> None:
        fields = [pa.field("row", pa.int64())]
        fields += [pa.field(it.name, _type_of(it)) for it in columns]
        if marks:
            fields.append(pa.field("error", pa.string()))
        self._schema, self._columns, self._marks = pa.schema(fields), tuple(columns), marks
        # The numbers of vectors rarely repeat: a dictionary of them takes time, and room.
        repeating = [it.name for it in fields if pa.types.is_string(it.type)]
        self._writer = parquet.ParquetWriter(file, self._schema, use_dictionary=repeating)
        self._rows: list[tuple[int, Sequence[OutCell], str]] = []
        self._size_bytes = 0

    def write(self, number: int, cells: Sequence[OutCell], problem: str) -> None:
        """Add one row."""
        self._rows.append((number, cells, problem))
        self._size_bytes += sum(map(_bytes_of, cells))
        if len(self._rows) >= _GROUP_ROWS or self._size_bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the file's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        numbers, rows, problems = zip(*self._rows, strict=True)
        arrays = [pa.array(numbers, pa.int64())]
        for column, cells in zip(self._columns, zip(*rows, strict=True), strict=True):
            arrays.append(_array_of(column, cells))
        if self._marks:
            arrays.append(pa.array([it or None for it in problems], pa.string()))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._size_bytes = [], 0


def _type_of(column: OutColumn) -> Any:
    match column.kind:
        case "vector":
            return pa.list_(pa.float32())
        case "text":
            return pa.string()
        case "bool":
            found = pa.bool_()
        case "float16":
            # Few readers know a half float.
            found = pa.float32()
        case _:
            found = pa.type_for_alias(column.kind)
    for _ in range(column.rank):
        found = pa.list_(found)
    return found


def _array_of(column: OutColumn, cells: Sequence[Any]) -> Any:
    if column.kind == "vector":
        return _vectors(cells)
    if column.kind == "text":
        return pa.array([as_text(it) for it in cells], pa.string())
    plain = [it.tolist() if isinstance(it, np.ndarray) else it for it in cells]
    return pa.array(plain, _type_of(column))


def _vectors(values: Sequence[bytes | None]) -> Any:
    lengths = [0 if it is None else len(it) // 4 for it in values]
    ends = np.cumsum([0, *lengths], dtype=np.int64)
    flat = np.frombuffer(b"".join(it for it in values if it is not None), "<f4")
    missing = pa.array([it is None for it in values], pa.bool_())
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), pa.array(flat, pa.float32()), mask=missing
    )


def _bytes_of(cell: OutCell) -> int:
    if isinstance(cell, np.ndarray):
        return cell.nbytes
    return len(cell) if isinstance(cell, bytes | str | list) else 8


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
