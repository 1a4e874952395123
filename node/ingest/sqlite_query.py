"""One statement asked of a file of SQLite, which is only read. It runs in the parse worker alone.

The file is opened read-only, an authorizer lets reading pass and nothing else, and the work is
counted in steps of SQLite's own machine: the same statement on the same file ends the same way.
"""

import sqlite3
import stat
from pathlib import Path

from node.ingest.parsing import CELL_CHARS_MAX
from node.ingest.sql_rows import lines_of
from wire.errors import Malformed, Oversize
from wire.fetch import QUERY_BYTES_MAX

# A few seconds of a slow processor.
STEPS_MAX = 60_000_000
_STEPS_AT_ONCE = 10_000
_READING = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)
_SETTINGS = ("query_only = ON", "trusted_schema = OFF", "temp_store = MEMORY", "mmap_size = 0")
# Full text search looks whether its tables changed.
_HARMLESS_PRAGMA = "data_version"


def query_sqlite(file: str, query: str) -> bytes:
    """The rows, as lines of JSON; Malformed says what is wrong with the file or the query."""
    path = Path(file)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Malformed(f"{path.name} is no file of SQLite")
    except OSError as error:
        raise Malformed(f"{path.name} cannot be read: {error.strerror}") from error
    try:
        # Autocommit: no transaction is held, and none is begun by the library.
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise Malformed(f"{path.name} cannot be opened: {error}") from error
    steps = 0

    def too_long() -> bool:
        nonlocal steps
        steps += _STEPS_AT_ONCE
        return steps > STEPS_MAX

    try:
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4 * CELL_CHARS_MAX)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, QUERY_BYTES_MAX)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(_authorized)
        connection.set_progress_handler(too_long, _STEPS_AT_ONCE)
        cursor = connection.execute(query)
        if cursor.description is None:
            raise Malformed("the query gives no rows")
        return lines_of([it[0] for it in cursor.description], cursor)
    except (sqlite3.Error, sqlite3.Warning) as error:
        if steps > STEPS_MAX:
            raise Oversize(
                f"the query did not end within {STEPS_MAX} steps of SQLite: take fewer rows, or"
                " make an index"
            ) from error
        raise Malformed(f"SQLite says: {error}") from error
    finally:
        connection.close()


def _authorized(
    action: int, first: str | None, second: str | None, _database: str | None, _by: str | None
) -> int:
    if action == sqlite3.SQLITE_PRAGMA:
        allowed = first == _HARMLESS_PRAGMA and second is None
    else:
        allowed = action in _READING
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
