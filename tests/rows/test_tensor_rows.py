"""Rows of numbers as the inputs of a function: what is read, what is refused, what comes back."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from node.engines.hash_engine import hash_manifest
from node.rows.cells import TableRow
from node.rows.job import BundleAnswer, JobEnd, JobFiles, RowJob
from node.rows.plan import RowBatch, RowPlan, can_be_read, outputs_of, sources_of
from node.rows.reading import TableColumns, open_rows
from node.rows.tensor_rows import (
    ROW_NUMBERS_MAX,
    Shapes,
    TensorColumns,
    answers_in,
    arrays_of,
    read_tensor_columns,
    stacked,
    tensor_row,
    unstacked,
)
from tests.rows.test_job import KEY, answer_of
from wire.content import ContentId
from wire.errors import InputError, Malformed
from wire.rows import RowBundle, hashed_rows
from wire.signed import sign
from wire.tensors import Tensor, Tensors

MODEL = hash_manifest().id


def tensor(name: str, values: object, kind: str = "float32") -> Tensor:
    array = np.array(values, kind)
    return Tensor(name=name, kind=kind, shape=array.shape, data=array.tobytes())


def read(typed: str, *cells: object) -> list[bytes]:
    """Rows of a table of one column `a`."""
    shapes = Shapes()
    rows = [TableRow(number, {"a": cell, "b": 2}) for number, cell in enumerate(cells)]
    return [tensor_row(it, [read_tensor_columns(typed)], shapes) for it in rows]


def test_what_is_typed_names_an_input_and_its_columns() -> None:
    for typed, wanted in (
        ("x=a, b", TensorColumns("x", "float32", None, ("a", "b"))),
        ("input:0=a", TensorColumns("input:0", "float32", None, ("a",))),
        ("x:int64=a", TensorColumns("x", "int64", None, ("a",))),
        ("i:0:uint8[3x2]=a", TensorColumns("i:0", "uint8", (3, 2), ("a",))),
        ("t:int64[]=a", TensorColumns("t", "int64", (), ("a",))),
    ):
        assert read_tensor_columns(typed) == wanted
    for typed in ("x", "x=", "=a", "x=a,,b", ":int64=a", "x[999999]=a", "x[1x1x1x1x1x1x1x1]=a"):
        with pytest.raises(InputError):
            read_tensor_columns(typed)


def test_numbers_come_from_cells_lists_and_texts() -> None:
    for typed, cell, wanted in (
        ("x=a", 1.5, np.float32(1.5)),
        ("x=a", True, np.float32(1)),
        ("x=a", " 2 ", np.float32(2)),
        ("x=a,b", 1, np.array([1, 2], "f4")),
        ("x=a", [1, 2.5], np.array([1, 2.5], "f4")),
        ("x=a", "[[1, 2], [3, 4]]", np.array([[1, 2], [3, 4]], "f4")),
        ("x[2x2]=a", [1, 2, 3, 4], np.array([[1, 2], [3, 4]], "f4")),
        ("x:int64=a", 2**53 + 1, np.int64(2**53 + 1)),
        ("x:bool=a", [0, 1, True], np.array([False, True, True])),
    ):
        found = arrays_of(read(typed, cell)[0])["x"]
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("typed", "cell", "why"),
    [
        ("x=a", None, "'a' has no value"),
        ("x=a", float("nan"), "nan, which is no number"),
        ("x=a", [1, float("inf")], "inf, which is no number"),
        ("x=a", "abc", "'abc', no number"),
        ("x=a", "nan", None),
        ("x=a", "[1, 2", "no number"),
        ("x=a", [[1], [2, 3]], "lists of different lengths"),
        ("x=a", [1, [2]], "lists of different lengths"),
        ("x=a", [], "a list, no number"),
        ("x=a", [None], "no value, no number"),
        ("x=a", {"b": 1}, "an object, no number"),
        ("x=a", b"1", "bytes, no number"),
        ("x=a", [0] * (ROW_NUMBERS_MAX + 1), "more than"),
        ("x=a", [[0] * 300] * 300, "90000 numbers, at most"),
        ("x=a", json.loads("[" * 40 + "1" + "]" * 40), "no number"),
        ("x=a", 1e300, "too large for float32"),
        ("x:int8=a", 200, "too large for int8"),
        ("x:uint8=a", -1, "too large for uint8"),
        ("x:int64=a", 1.5, "not whole"),
        ("x:int64=a", 10**400, "too large for int64"),
        ("x=a", 10**400, "too large for float32"),
        ("x:bool=a", 2, "besides true and false"),
        ("x[3]=a", [1, 2], "'a' has 2 numbers, and the model is to be given 3"),
        ("x=nothing", 1, "no column 'nothing'"),
    ],
)
def test_what_is_no_number_is_named_with_its_column(
    typed: str, cell: object, why: str | None
) -> None:
    with pytest.raises(InputError, match=why):
        read(typed, cell)


def test_lists_that_are_ragged_from_row_to_row_are_refused() -> None:
    with pytest.raises(InputError, match="'a' has 3 numbers, and the rows before have 2"):
        read("x=a", [1, 2], [3, 4], [5, 6, 7])
    with pytest.raises(InputError, match="'a' has 4 numbers, and the rows before have 2 x 2"):
        read("x=a", [[1, 2], [3, 4]], [1, 2, 3, 4])


def test_rows_go_into_one_call_and_come_out_of_it_again() -> None:
    rows = read("x=a", [1, 2], [3, 4], [5, 6])
    data = stacked(rows)
    (found,) = Tensors.from_bytes(data).tensors
    assert (found.name, found.shape) == ("x", (3, 2))
    assert unstacked(data) == rows
    assert sources_of("call", [data]) == rows
    output = Tensors(tensors=(tensor("y", [[1], [2], [3]]), tensor("z", [7, 8, 9], "int64")))
    each = [arrays_of(it) for it in outputs_of("call", [output.to_bytes()], 3)]
    assert [(it["y"].tolist(), it["z"].tolist()) for it in each] == [(1.0, 7), (2.0, 8), (3.0, 9)]
    # One row alone may be answered with anything, and it is no peer's fault if rows are not.
    odd = Tensors(tensors=(tensor("y", [[1, 2], [3, 4]]),)).to_bytes()
    assert arrays_of(answers_in(odd, 1)[0])["y"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert can_be_read("call", data, odd)
    assert not can_be_read("call", data, b"nothing")
    with pytest.raises(InputError, match="gives y of 2 x 2 for 3 rows") as refused:
        outputs_of("call", [odd], 3)
    assert "--one-by-one" in str(refused.value.todo)
    for bad in (Tensors(tensors=(tensor("x", 1.0),)), Tensors(tensors=(tensor("x", []),))):
        with pytest.raises(Malformed):
            unstacked(bad.to_bytes())


def plan_of(*typed: str, **other: object) -> RowPlan:
    tensors = tuple(map(read_tensor_columns, typed))
    told = {"operation": "call", "column": "", "parameters": {}, "tensors": tensors, **other}
    return RowPlan(model=MODEL, **told)  # type: ignore[arg-type]


def test_a_plan_says_what_does_not_go_together() -> None:
    for typed, other, why in (
        ((), {}, "is a function of tensors"),
        (("x=a",), {"operation": "embed", "column": "a"}, "reads no tensors"),
        (("x=a", "x=b"), {}, "--input names something twice"),
        (("x=a",), {"keep": ("a", "a")}, "--keep names something twice"),
        (("x=a",), {"keep": ("row",)}, "a column 'row' of their own"),
    ):
        with pytest.raises(InputError, match=why):
            plan_of(*typed, **other)


async def add_up(batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
    """A function: the sum of `x`, and `x` itself doubled."""
    outputs = []
    for one in inputs:
        (x,) = Tensors.from_bytes(one).tensors
        values = np.frombuffer(x.data, "<f4").reshape(x.shape)
        with np.errstate(over="ignore"):
            told = (tensor("sum", values.sum(axis=1)), tensor("row", values * 2))
        outputs.append(Tensors(tensors=told).to_bytes())
    return signed_answer(batch, inputs, outputs)


def signed_answer(batch: RowBatch, inputs: list[bytes], outputs: list[bytes]) -> BundleAnswer:
    each = outputs_of("call", outputs, len(batch.numbers))
    _, root = hashed_rows(batch.numbers, sources_of("call", inputs), each)
    receipts = tuple(b"receipt %d" % it for it in range(len(inputs)))
    bundle = RowBundle(
        model=MODEL,
        first=batch.numbers[0],
        last=batch.numbers[-1],
        rows=len(batch.numbers),
        root=root,
        answers=tuple(map(ContentId.of, receipts)),
    )
    return BundleAnswer(tuple(outputs), sign(bundle, KEY).raw, receipts)


async def run_job(path: Path, out: Path, plan: RowPlan, ask: object = add_up) -> JobEnd:
    numbers = tuple(name for it in plan.tensors for name in it.columns)
    source = open_rows(path, TableColumns(plan.column, numbers, plan.keep))
    files = JobFiles(path, out)
    is_new = files.check(resume=True, force=False)
    try:
        job = RowJob(plan, files, source, ask, lambda *_: None)  # type: ignore[arg-type]
        return await job.run(is_new=is_new)
    finally:
        source.close()


@pytest.mark.parametrize("one_by_one", [False, True])
async def test_a_function_is_asked_for_each_row_of_a_table(
    autojump_clock: object, tmp_path: Path, one_by_one: bool
) -> None:
    path = tmp_path / "a.parquet"
    table = {"id": range(300), "v": [[it, 1.0] for it in range(300)], "w": [True] * 300}
    parquet.write_table(pa.table(table), path)
    plan = plan_of("x=v", keep=("id", "w"), one_by_one=one_by_one)
    for name in ("o.parquet", "o.jsonl", "o.csv"):
        end = await run_job(path, tmp_path / name, plan)
        assert (end.rows, end.bundles) == (300, 10 if one_by_one else 2)
    found = parquet.read_table(tmp_path / "o.parquet")
    kinds = {it.name: str(it.type) for it in found.schema}
    assert kinds == {
        "row": "int64",
        "id": "int64",
        "w": "bool",
        "sum": "float",
        "output.row": "list<element: float>",
    }
    assert found.to_pylist()[7] == {
        "row": 7,
        "id": 7,
        "w": True,
        "sum": 8.0,
        "output.row": [14.0, 2.0],
    }
    line = (tmp_path / "o.jsonl").read_text().splitlines()[7]
    assert json.loads(line) == found.to_pylist()[7]
    assert (tmp_path / "o.csv").read_text().splitlines()[8] == '7,7,true,8.0,"[14.0, 2.0]"'


async def test_bad_rows_of_a_function_are_marked_and_what_is_kept_of_them_stays(
    autojump_clock: object, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"v": [1, 2], "t": "one"}\n{"v": [1], "t": null}\n{"t": 3}\n'
        '{"v": [3, 4], "t": {"a": []}}\nnot JSON\n'
    )
    with pytest.raises(InputError, match="row 1: the column 'v' has 1 numbers"):
        await run_job(path, tmp_path / "o.jsonl", plan_of("x=v", keep=("t",)))
    marked = plan_of("x=v", keep=("t",), marks_bad=True)
    end = await run_job(path, tmp_path / "o.jsonl", marked)
    assert (end.rows, end.bad_rows) == (5, 3)
    lines = [json.loads(it) for it in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [(it["t"], it["sum"]) for it in lines] == [
        ("one", 3.0),
        (None, None),
        (3, None),
        ({"a": []}, 7.0),
        (None, None),
    ]
    assert "no column 'v'" in lines[2]["error"]
    await run_job(path, tmp_path / "o.parquet", marked)
    found = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert [it["t"] for it in found] == ["one", None, "3", '{"a": []}', None]
    assert [it["sum"] for it in found] == [3.0, None, None, 7.0, None]


async def test_texts_keep_columns_too(autojump_clock: object, tmp_path: Path) -> None:
    async def ask(batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
        return answer_of(batch, inputs)

    path = tmp_path / "a.csv"
    path.write_text("id,text\n7,abc\n8,de\n")
    plan = RowPlan(model=MODEL, operation="embed", column="text", parameters={}, keep=("id",))
    await run_job(path, tmp_path / "o.csv", plan, ask)
    assert (tmp_path / "o.csv").read_text() == 'row,id,vector\n0,7,"[3.0, 1.0]"\n1,8,"[2.0, 1.0]"\n'
    with pytest.raises(InputError, match="no column 'name'"):
        open_rows(path, TableColumns("text", (), ("name",)))


def test_columns_of_parquet_that_have_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"t": ["a"], "d": [{"x": 1}], "n": [[[1, 2]]]}), path)
    for name in ("t", "d"):
        with pytest.raises(InputError, match=f"the column '{name}' has .*, not numbers"):
            open_rows(path, TableColumns("", (name,)))
    source = open_rows(path, TableColumns("", ("n",)))
    assert [it.cells for it in source] == [{"n": [[1, 2]]}]
    source.close()


async def test_an_answer_with_other_outputs_is_not_kept_and_its_rows_are_asked_anew(
    autojump_clock: object, tmp_path: Path
) -> None:
    """One peer lies about one bundle: nothing of the others is lost by that."""
    path, out = tmp_path / "a.jsonl", tmp_path / "o.jsonl"
    path.write_text("".join(json.dumps({"v": [it, 1]}) + "\n" for it in range(600)))
    plan, asked = plan_of("x=v"), list[int]()

    async def lie(batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
        asked.append(batch.first)
        if batch.index != 2:
            return await add_up(batch, inputs)
        rows = len(batch.numbers)
        output = Tensors(tensors=(tensor("evil", [[1.0]] * rows),)).to_bytes()
        return signed_answer(batch, inputs, [output])

    with pytest.raises(Malformed, match="rows 512 to 599: the model gave evil") as refused:
        await run_job(path, out, plan, lie)
    assert "--resume" in str(refused.value.todo)
    assert not out.exists()
    again: list[int] = []

    async def honest(batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
        again.append(batch.first)
        return await add_up(batch, inputs)

    end = await run_job(path, out, plan, honest)
    assert (end.rows, end.rows_before, again) == (600, 512, [512])
    assert len(out.read_text().splitlines()) == 600
