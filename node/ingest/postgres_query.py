"""One statement asked of a PostgreSQL server, in a session that only reads. In the worker alone.

The door to psycopg, which is an extra. The statement goes by the protocol's extended form, in which
a server takes one statement and no more, in a transaction that the server lets write nothing.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from node.ingest.sql_rows import lines_of
from wire.errors import Malformed

CONNECT_S_MAX = 5
STATEMENT_S_MAX = 8
_OPTIONS = " ".join(
    f"-c {it}"
    for it in (
        "default_transaction_read_only=on",
        f"statement_timeout={STATEMENT_S_MAX}s",
        "lock_timeout=2s",
        f"idle_in_transaction_session_timeout={STATEMENT_S_MAX}s",
        "DateStyle=ISO",
        "TimeZone=UTC",
    )
)


def query_postgres(server: dict[str, str], password: str, query: str) -> bytes:
    """The rows, as lines of JSON. `server` has host, port, dbname and user; Malformed."""
    try:
        import psycopg
        from psycopg.conninfo import make_conninfo
    except ImportError as error:
        raise Malformed(
            "PostgreSQL needs a package that is not installed: pip install '.[postgres]'"
        ) from error
    asked = {
        **server,
        "connect_timeout": str(CONNECT_S_MAX),
        "options": _OPTIONS,
        "application_name": "baton",
        # Nothing that lies in the owner's home has a say, and no password goes out in the clear.
        "passfile": "/dev/null",
        "require_auth": "scram-sha-256" if password else "none",
    }
    if password:
        asked["password"] = password
    try:
        with psycopg.connect(make_conninfo(**asked)) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            # Row by row as they come: a table larger than the limits is not gathered first. What is
            # not read is cancelled at the server before the connection is used again.
            with connection.cursor() as cursor, closing(_rows(cursor, query)) as rows:
                first = next(rows, None)
                if first is None:
                    # The library then does not say what the columns are; nothing changed since, as
                    # both are in one transaction.
                    cursor.execute(query.encode(), prepare=True)
                if cursor.description is None:
                    raise Malformed("the query gives no rows")
                names = [it.name for it in cursor.description]
                return lines_of(names, _all(first, rows))
    except psycopg.Error as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Malformed(f"PostgreSQL says: {said}") from error


def _rows(cursor: Any, query: str) -> Generator[Sequence[Any], None, None]:
    yield from cursor.stream(query.encode())


def _all(first: Sequence[Any] | None, rest: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    if first is not None:
        yield first
        yield from rest
