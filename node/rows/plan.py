"""What is asked of a model for the rows of a table, and how its answers become rows again. Pure.

Rows are cut into bundles in their order, by number and by size alone, so that a job that goes on
later cuts the same bundles.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.rows.cells import TableRow, text_of
from node.rows.kept_cells import OWN_NAMES, KeptCell, kept_cells
from node.rows.tensor_rows import (
    Shapes,
    TensorColumns,
    answers_in,
    stacked,
    tensor_row,
    unstacked,
)
from wire import limits
from wire.content import ContentId
from wire.errors import InputError, Malformed, WireError
from wire.generation import Ending, Generation, Token, read_frames
from wire.operations import CALL, COMPLETE, EMBED, GENERATE
from wire.payload import Texts, Vectors
from wire.schema import Scalar
from wire.tensors import Tensors

# Operations that rows can be asked for, and how many rows a bundle has of each. An embedding takes
# all rows of a bundle in one task, as does a function of tensors; what is generated is one task for
# each row.
BUNDLE_ROWS: Mapping[str, int] = {
    EMBED: limits.BUNDLE_ROWS_MAX,
    CALL: limits.BUNDLE_ROWS_MAX,
    GENERATE: 32,
    COMPLETE: 32,
}
# Texts of one bundle, together: with what is around them they fit one message.
BUNDLE_BYTES_MAX = 256 << 10
# A task of a bundle that fails is tried again after so long each time; then the bundle has failed.
RETRY_AFTER_S = (1.0, 5.0)
# How long a bundle waits for room among a peer's tasks.
ROOM_S = 600.0
_PROBLEM_CHARS = 400


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows that are asked for together: their numbers, their texts, and those that are bad."""

    index: int
    first: int
    last: int
    numbers: tuple[int, ...]
    texts: tuple[str, ...]
    # Number of a row, and why nothing is asked for it.
    bad: tuple[tuple[int, str], ...] = ()
    # Of a function: the tensors of each row (`node.rows.tensor_rows`), instead of its text.
    tensors: tuple[bytes, ...] = ()
    # The cells that are copied beside the answers, also of bad rows.
    kept: tuple[tuple[KeptCell, ...], ...] = ()

    @property
    def digest(self) -> bytes:
        """The hash of everything that was read: a job goes on only with the same rows."""
        told = [self.first, self.last, self.numbers, self.texts, self.bad]
        if self.kept:
            told.append(self.kept)
        found = hashlib.sha256(json.dumps(told).encode())
        for one in self.tensors:
            found.update(one)
        return found.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """What is asked for each row. `chats`: the model takes conversations, not only a prompt."""

    model: ContentId
    operation: str
    column: str
    parameters: Mapping[str, Scalar]
    chats: bool = True
    system: str = ""
    schema: str = ""
    marks_bad: bool = False
    # Whether answers that look like formulas are written so that they are none.
    for_spreadsheets: bool = False
    # What a function is given, instead of a column of texts; each row alone if `one_by_one`.
    tensors: tuple[TensorColumns, ...] = ()
    one_by_one: bool = False
    # Columns that are copied beside the answers.
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_columns()
        if self.operation not in BUNDLE_ROWS:
            raise InputError(
                f"rows cannot be asked for {self.operation[:40]!r}",
                todo=f"use one of {', '.join(BUNDLE_ROWS)}: --operation",
            )

    def _check_columns(self) -> None:
        if (self.operation == CALL) is not bool(self.tensors):
            if self.operation == CALL:
                raise InputError(
                    "the model is a function of tensors",
                    todo="say which columns are its inputs: --input NAME=COLUMN,…",
                )
            raise InputError(
                f"the model does {self.operation}, and reads no tensors",
                todo="name a column of texts, --column, and no --input",
            )
        names = [it.name for it in self.tensors]
        for said, what in ((names, "--input"), (self.keep, "--keep")):
            if len(set(said)) != len(said):
                raise InputError(f"{what} names something twice", todo="name each once")
        if own := sorted({*OWN_NAMES, self.answer}.intersection(self.keep)):
            raise InputError(
                f"the results have a column {own[0]!r} of their own", todo="leave it out of --keep"
            )

    @property
    def bundle_rows(self) -> int:
        """How many rows a bundle has at most."""
        return BUNDLE_ROWS[GENERATE] if self.one_by_one else BUNDLE_ROWS[self.operation]

    def as_map(self) -> dict[str, Any]:
        """What has to be the same for a job to go on."""
        other: dict[str, Any] = {}
        if self.tensors:
            other |= {"inputs": [it.told for it in self.tensors], "one_by_one": self.one_by_one}
        if self.keep:
            other["keep"] = list(self.keep)
        return {
            "model": str(self.model),
            "operation": self.operation,
            "column": self.column,
            "parameters": dict(self.parameters),
            "chats": self.chats,
            "system": self.system,
            "schema": self.schema,
            **other,
        }

    @property
    def answer(self) -> str:
        """The name of the column of answers; a function has one for each of its outputs."""
        if self.operation == CALL:
            return ""
        return "vector" if self.operation == EMBED else "text"

    def batches(self, rows: Iterable[TableRow]) -> Iterator[RowBatch]:
        """Cut rows into bundles; InputError names the first row that cannot be asked for.

        With `marks_bad` such a row stands in its bundle with the reason.
        """
        cut, shapes = _Cut(), Shapes()
        for row in rows:
            kept: tuple[KeptCell, ...] = (None,) * len(self.keep)
            asked: str | bytes | None = None
            problem = ""
            try:
                kept = tuple(kept_cells(row, self.keep))
                asked = self._asked(row, shapes)
            except InputError as error:
                if not self.marks_bad:
                    raise InputError(
                        f"row {row.number}: {error.message}",
                        todo="correct the row, or have such rows marked: --bad-rows mark;"
                        " then go on: --resume",
                    ) from error
                problem = error.message[:_PROBLEM_CHARS]
            size_bytes = 0 if asked is None else len(asked)
            if isinstance(asked, str) and not asked.isascii():
                size_bytes = len(asked.encode())
            if cut.has_no_room(size_bytes, self.bundle_rows):
                yield cut.take()
            cut.add(row.number, asked, problem, size_bytes)
            if self.keep:
                cut.keep(kept)
        if cut.rows:
            yield cut.take()

    def _asked(self, row: TableRow, shapes: Shapes) -> str | bytes:
        """What is asked of the model for a row; InputError says why nothing can be."""
        if self.tensors:
            return tensor_row(row, self.tensors, shapes)
        text = text_of(row, self.column)
        if self.operation == GENERATE:
            self._generation(text)
        return text

    def inputs(self, batch: RowBatch) -> list[bytes]:
        """What the tasks of a bundle are given: one for all rows, or one for each."""
        if not batch.texts and not batch.tensors:
            return []
        match self.operation:
            case "call":
                some = [(it,) for it in batch.tensors] if self.one_by_one else [batch.tensors]
                return [stacked(it) for it in some]
            case "embed":
                return [Texts(texts=batch.texts).to_bytes()]
            case "generate":
                return [self._generation(it).to_bytes() for it in batch.texts]
            case _:
                return [it.encode() for it in batch.texts]

    def _generation(self, text: str) -> Generation:
        messages = [{"role": "user", "content": text}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        try:
            return Generation(
                prompt="" if self.chats else text,
                messages=json.dumps(messages, ensure_ascii=False) if self.chats else "",
                tools="",
                schema=self.schema,
                stop=(),
            )
        except WireError as error:
            raise InputError(f"the conversation is not taken: {error.message}") from error


@dataclass(slots=True)
class _Cut:
    """The bundle that is being filled."""

    index: int = 0
    rows: int = 0
    size_bytes: int = 0
    first: int = 0
    last: int = -1
    _numbers: list[int] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _bad: list[tuple[int, str]] = field(default_factory=list)
    _tensors: list[bytes] = field(default_factory=list)
    _kept: list[tuple[KeptCell, ...]] = field(default_factory=list)

    def has_no_room(self, next_bytes: int, rows_max: int) -> bool:
        """Whether the next row, of so many bytes, belongs to the next bundle."""
        too_large = self.size_bytes + next_bytes > BUNDLE_BYTES_MAX
        return self.rows >= rows_max or (self.rows > 0 and too_large)

    def add(self, number: int, asked: str | bytes | None, problem: str, size_bytes: int) -> None:
        """Add a row: its text or its tensors, or why there is none."""
        if not self.rows:
            self.first = number
        self.last = number
        self.rows += 1
        self.size_bytes += size_bytes
        if asked is None:
            self._bad.append((number, problem))
            return
        self._numbers.append(number)
        if isinstance(asked, str):
            self._texts.append(asked)
        else:
            self._tensors.append(asked)

    def keep(self, cells: tuple[KeptCell, ...]) -> None:
        """Note what is copied of the row that was added last."""
        self._kept.append(cells)

    def take(self) -> RowBatch:
        """The bundle as it is; the next one begins."""
        batch = RowBatch(
            self.index,
            self.first,
            self.last,
            tuple(self._numbers),
            tuple(self._texts),
            tuple(self._bad),
            tuple(self._tensors),
            tuple(self._kept),
        )
        self.index += 1
        self.rows, self.size_bytes = 0, 0
        self._numbers, self._texts, self._bad = [], [], []
        self._tensors, self._kept = [], []
        return batch


def sources_of(operation: str, inputs: Sequence[bytes]) -> list[bytes]:
    """The question of each row, in the inputs of a bundle's tasks."""
    if operation == EMBED:
        return [it.encode() for one in inputs for it in Texts.from_bytes(one).texts]
    if operation == CALL:
        return [it for one in inputs for it in unstacked(one)]
    return list(inputs)


def outputs_of(operation: str, outputs: Sequence[bytes], rows: int) -> list[bytes]:
    """The answer of each row, in the outputs of a bundle's tasks; Malformed for what is none."""
    found = list(outputs)
    if operation == EMBED:
        found = []
        for one in outputs:
            vectors = Vectors.from_bytes(one)
            wide = 4 * vectors.dimensions
            found += [vectors.data[at : at + wide] for at in range(0, len(vectors.data), wide)]
    if operation == CALL:
        each = rows // max(1, len(outputs))
        found = [it for one in outputs for it in answers_in(one, each)]
    if len(found) != rows:
        raise Malformed(f"a peer answered {len(found)} rows where {rows} were asked for")
    for one in found if operation == GENERATE else ():
        # What cannot be read is found now, and not when the whole table is written.
        value_of(operation, one)
    return found


def can_be_read(operation: str, asked: bytes, output: bytes) -> bool:
    """Whether a peer's output is an answer to one task's input."""
    try:
        if operation == CALL:
            # How many rows it has is the model's matter, and no fault of the peer.
            Tensors.from_bytes(output)
            return True
        rows = len(Texts.from_bytes(asked).texts) if operation == EMBED else 1
        outputs_of(operation, [output], rows)
    except WireError:
        return False
    return True


def value_of(operation: str, output: bytes) -> bytes | str:
    """An answer as it stands in a table: a vector's floats, or a text."""
    if operation == EMBED:
        return output
    if operation == GENERATE:
        text, size_bytes = bytearray(), 0
        for frame in read_frames(output):
            if isinstance(frame, Token):
                text += frame.text
            elif isinstance(frame, Ending):
                size_bytes = frame.text_bytes
        output = bytes(text[:size_bytes])
    return output.decode(errors="replace")
