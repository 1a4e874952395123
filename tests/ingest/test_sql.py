"""Databases as sources: only read, one statement, bounded, nothing shown that is not asked for."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from node.ingest import parse_worker, sqlite_query
from node.ingest.budget import HOST_BURST, OTHERS_SHARE
from node.ingest.database import Database, read_database
from node.ingest.extractor import Extractor
from node.ingest.source_file import check_strange, read_source
from node.ingest.sqlite_query import query_sqlite
from node.ingest.table import DataTable
from p2p.token_bucket import TokenBuckets
from tests.ingest.servers import MadeUpNetwork
from tests.ingest.test_bring import ASKER, ingest_at
from wire.codec import Value
from wire.content import PeerId
from wire.errors import InputError, Malformed, Oversize, Refused, WireError
from wire.signing import SigningKey

SOURCE = """
kind = "sql"
database = "{path}"
query = "SELECT t, price, note FROM prices ORDER BY t"
"""
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "odd ?name%20#1.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE prices (t INTEGER, price REAL, note TEXT, raw BLOB)")
        rows = [(1, 1.5, "é", b"a"), (2, 2.5, None, None), (3, None, "x", b"\xff")]
        connection.executemany("INSERT INTO prices VALUES (?, ?, ?, ?)", rows)
    connection.close()
    return path


def table(file: Path, query: str) -> DataTable:
    return DataTable.from_bytes(query_sqlite(str(file), query))


async def test_a_database_is_a_source(tmp_path: Path, database: Path) -> None:
    ingest = ingest_at(tmp_path, MadeUpNetwork())
    ingest.owned.add("prices", SOURCE.format(path=database) + 'columns = {p = "price", t = "t"}')
    brought = await ingest.named("prices", ASKER)
    found = DataTable.from_bytes(brought.output)
    assert (found.columns, found.rows) == (("p", "t"), ((1.5, 1), (2.5, 2), (None, 3)))
    assert brought.record.urls == (f"sqlite:{database.name}",), "and not where it lies"
    assert DataTable.from_bytes(brought.body).columns == ("t", "price", "note")


async def test_many_keys_do_not_wear_a_database_down(tmp_path: Path, database: Path) -> None:
    ingest = ingest_at(tmp_path, MadeUpNetwork())
    # A process that looks may take a busy machine as long as the budget takes for one more look.
    ingest.budget.hosts_of_others = TokenBuckets(HOST_BURST * OTHERS_SHARE, 1e-6)
    ingest.owned.add("prices", SOURCE.format(path=database))
    askers = [PeerId(SigningKey(it.to_bytes(32, "big")).peer) for it in range(20)]

    async def ask_each() -> None:
        for asker in askers:
            await ingest.named("prices", asker, max_age_s=0)

    with pytest.raises(Refused, match=rf"sqlite:{re.escape(database.name)} was asked often"):
        await ask_each()
    # The owner's own workflows go on.
    await ingest.named("prices", None, max_age_s=0)


async def test_it_is_asked_in_the_process_that_parses(database: Path) -> None:
    found = await Extractor().query(read_database(str(database)), "", "SELECT count(*) FROM prices")
    assert DataTable.from_bytes(found).rows == ((3,),)
    with pytest.raises(Malformed, match="no such table: absent"):
        await Extractor().query(read_database(str(database)), "", "SELECT * FROM absent")
    assert sorted(it.name for it in database.parent.iterdir()) == [database.name]


async def test_a_database_that_is_being_written_to_is_read(database: Path) -> None:
    writing = sqlite3.connect(database)
    writing.execute("PRAGMA journal_mode = WAL")
    writing.execute("INSERT INTO prices VALUES (4, 4.5, '', NULL)")
    writing.commit()
    found = await Extractor().query(read_database(str(database)), "", "SELECT max(t) FROM prices")
    assert DataTable.from_bytes(found).rows == ((4,),)
    writing.close()


WRITES = (
    "WITH a AS (SELECT 1) INSERT INTO prices SELECT 9, 9, 9, 9",
    "WITH a AS (SELECT 1) DELETE FROM prices",
    "WITH a AS (SELECT 1) UPDATE prices SET t = 9",
    "SELECT 1; DELETE FROM prices",
    "SELECT load_extension('/nowhere/x.so')",
    "SELECT fts3_tokenizer('simple', x'00')",
    "SELECT * FROM pragma_database_list",
    "INSERT INTO prices VALUES (9, 9, 9, 9)",
    "ATTACH DATABASE '/nowhere/other.db' AS other",
    "PRAGMA query_only = OFF",
    "DROP TABLE prices",
    "VACUUM INTO '/nowhere/copy.db'",
    "CREATE TEMP TABLE a (b)",
    "BEGIN IMMEDIATE",
)


@pytest.mark.parametrize("query", WRITES)
def test_nothing_is_written_and_nothing_else_is_opened(database: Path, query: str) -> None:
    before = database.read_bytes()
    with pytest.raises(Malformed, match="SQLite says"):
        query_sqlite(str(database), query)
    assert database.read_bytes() == before


@pytest.mark.parametrize("query", [it for it in WRITES if not it.startswith(("WITH", "SELECT"))])
def test_a_query_that_is_none_is_not_kept_at_all(database: Path, query: str) -> None:
    with pytest.raises(InputError, match="the query begins with"):
        read_source(SOURCE.format(path=database).replace("SELECT t, price, note FROM", query))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (ENDLESS + "count(*) FROM n", "steps of SQLite"),
        (ENDLESS + "i FROM n ORDER BY i", "steps of SQLite"),
        (ENDLESS + "i, hex(zeroblob(1000)) FROM n", "a table beyond"),
        ("SELECT hex(zeroblob(4000000))", "too big"),
        ("SELECT zeroblob(2000000000)", "too big"),
        ("SELECT raw FROM prices", "row 1, column 'raw': bytes"),
        ("SELECT 1e999", "row 1, column '1e999'"),
        ("SELECT CAST(x'ff' AS TEXT)", "SQLite says"),
        ("SELECT t, t FROM prices", "one name"),
        ("SELECT " + ", ".join(f"{it} AS c{it}" for it in range(65)), "65 columns"),
        ("SELECT", "SQLite says"),
        ("SELECT 1 WHERE ?", "SQLite says"),
        ("WITH a AS (SELECT 1)", "SQLite says"),
    ],
)
def test_what_has_no_end_or_no_place_in_a_table_is_refused(
    database: Path, monkeypatch: pytest.MonkeyPatch, query: str, words: str
) -> None:
    monkeypatch.setattr(sqlite_query, "STEPS_MAX", 3_000_000)
    with pytest.raises((Malformed, Oversize), match=words):
        query_sqlite(str(database), query)


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 1000)
    for name, words in (("text", "not a database"), ("gone.db", "No such file"), (".", "no file")):
        with pytest.raises(WireError, match=words):
            query_sqlite(str(tmp_path / name), "SELECT * FROM sqlite_master")
    with pytest.raises(WireError, match="no file of SQLite"):
        query_sqlite("/dev/zero", "SELECT 1")
    assert not (tmp_path / "gone.db").exists()


BAD = {
    "a relative path": ('database = "prices.db"', "no whole path"),
    "a password": ('database = "postgresql://u:secret@h/d"', "has a password in it"),
    "another engine": ('database = "mysql://h/d"', "no database that can be asked"),
    "options": ('database = "postgresql://h/d?sslmode=disable"', "no database"),
    "a socket": ('database = "postgresql:///d"', "no database"),
    "two hosts": ('database = "postgresql://a,b/d"', "no database"),
    "a port": ('database = "postgresql://h:99999/d"', "no host and port"),
    "a format": ('database = "/a.db"\nformat = "csv"', "has no 'format'"),
    "a list": ("kind = []", "kind is"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_source_that_names_no_sound_database_is_refused(name: str) -> None:
    line, words = BAD[name]
    kind = "" if "kind" in line else 'kind = "sql"\nquery = "SELECT 1"\n'
    with pytest.raises(InputError, match=words) as caught:
        read_source(kind + line)
    assert "secret" not in str(caught.value)


def test_another_peer_sends_no_source_of_a_database(database: Path) -> None:
    with pytest.raises(InputError, match="of the kind http"):
        check_strange(read_source(SOURCE.format(path=database)))


POSTGRES = 'kind = "sql"\ndatabase = "{place}"\nquery = "SELECT 1"\ncredential = "reader"\n'


class Answering(Extractor):
    """A server that says the credential the second time it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    async def query(self, database: Database, password: str, query: str) -> bytes:
        self.asked.append((password, query))
        return b'["a"]\n["s3cret"]\n' if len(self.asked) > 1 else b'["a"]\n["1"]\n'

    async def answer(self, message: dict[str, Value], seconds: int) -> dict[str, Any]:
        return parse_worker.answer(message)


async def test_a_server_is_asked_only_where_its_owner_named_it(tmp_path: Path) -> None:
    ingest = ingest_at(tmp_path, MadeUpNetwork())
    text = POSTGRES.format(place="postgresql://reader@db.example.org/prices")
    with pytest.raises(InputError, match="no credential 'reader'"):
        ingest.owned.add("rows", text)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "reader").write_text("s3cret")
    (tmp_path / "credentials" / "reader").chmod(0o600)
    source = ingest.owned.add("rows", text)
    with pytest.raises(InputError, match=r"db\.example\.org:5432 is not asked"):
        await ingest.named("rows", ASKER)
    assert ingest.owned.allow(source) == "db.example.org:5432"
    answering = Answering()
    ingest.extractor = answering
    brought = await ingest.named("rows", ASKER)
    assert answering.asked[0] == ("s3cret", "SELECT 1")
    assert brought.record.urls == ("postgresql:prices",)
    again = text.replace("SELECT 1", "SELECT 2")
    with pytest.raises(Malformed, match="repeats the credential"):
        await ingest.owners(read_source(again))
