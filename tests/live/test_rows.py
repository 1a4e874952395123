"""`ask --rows` as a person types it: a table in, a table out, its receipts checked."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from node.rows.journal import read_frames, write_frames
from tests.live.command_line import Peer, baton

TERMS = ("--level", "signed")


def table(folder: Path, *texts: str | None) -> Path:
    path = folder / "data.parquet"
    parquet.write_table(pa.table({"id": range(len(texts)), "text": list(texts)}), path)
    return path


def test_a_table_is_asked_and_every_row_can_be_shown(asker: Peer, tmp_path: Path) -> None:
    path, out = table(tmp_path, *[f"text {it}" for it in range(600)]), tmp_path / "out.parquet"
    question = ("ask", "hash", "--rows", path, "--column", "text", "--out", out, *TERMS)
    done = asker.ask(*question, "--json").document
    assert (done["rows"], done["bundles"], done["bad_rows"]) == (600, 3, 0)
    found = parquet.read_table(out)
    assert found["row"].to_pylist() == list(range(600))
    assert {len(it) for it in found["vector"].to_pylist()} == {64}
    receipts = tmp_path / "out.parquet.receipts"
    page = baton("verify", receipts, "--json").document
    assert (page["rows"], page["bundles"], page["receipts"]) == (600, 3, 3)
    row = baton("verify", receipts, "--row", 300, "--json").document["row"]
    assert (row["row"], row["index"], row["rows_in_bundle"], len(row["path"])) == (300, 44, 256, 8)
    assert "row 700: it has 600 rows" in baton("verify", receipts, "--row", 700).error
    assert (row["level"], row["verdicts"]) == ("signed", 0)
    whole = baton("verify", out, "--json").document
    assert whole["table"] == {"same": 600, "unknown": 0}
    changed = found.to_pylist()
    changed[300]["vector"][5] += 0.01
    parquet.write_table(pa.Table.from_pylist(changed, found.schema), out)
    assert "row 300 of the table: the column 'vector'" in baton("verify", out).error
    one = baton("verify", receipts, "--row", 299, "--json").document
    assert one["table"] == {"same": 1, "unknown": 0}
    parquet.write_table(found, out)
    frames = list(read_frames(receipts))
    for name, value in (("rows", bytes(64 * 256)), ("answers", []), ("first", 1)):
        with receipts.open("wb") as file:
            write_frames(file, [frames[0], {**frames[1], name: value}, *frames[2:]])
        assert baton("verify", receipts).code == 1
    # What was answered once is not asked again.
    again = asker.ask(*question, "--force", "--json").document
    assert again["tasks_kept_before"] == 3
    assert parquet.read_table(out) == found


def test_words_that_do_not_go_together_are_said(asker: Peer, tmp_path: Path) -> None:
    path, out = table(tmp_path, "a", None), tmp_path / "out.csv"
    rows = ("ask", "hash", "--rows", path, *TERMS)
    assert "--rows needs --column" in asker.ask(*rows, "--out", out).error
    assert "--rows needs --out" in asker.ask(*rows, "--column", "text").error
    whole = (*rows, "--column", "text", "--out", out)
    assert "not both" in asker.ask(*whole, "--text", "x").error
    assert "one of the two" in asker.ask(*whole, "--resume", "--force").error
    assert "without --rows" in asker.ask("ask", "hash", "x", "--column", "text").error
    assert "no column 'words'" in asker.ask(*rows, "--column", "words", "--out", out).error
    assert "has int64, not text" in asker.ask(*rows, "--column", "id", "--out", out).error
    assert "row 1: the column 'text' has no value" in asker.ask(*whole).error
    assert "was begun before" in asker.ask(*whole).error
    numbers = (*rows, "--out", tmp_path / "numbers.csv", "--input", "x=id")
    assert "not both" in asker.ask(*numbers, "--column", "text").error
    assert "has no operation 'call'" in asker.ask(*numbers).error
    assert "reads no tensors" in asker.ask(*numbers, "--operation", "embed").error
    assert "without --input" in asker.ask(*whole, "--one-by-one").error
    assert "without --rows" in asker.ask("ask", "hash", "x", "--keep", "id").error
    assert "no column 'name'" in asker.ask(*whole, "--force", "--keep", "id,name").error
    # What the error says is what works.
    marked = (*whole, "--bad-rows", "mark", "--resume", "--json")
    assert asker.ask(*marked).document["bad_rows"] == 1
    kept = (*whole, "--force", "--bad-rows", "mark", "--keep", "id", "--json")
    assert asker.ask(*kept).document["bad_rows"] == 1
    assert out.read_text().splitlines()[2].startswith("1,1,,")
    assert "there already" in asker.ask(*whole).error
    assert "has no rows" in baton("verify", "some.receipt", "--row", 3).error
    assert "there are no receipts of" in baton("verify", path).error
    (tmp_path / "x.receipts").write_bytes(b"nothing")
    assert "is not a file of receipts" in baton("verify", tmp_path / "x.receipts").error
