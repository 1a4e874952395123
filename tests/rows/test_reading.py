"""Tables as people have them: good ones, and each way in which one can be bad."""

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from node.rows import reading
from node.rows.cells import ROW_BYTES_MAX, TableRow, text_of
from node.rows.reading import format_of, open_rows
from wire.errors import InputError


def rows_of(path: Path, column: str = "text") -> list[TableRow]:
    source = open_rows(path, column)
    try:
        return list(source)
    finally:
        source.close()


def written(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refused(path: Path, column: str = "text") -> str:
    with pytest.raises(InputError) as caught:
        rows_of(path, column)
    return str(caught.value)


def test_csv_cells_may_have_commas_quotes_and_several_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", '\ufeffid,text\n1,"a, ""b""\nc"\n\n2,ä\n')
    assert [text_of(it, "text") for it in rows_of(path)] == ['a, "b"\nc', "ä"]
    assert [it.number for it in rows_of(path)] == [0, 1]
    path = written(tmp_path, "a.tsv", "text\tid\nx,y\t1\n")
    assert text_of(rows_of(path)[0], "text") == "x,y"


def test_json_lines_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    texts = ["one", "zwei", "日本"]
    lines = "".join(json.dumps({"n": n, "text": it}) + "\n" for n, it in enumerate(texts))
    first = written(tmp_path, "a.jsonl", lines)
    second = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"n": [1, 2, 3], "text": texts}), second)
    third = tmp_path / "b.parquet"
    encoded = pa.array(texts).dictionary_encode()
    parquet.write_table(pa.table({"text": encoded}), third)
    for path in (first, second, third):
        assert [text_of(it, "text") for it in rows_of(path)] == texts
    for path, count in ((first, None), (second, 3)):
        source = open_rows(path, "text")
        assert source.rows == count
        source.close()


def test_the_share_that_is_read_ends_at_one(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "text\n" + "some words\n" * 100)
    source = open_rows(path, "text")
    shares = [source.read_share for _ in source]
    assert shares == sorted(shares)
    assert shares[0] < 0.05
    assert source.read_share == 1.0
    source.close()


def test_what_a_file_lacks_is_named(tmp_path: Path) -> None:
    assert "no column 'text'" in refused(written(tmp_path, "a.csv", "id,words\n1,x\n"))
    assert "id, words" in refused(written(tmp_path, "a.csv", "id,words\n1,x\n"))
    assert "more than one column 'text'" in refused(written(tmp_path, "b.csv", "text,text\n"))
    assert "no column" in refused(written(tmp_path, "c.csv", ""))
    assert "no format" in refused(tmp_path / "a.xlsx")
    assert "cannot be read" in refused(tmp_path / "none.csv")
    assert "cannot be read" in refused(tmp_path / "none.parquet")
    assert format_of(Path("A.CSV")) == "csv"


def test_a_row_without_a_text_says_what_is_there_instead(tmp_path: Path) -> None:
    values = ["null", "3", "1.5", "true", "[]", "{}", '""', '"\\ud800"', '"' + "x" * 40_000 + '"']
    lines = "".join(f'{{"text": {it}}}\n' for it in values) + '{"other": 1}\n[1]\n{"text"\nNaN\n'
    said = []
    for row in rows_of(written(tmp_path, "a.jsonl", lines)):
        with pytest.raises(InputError) as caught:
            text_of(row, "text")
        said.append(str(caught.value))
    parts = ["no value", "a number", "a number", "true or false", "a list", "an object", "empty"]
    parts += ["half a character", "40000 bytes", "no column", "not a JSON object", "not JSON"]
    parts += ["NaN is not a number"]
    assert all(part in it for part, it in zip(parts, said, strict=True)), said
    (row,) = rows_of(written(tmp_path, "b.csv", "id,text\n1,2,3\n"))
    with pytest.raises(InputError, match="3 cells, and there are 2 columns"):
        text_of(row, "text")


def test_json_that_is_nested_beyond_reason_is_that_rows_problem(tmp_path: Path) -> None:
    deep = '{"text": ' + "[" * 200_000 + "}\n"
    (row, good) = rows_of(written(tmp_path, "a.jsonl", deep + '{"text": "x"}\n'))
    assert row.problem.startswith("it is not JSON")
    assert text_of(good, "text") == "x"


class _Endless(io.RawIOBase):
    """A file of one line without an end."""

    taken_bytes = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 < size <= ROW_BYTES_MAX + 1
        self.taken_bytes += size
        return b"x" * size


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_line_of_ten_gigabytes_is_not_read(form: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"a.{form}", "text\n")
    endless = _Endless()
    source = reading.LineRows(
        path,
        endless,  # type: ignore[arg-type]
        form,
        reading.TableColumns("text"),
    )
    with pytest.raises(InputError, match=f"row 0: it has more than {ROW_BYTES_MAX} bytes"):
        source.begin() if form == "csv" else list(source)
    assert endless.taken_bytes <= 2 * ROW_BYTES_MAX


def test_a_quote_that_never_ends_is_the_end_of_the_table_not_of_the_memory(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'text\ngood\n"' + "no end\n" * 300_000)
    source = open_rows(path, "text")
    rows = iter(source)
    assert text_of(next(rows), "text") == "good"
    with pytest.raises(InputError, match=r"row 1: it (has more than|is not CSV)"):
        next(rows)
    source.close()


def test_bytes_that_are_no_text_are_named_with_their_row(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", b"text\nx\n\xff\n")
    assert "row 1: it is not UTF-8" in refused(path)
    assert "row 1: it is not CSV" in refused(written(tmp_path, "b.csv", 'text\nx\n"a"b\n'))


def test_parquet_that_is_none_cut_off_or_of_numbers_is_refused(tmp_path: Path) -> None:
    assert "as Parquet" in refused(written(tmp_path, "a.parquet", b"PAR1 nothing of it PAR1"))
    path = tmp_path / "b.parquet"
    parquet.write_table(pa.table({"text": ["x" * 50] * 5000}), path, compression="none")
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[100:200] = b"\xff" * 100
    assert "cannot be read" in refused(written(tmp_path, "c.parquet", whole[: len(whole) // 2]))
    assert "rows 0 to" in refused(written(tmp_path, "d.parquet", bytes(broken)))
    parquet.write_table(pa.table({"text": [1, 2]}), path)
    assert "has int64, not text" in refused(path)
    parquet.write_table(pa.table({"text": ["a", None]}), path)
    with pytest.raises(InputError, match="no value"):
        text_of(rows_of(path)[1], "text")


def test_parquet_that_lies_about_its_rows_is_no_table_of_fewer(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["x"] * 5000}), path)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    # The first 5000 in the footer, as Thrift writes it, is the count of the file.
    told, lie = b"\x90\x4e", b"\x92\x4e"
    at = whole.index(told, footer)
    path.write_bytes(whole[:at] + lie + whole[at + 2 :])
    assert parquet.ParquetFile(path).metadata.num_rows == 5001
    with pytest.raises(InputError, match="says that it has 5001 rows, and 5000 are in it"):
        rows_of(path)
    # What else of it lies is an error, or changes nothing.
    places = [it for it in range(footer, len(whole)) if whole.startswith(told, it)]
    assert len(places) > 2
    for place in places[1:]:
        path.write_bytes(whole[:place] + lie + whole[place + 2 :])
        try:
            found = len(rows_of(path))
        except InputError:
            continue
        assert found == 5000


def test_without_pyarrow_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "node.rows.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'baton\[rows\]'"):
        open_rows(tmp_path / "a.parquet", "text")
