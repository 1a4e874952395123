"""Results in a file: what is for a spreadsheet is none of its formulas."""

import csv
import io
from pathlib import Path

import pytest

from node.rows.writing import OutColumn, open_writer

HOSTILE = (
    '=HYPERLINK("http://evil")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd",
    "@SUM(A1)",
    "\t=1+1",
    "  =1+1",
    "\r=1",
    "\uff1d1+1",
)
HARMLESS = ("", "words", "-3.5", "+1e9", "a=b", "'quoted", "é")


def written(texts: tuple[str, ...], name: str, *, for_spreadsheets: bool) -> list[list[str]]:
    out = io.BytesIO()
    columns = [OutColumn("text", "text")]
    writer = open_writer(Path(name), out, columns, marks=True, for_spreadsheets=for_spreadsheets)
    for number, text in enumerate(texts):
        writer.write(number, [text], "")
    writer.write(len(texts), [None], "=error")
    writer.close()
    delimiter = "\t" if name.endswith("tsv") else ","
    text = out.getvalue().decode()
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[1:]


@pytest.mark.parametrize("name", ["out.csv", "out.tsv"])
def test_no_answer_is_a_formula_where_a_spreadsheet_opens_it(name: str) -> None:
    rows = written(HOSTILE + HARMLESS, name, for_spreadsheets=True)
    assert [it[1] for it in rows] == [*(f"'{it}" for it in HOSTILE), *HARMLESS, ""]
    assert rows[-1][2] == "'=error"


def test_without_the_option_answers_stay_as_they_are() -> None:
    rows = written(HOSTILE, "out.csv", for_spreadsheets=False)
    assert [it[1] for it in rows[:-1]] == list(HOSTILE)
