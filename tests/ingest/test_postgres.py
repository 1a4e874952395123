"""A PostgreSQL server of this test's own, where one is installed: asked, and never written to."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.ingest import parsing
from node.ingest.database import read_database
from node.ingest.extractor import Extractor
from node.ingest.postgres_query import query_postgres
from node.ingest.table import DataTable
from tests.ports import free_port
from wire.errors import Malformed, Oversize

PASSWORD = "of this test"
START_S_MAX = 60


def run(folder: Path, *command: str, **settings: str) -> None:
    """Run a program as a user that is not root: the server refuses to be root's."""
    user = "nobody" if os.getuid() == 0 else None
    subprocess.run(
        command, cwd=folder, user=user, check=True, env={"PATH": "/usr/bin:/bin", **settings},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgres]'")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("no PostgreSQL server is installed here")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="baton-postgres-") as folder_name:
        folder = Path(folder_name)
        if os.getuid() == 0:
            import pwd

            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        login = ("--auth=scram-sha-256", "--pwfile=password", "--username=owner", "--no-sync")
        run(folder, str(found[-1] / "initdb"), "-D", "data", "--encoding=UTF8", *login)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = str(found[-1] / "pg_ctl")
        run(folder, control, "-D", "data", "-l", "log", "-o", options, "-w", "start")
        try:
            place = {"host": "127.0.0.1", "port": str(port), "dbname": "postgres", "user": "owner"}
            _prepare(place)
            yield place
        finally:
            run(folder, control, "-D", "data", "-m", "immediate", "-w", "stop")


def _prepare(place: dict[str, str]) -> None:
    import psycopg
    from psycopg.conninfo import make_conninfo

    end_s = time.monotonic() + START_S_MAX
    while True:
        try:
            connection = psycopg.connect(make_conninfo(**place, password=PASSWORD))
            break
        except psycopg.OperationalError:
            assert time.monotonic() < end_s
    with connection:
        connection.execute("CREATE TABLE prices (t timestamptz, price numeric, ok bool, note json)")
        connection.execute(
            "INSERT INTO prices VALUES ('2026-01-02 03:04:05+01', 1.50, true, '{\"a\": [1]}'),"
            " (NULL, NULL, NULL, NULL)"
        )


def table(server: dict[str, str], query: str) -> DataTable:
    return DataTable.from_bytes(query_postgres(server, PASSWORD, query))


async def test_rows_come_with_every_digit_and_their_time_zone(server: dict[str, str]) -> None:
    found = table(server, "SELECT t, price, ok, note FROM prices ORDER BY t")
    assert found.columns == ("t", "price", "ok", "note")
    assert found.rows == (
        ("2026-01-02T02:04:05+00:00", "1.50", True, '{"a":[1]}'),
        (None, None, None, None),
    )
    assert table(server, "SELECT t FROM prices WHERE price > 100").rows == ()
    database = read_database(f"postgresql://owner@127.0.0.1:{server['port']}/postgres")
    body = await Extractor().query(database, PASSWORD, "SELECT count(*) AS n FROM prices")
    assert DataTable.from_bytes(body).rows == ((2,),)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; DROP TABLE prices",
        "SELECT 1; COMMIT; DROP TABLE prices",
        "WITH a AS (DELETE FROM prices RETURNING 1) SELECT * FROM a",
        "SELECT set_config('transaction_read_only', 'off', false) UNION ALL"
        " SELECT lo_from_bytea(0, 'x')::text",
        "SELECT nextval('none')",
        "SELECT 'NaN'::float8",
        "SELECT '\\x00'::bytea AS raw",
        "SELECT 1 AS a, 2 AS a",
        "SELECT * FROM nothing",
        "SELECT pg_sleep(60)",
        "COPY prices TO '/nowhere/prices'",
        "VALUES",
    ],
)
def test_a_query_that_writes_waits_or_is_none_is_refused(
    server: dict[str, str], monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    from node.ingest import postgres_query

    quick = postgres_query._OPTIONS.replace("statement_timeout=8s", "statement_timeout=300ms")
    monkeypatch.setattr(postgres_query, "_OPTIONS", quick)
    with pytest.raises(Malformed):
        query_postgres(server, PASSWORD, query)
    assert table(server, "SELECT count(*) FROM prices").rows == ((2,),)


def test_a_table_without_end_is_not_gathered(
    server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "ROWS_MAX", 1000)
    with pytest.raises(Oversize, match="a table beyond"):
        query_postgres(server, PASSWORD, "SELECT generate_series(1, 1000000000) AS i")


def test_a_wrong_login_is_told_and_a_password_is_not(server: dict[str, str]) -> None:
    for place, password in (
        (server, "wrong"),
        (server, ""),
        ({**server, "port": "1"}, PASSWORD),
        ({**server, "dbname": "none"}, PASSWORD),
    ):
        with pytest.raises(Malformed, match="PostgreSQL says") as caught:
            query_postgres(place, password, "SELECT 1")
        assert PASSWORD not in str(caught.value)
