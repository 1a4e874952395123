"""What a model is given of what a source brought: a prompt with its text, or tensors."""

import json
import math

import numpy as np

from node.ingest.table import DataTable
from node.workflows.definition import INPUT, ModelStep, TableTensor
from wire import limits
from wire.errors import InputError, WireError
from wire.tensors import Tensor, Tensors

# What is shown of a column that is not there.
_NAMES_SHOWN = 10


def prompt_of(model: ModelStep, output: bytes) -> str:
    """The text that the model is asked; InputError if it is none, or too long."""
    try:
        said = output.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            "the source gave no text", todo="name a format: text, json, csv"
        ) from error
    prompt = model.prompt.replace(INPUT, said)
    if (size_bytes := len(prompt.encode())) > limits.TEXT_BYTES_MAX:
        raise InputError(
            f"the prompt has {size_bytes} bytes, at most {limits.TEXT_BYTES_MAX} are taken",
            todo="select less of the source",
        )
    return prompt


def output_of_result(data: bytes) -> tuple[bytes, DataTable | None]:
    """What a result of a feed gives the next model: its table, its text, or all of it as JSON."""
    try:
        found = json.loads(data)
        if isinstance(found, dict) and isinstance(found.get("text"), str):
            return found["text"].encode(), None
        if isinstance(found, dict) and {"columns", "rows"} <= found.keys():
            lines = (found["columns"], *found["rows"])
            output = b"".join(json.dumps(it).encode() + b"\n" for it in lines)
            return output, DataTable.from_bytes(output)
    except (ValueError, TypeError, RecursionError, WireError) as error:
        raise InputError(f"the feed's result is not what results are: {error}") from error
    return data, None


def tensors_of_table(model: ModelStep, table: DataTable) -> bytes:
    """The inputs of a function, from the rows of a table; InputError names what does not fit."""
    return Tensors(tensors=tuple(_tensor(it, table) for it in model.inputs)).to_bytes()


def _tensor(wanted: TableTensor, table: DataTable) -> Tensor:
    places = []
    for column in wanted.columns:
        if column not in table.columns:
            known = ", ".join(table.columns[:_NAMES_SHOWN])
            raise InputError(f"the source has no column {column[:40]!r} (it has {known})")
        places.append(table.columns.index(column))
    if len(table.rows) < max(1, wanted.last):
        raise InputError(
            f"{wanted.name} takes the last {max(1, wanted.last)} rows, and there are"
            f" {len(table.rows)}"
        )
    begin = len(table.rows) - wanted.last if wanted.last else 0
    cells = [
        _number(row[place], number, column)
        for number, row in enumerate(table.rows[begin:], begin)
        for place, column in zip(places, wanted.columns, strict=True)
    ]
    shape = wanted.shape or (len(table.rows) - begin, len(places))
    if math.prod(shape) != len(cells):
        words = " x ".join(map(str, shape))
        raise InputError(f"{wanted.name} is {words}, and {len(cells)} numbers came")
    whole = "int" in wanted.kind or wanted.kind == "bool"
    kind = np.dtype(wanted.kind).newbyteorder("<")
    try:
        with np.errstate(over="ignore"):
            data = np.array([int(it) if whole else it for it in cells], dtype=kind)
    except (OverflowError, ValueError) as error:
        raise InputError(f"{wanted.name}: a number is too large for {wanted.kind}") from error
    return Tensor(name=wanted.name, kind=wanted.kind, shape=shape, data=data.tobytes())


def _number(cell: object, row: int, column: str) -> float:
    """A cell as a number, also one that is written as text; InputError names its row."""
    try:
        number = float(cell) if isinstance(cell, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"row {row} has no number in the column {column[:40]!r}: {str(cell)[:40]!r}"
        )
    return number
