"""Rows as the inputs of a function of tensors, and its outputs as rows again. Pure.

A row is kept as one canonical value: its tensors in order, each with name, type, shape and data. A
task takes the tensors of many rows, one after the other along their first dimension.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from node.rows.cells import TableRow, kind_of_cell
from wire.codec import pack_plain, unpack
from wire.errors import InputError, Malformed
from wire.tensors import ELEMENT_BYTES, RANK_MAX, Tensor, Tensors

# Numbers of one row, in all; a cell of a Parquet file may have any number of them.
ROW_NUMBERS_MAX = 1 << 16
_SHAPE = re.compile(r"(.+)\[(\d*(?:x\d+)*)\]", re.DOTALL)
_EXAMPLE = "--input x=open,close, or --input image:float32[3x32x32]=pixels"

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TensorColumns:
    """An input of a model and the columns that its numbers come from, one after the other.

    `shape` is that of one row; None for as many numbers as the first row has.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    columns: tuple[str, ...]

    @property
    def told(self) -> list[Any]:
        """What has to be the same for a job to go on."""
        shape = None if self.shape is None else list(self.shape)
        return [self.name, self.kind, shape, list(self.columns)]


def read_tensor_columns(typed: str) -> TensorColumns:
    """`NAME=COLUMN,…` or `NAME:TYPE[SHAPE]=COLUMN,…`; InputError."""
    name, equals, said = typed.partition("=")
    columns = tuple(it.strip() for it in said.split(","))
    shape: tuple[int, ...] | None = None
    if (match := _SHAPE.fullmatch(name)) is not None:
        name, shape = match[1], tuple(map(int, filter(None, match[2].split("x"))))
    before, _, kind = name.rpartition(":")
    if kind not in ELEMENT_BYTES:
        before, kind = name, "float32"
    if not equals or not before.strip() or not all(columns):
        raise InputError(f"{typed[:80]!r} names no input and its columns", todo=_EXAMPLE)
    if shape is not None and (len(shape) >= RANK_MAX or math.prod(shape) > ROW_NUMBERS_MAX):
        raise InputError(f"{typed[:80]!r}: a row has at most {ROW_NUMBERS_MAX} numbers")
    return TensorColumns(before.strip(), kind, shape, columns)


def tensor_row(row: TableRow, inputs: Sequence[TensorColumns], shapes: Shapes) -> bytes:
    """A row's tensors; InputError names the column, and what is wrong with it.

    `shapes` are those of the rows before, and of this one if it is the first.
    """
    if row.problem:
        raise InputError(row.problem)
    numbers = 0
    found: list[tuple[str, str, list[int], bytes]] = []
    for one in inputs:
        values, shape = _values(row.cells, one)
        numbers += len(values)
        if numbers > ROW_NUMBERS_MAX:
            raise InputError(f"{numbers} numbers, at most {ROW_NUMBERS_MAX} are taken")
        wanted = one.shape if one.shape is not None else shapes.get(one.name, shape)
        if math.prod(wanted) != len(values) or (one.shape is None and wanted != shape):
            before = "the model is to be given" if one.shape is not None else "the rows before have"
            raise InputError(
                f"the column {_named(one)} has {_words(shape)} numbers, and {before}"
                f" {_words(wanted)}"
            )
        found.append((one.name, one.kind, list(wanted), _data(values, one)))
    for name, _, sizes, _ in found:
        shapes.setdefault(name, tuple(sizes))
    return pack_plain(found)


def _values(cells: Mapping[str, object], one: TensorColumns) -> tuple[list[Any], tuple[int, ...]]:
    """The numbers of an input, flat, and their shape."""
    values: list[Any] = []
    shape: tuple[int, ...] = ()
    for column in one.columns:
        if column not in cells:
            raise InputError(f"there is no column {column[:40]!r}")
        some, shape = _flat(_opened(cells[column], column), column)
        values += some
    if len(one.columns) > 1 or not shape:
        shape = (len(values),)
    return values, shape


def _opened(cell: object, column: str) -> object:
    """A cell, or what is written in its text: a number, or a list as JSON has it."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    try:
        return json.loads(text) if text.startswith("[") else float(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the column {column[:40]!r} has {text[:40]!r}, no number") from error


def _flat(cell: object, column: str, depth: int = 0) -> tuple[list[Any], tuple[int, ...]]:
    if isinstance(cell, bool | int | float):
        if isinstance(cell, float) and not math.isfinite(cell):
            raise InputError(f"the column {column[:40]!r} has {cell}, which is no number")
        return [cell], ()
    if not isinstance(cell, list) or not cell or depth >= RANK_MAX - 1:
        raise InputError(f"the column {column[:40]!r} has {kind_of_cell(cell)}, no number")
    if len(cell) > ROW_NUMBERS_MAX:
        raise InputError(f"the column {column[:40]!r} has more than {ROW_NUMBERS_MAX} numbers")
    parts = [_flat(it, column, depth + 1) for it in cell]
    if len({shape for _, shape in parts}) > 1:
        raise InputError(f"the column {column[:40]!r} has lists of different lengths")
    return [value for values, _ in parts for value in values], (len(cell), *parts[0][1])


def _data(values: list[Any], one: TensorColumns) -> bytes:
    """The numbers in the type of the input, little-endian."""
    if one.kind == "bool" and not all(it in (0, 1) for it in values):
        raise InputError(f"the column {_named(one)} has something besides true and false")
    if "int" in one.kind:
        if not all(it == int(it) for it in values):
            raise InputError(f"the column {_named(one)} has a number that is not whole")
        values = [int(it) for it in values]
    try:
        with np.errstate(over="ignore"):
            found = np.array(values, np.dtype(one.kind).newbyteorder("<"))
    except (OverflowError, ValueError) as error:
        raise InputError(f"the column {_named(one)}: too large for {one.kind}") from error
    if not np.isfinite(found).all():
        raise InputError(f"the column {_named(one)}: too large for {one.kind}")
    return found.tobytes()


def _named(one: TensorColumns) -> str:
    return repr(", ".join(one.columns)[:40])


def _words(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one"


def stacked(rows: Sequence[bytes]) -> bytes:
    """The tensors of rows as the input of one task."""
    found = [unpack(it) for it in rows]
    return Tensors(
        tensors=tuple(
            Tensor(
                name=name,
                kind=kind,
                shape=(len(rows), *shape),
                data=b"".join(it[place][3] for it in found),
            )
            for place, (name, kind, shape, _) in enumerate(found[0])
        )
    ).to_bytes()


def unstacked(data: bytes) -> list[bytes]:
    """The rows of a task's input again; Malformed if its tensors are not of as many rows."""
    tensors = Tensors.from_bytes(data).tensors
    rows = {it.shape[0] if it.shape else 0 for it in tensors}
    if len(rows) != 1 or not (count := rows.pop()):
        raise Malformed("the tensors of rows are not of as many rows each")
    return _cut(tensors, count)


def answers_in(output: bytes, rows: int) -> list[bytes]:
    """The answer of each row; InputError if the model does not answer row by row.

    One row alone may be answered with anything.
    """
    tensors = Tensors.from_bytes(output).tensors
    for one in tensors:
        if rows > 1 and (not one.shape or one.shape[0] != rows):
            raise InputError(
                f"the model gives {one.name} of {_words(one.shape)} for {rows} rows, and not a part"
                " for each",
                todo="have it called for each row by itself: --one-by-one",
            )
    if rows == 1 and any(not it.shape or it.shape[0] != 1 for it in tensors):
        return [pack_plain([[it.name, it.kind, list(it.shape), it.data] for it in tensors])]
    return _cut(tensors, rows)


def _cut(tensors: Sequence[Tensor], rows: int) -> list[bytes]:
    wide = [len(it.data) // rows for it in tensors]
    return [
        pack_plain(
            [
                [it.name, it.kind, list(it.shape[1:]), it.data[row * size : (row + 1) * size]]
                for it, size in zip(tensors, wide, strict=True)
            ]
        )
        for row in range(rows)
    ]


def arrays_of(row: bytes) -> dict[str, np.ndarray]:
    """The tensors of one row by their names; one number alone has no dimension."""
    found = {}
    for name, kind, shape, data in unpack(row):
        values = np.frombuffer(data, np.dtype(kind).newbyteorder("<"))
        found[name] = values.reshape(() if values.size == 1 and len(shape) < 2 else shape)
    return found
