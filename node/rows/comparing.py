"""The rows of a table of answers beside what was signed for them. Pure."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from node.rows.cells import TableRow
from node.rows.plan import outputs_of, value_of
from node.rows.tensor_rows import arrays_of
from node.rows.writing import no_formula
from wire.errors import InputError, Malformed, WireError
from wire.operations import CALL, EMBED
from wire.rows import RowDigest

Frame = Mapping[str, Any]


def answer_columns(operation: str, keep: Sequence[str], output: bytes | None) -> dict[str, str]:
    """The columns of answers in a table, by the names that the model has for them.

    `output` is the answer of any row; only that of a function says what its columns are.
    """
    if operation != CALL:
        name = "vector" if operation == EMBED else "text"
        return {name: name}
    taken = {"row", "error", *keep}
    names = arrays_of(output) if output is not None else ()
    return {name: f"output.{name}" if name in taken else name for name in names}


def outputs_in(frame: Frame, operation: str) -> list[bytes]:
    """The answer of each row in a frame that has them; none in one that has not."""
    if "outputs" in frame:
        found: list[bytes] = frame["outputs"]
        return found
    rows = frame["last"] - frame["first"] + 1 - len(frame["bad"])
    return outputs_of(operation, frame["answered"], rows) if rows and "answered" in frame else []


@dataclass(slots=True)
class TableCheck:
    """Compares a table, from its first row on, with the digests of rows that were signed."""

    operation: str
    keep: tuple[str, ...]
    table: Iterator[TableRow]
    # Rows whose answers are what was signed, and those of which that cannot be known.
    same: int = 0
    unknown: int = 0
    _names: dict[str, str] = field(default_factory=dict)

    def check(self, frame: Frame, digests: Sequence[RowDigest], only: int | None) -> None:
        """Compare the rows of a bundle, or one of them; Malformed names the first that differs."""
        outputs: Sequence[bytes | None] = [None] * len(digests)
        try:
            outputs = outputs_in(frame, self.operation) or outputs
        except InputError as error:
            raise Malformed(error.message) from error
        if len(outputs) != len(digests):
            raise Malformed(f"{len(outputs)} outputs are kept of {len(digests)} rows")
        if not self._names or self.operation == CALL:
            first = outputs[0] if outputs else None
            self._names = answer_columns(self.operation, self.keep, first)
        due = {it.number: (it, output) for it, output in zip(digests, outputs, strict=True)}
        for number in range(frame["first"], frame["last"] + 1):
            if only is not None and number != only:
                continue
            cells = self._at(number)
            if number in due:
                self._compare(cells, *due[number])
            elif any(cells.get(it) not in (None, "") for it in self._names.values()):
                raise Malformed(f"row {number} of the table has an answer, and was not asked")

    def end(self) -> None:
        """Malformed if the table has more rows than were signed for."""
        if (row := next(self.table, None)) is not None:
            raise Malformed(f"row {row.number} of the table was never asked")

    def _at(self, number: int) -> Mapping[str, object]:
        for row in self.table:
            if row.number == number:
                if row.problem or str(row.cells.get("row")) != str(number):
                    raise Malformed(f"row {number} of the table has another number, or no cells")
                return row.cells
        raise Malformed(f"row {number} is missing in the table")

    def _compare(
        self, cells: Mapping[str, object], digest: RowDigest, output: bytes | None
    ) -> None:
        number = digest.number
        if output is not None and hashlib.sha256(output).digest() != digest.output:
            raise Malformed(f"the output that is kept of row {number} is not the signed one")
        found: bool | None
        for name, column in self._names.items():
            cell = cells.get(column)
            if self.operation == EMBED:
                found = _is_vector(cell, digest.output)
            elif output is None:
                found = None
            elif self.operation == CALL:
                found = _are_numbers(cell, arrays_of(output)[name])
            else:
                text = str(value_of(self.operation, output))
                found = (cell or "") in (text, no_formula(text))
            if found is False:
                raise Malformed(
                    f"row {number} of the table: the column {column[:40]!r} has not what was signed"
                )
            if found is None:
                self.unknown += 1
                return
        self.same += 1


def _opened(cell: object) -> object:
    """A cell, or the JSON that its text is."""
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _is_vector(cell: object, digest: bytes) -> bool | None:
    """Whether a cell has the 32-bit floats with this hash; None where one of them is no number."""
    found = _opened(cell)
    if not isinstance(found, list):
        return False
    if any(it is None for it in found):
        return None
    if not all(isinstance(it, int | float) for it in found):
        return False
    try:
        with np.errstate(over="ignore"):
            return hashlib.sha256(np.array(found, "<f4").tobytes()).digest() == digest
    except OverflowError:
        # JSON has whole numbers of any size.
        return False


def _are_numbers(cell: object, wanted: np.ndarray) -> bool:
    """Whether a cell has these numbers; what no number of JSON is may be missing in it."""
    found = _opened(cell if cell != "" else None)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.array(found, dtype=np.float64 if wanted.dtype.kind == "f" else None)
            if wanted.dtype.kind == "f":
                values = values.astype(wanted.dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    if values.dtype == object or values.size != wanted.size:
        return False
    values = values.reshape(wanted.shape)
    if wanted.dtype.kind != "f":
        return bool((values == wanted).all())
    finite = np.isfinite(wanted)
    return bool((values[finite] == wanted[finite]).all() and not np.isfinite(values[~finite]).any())


def read_as_table(rows: Iterator[TableRow]) -> Iterator[TableRow]:
    """The rows; Malformed, and no error of a file's own, where a line cannot be read."""
    while True:
        try:
            row = next(rows, None)
        except (InputError, csv.Error, WireError) as error:
            raise Malformed(f"the table cannot be read: {error}") from error
        if row is None:
            return
        yield row
