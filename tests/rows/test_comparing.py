"""A table of answers beside what was signed: what is altered in any cell is named by its row."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from node.rows.comparing import TableCheck, answer_columns, outputs_in, read_as_table
from node.rows.journal import read_frames
from node.rows.plan import RowPlan
from node.rows.reading import TableColumns, open_rows
from tests.rows.test_job import MODEL, answer_of, table
from tests.rows.test_tensor_rows import add_up, plan_of, run_job
from wire.errors import Malformed
from wire.rows import digests_of

FORMATS = ("parquet", "csv", "jsonl")


async def ask(batch: Any, inputs: list[bytes]) -> Any:
    return answer_of(batch, inputs)


def check(out: Path, only: int | None = None) -> TableCheck:
    """As `verify` does it, of files whose signatures hold."""
    head, *frames = read_frames(out.with_name(out.name + ".receipts"))
    outputs = [it for one in frames for it in outputs_in(one, head["operation"])]
    keep = tuple(head.get("keep", ()))
    names = answer_columns(head["operation"], keep, outputs[0] if outputs else None)
    source = open_rows(out, TableColumns(kept=("row", *names.values())))
    found = TableCheck(head["operation"], keep, read_as_table(iter(source)))
    try:
        for frame in frames:
            bad = {number for number, _ in frame["bad"]}
            numbers = [it for it in range(frame["first"], frame["last"] + 1) if it not in bad]
            found.check(frame, digests_of(numbers, frame["rows"]), only)
        if only is None:
            found.end()
    finally:
        source.close()
    return found


def altered(out: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """The table with its rows changed, in whichever format it is."""
    if out.suffix == ".parquet":
        found = parquet.read_table(out)
        rows = found.to_pylist()
        change(rows)
        parquet.write_table(pa.Table.from_pylist(rows, found.schema), out)
        return
    if out.suffix == ".jsonl":
        rows = list(map(json.loads, out.read_text().splitlines()))
        change(rows)
        out.write_text("".join(json.dumps(it) + "\n" for it in rows))
        return
    source = open_rows(out, TableColumns(kept=("row",)))
    rows = [dict(it.cells) for it in source]
    source.close()
    change(rows)
    lines = [",".join(rows[0])]
    lines += [
        ",".join(json.dumps(str(it)) if "," in str(it) else str(it) for it in one.values())
        for one in rows
    ]
    out.write_text("\n".join(lines) + "\n")


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    rows = [{"v": [it, 0.1]} for it in range(300)]
    rows[3] = {"v": [1]}  # type: ignore[dict-item]
    path.write_text("".join(json.dumps(it) + "\n" for it in rows))
    return path


@pytest.mark.parametrize("form", FORMATS)
async def test_a_table_of_vectors_is_what_was_signed_or_its_row_is_named(
    autojump_clock: object, tmp_path: Path, form: str
) -> None:
    out = tmp_path / f"o.{form}"
    plan = RowPlan(model=MODEL, operation="embed", column="text", parameters={}, keep=("text",))
    await run_job(table(tmp_path, 300), out, plan, ask)
    assert (check(out).same, check(out, only=299).same) == (300, 1)
    whole = out.read_bytes()

    def put(value: Any) -> Callable[[list[dict[str, Any]]], object]:
        return lambda rows: rows[280].update(vector=value)

    (next_up,) = struct.unpack("<f", struct.pack("<I", struct.unpack("<I", b"\0\0\xe0@")[0] + 1))
    for change, why in (
        (put([next_up, 1.0]), "row 280 of the table: the column 'vector'"),
        (put([7.0]), "row 280 of the table"),
        *([(put([10**400, 1]), "row 280 of the table")] if form != "parquet" else []),
        (put([]), "row 280 of the table"),
        (lambda rows: rows.pop(280), "row 280 of the table has another number"),
        (lambda rows: rows.pop(), "row 299 is missing"),
        (lambda rows: rows.append({**rows[0], "row": 300}), "row 300 of the table was never asked"),
        (lambda rows: rows.insert(0, rows.pop(1)), "row 0 of the table has another number"),
    ):
        out.write_bytes(whole)
        altered(out, change)
        with pytest.raises(Malformed, match=why):
            check(out)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_table_of_outputs_is_what_was_signed_or_its_row_is_named(
    autojump_clock: object, tmp_path: Path, numbers: Path, form: str
) -> None:
    out = tmp_path / f"o.{form}"
    await run_job(numbers, out, plan_of("x=v", marks_bad=True), add_up)
    assert check(out).same == 299
    whole = out.read_bytes()
    for change, why in (
        (lambda rows: rows[7].update(sum=7.0), "row 7 of the table: the column 'sum'"),
        (lambda rows: rows[7].update(sum=None), "row 7 of the table: the column 'sum'"),
        (lambda rows: rows[7].update({"output.row": [1.0]}), "the column 'output.row'"),
        (lambda rows: rows[3].update(sum=1.0), "row 3 of the table has an answer"),
    ):
        out.write_bytes(whole)
        altered(out, change)
        with pytest.raises(Malformed, match=why):
            check(out)


async def test_a_number_that_a_format_lacks_is_no_difference(
    autojump_clock: object, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"v": [3e38, 3e38]}\n{"v": [1, 2]}\n')
    out = tmp_path / "o.jsonl"
    await run_job(path, out, plan_of("x=v"), add_up)
    assert json.loads(out.read_text().splitlines()[0])["sum"] is None
    # Infinite is no number of JSON, and its kept output says that it was.
    assert (check(out).same, check(out).unknown) == (2, 0)


def broken() -> Iterator[Any]:
    raise Malformed("line 3")
    yield


def test_a_table_that_cannot_be_read_is_an_error_of_the_table() -> None:
    with pytest.raises(Malformed, match="the table cannot be read: line 3"):
        list(read_as_table(broken()))
