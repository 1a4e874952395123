"""Which database a source names: a file of SQLite, or one of PostgreSQL, with no password. Pure."""

import re
from dataclasses import dataclass

from node.ingest.location import Location, address_of
from wire.errors import InputError

SQLITE, POSTGRES = "sqlite", "postgresql"
PORT = 5432
# What only looks begins with one of these.
_READS = ("SELECT", "WITH", "VALUES")
_POSTGRES = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[A-Za-z0-9_.-]{1,63})@)?"
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[a-z0-9.-]{1,253})(?::(?P<port>\d{1,5}))?/(?P<name>[\w.-]{1,63})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Database:
    """A database: for SQLite `path` is its file, for PostgreSQL `location` is its server."""

    engine: str
    name: str
    path: str = ""
    user: str = ""
    location: Location | None = None


def read_database(text: str) -> Database:
    """Read what a source names; InputError for what is no database, or has a password in it."""
    if "://" not in text:
        if not text.startswith(("/", "~/")) or "\0" in text:
            raise InputError(
                f"the database {text[:80]!r} is no whole path of a file",
                todo='write "/path/to/file.db", or "postgresql://user@host:5432/name"',
            )
        return Database(SQLITE, text.rpartition("/")[2], path=text)
    found = _POSTGRES.fullmatch(text)
    if found is None:
        scheme, _, rest = text.partition("://")
        secret = ":" in rest.rpartition("@")[0]
        raise InputError(
            "the database has a password in it"
            if secret
            else f"{scheme[:20]}://… is no database that can be asked",
            todo="keep it as a credential: write it to credentials/NAME in the state folder, and"
            ' say credential = "NAME"'
            if secret
            else 'write "postgresql://user@host:5432/name", or the path of a file of SQLite',
        )
    host, port = found["host"].strip("[]"), int(found["port"] or PORT)
    if not 0 < port < 65_536 or (":" in host and address_of(host) is None):
        raise InputError(f"{found['host']}:{port} is no host and port")
    # Without its user: this text is shown to whoever asks.
    location = Location(f"{POSTGRES}://{found['host']}:{port}", POSTGRES, host, port)
    return Database(POSTGRES, found["name"], user=found["user"] or "", location=location)


def check_query(query: str) -> None:
    """InputError unless the text may be one statement that reads; databases judge it again."""
    word = re.match(r"\s*\(*\s*(\w+)", query)
    if word is None or word[1].upper() not in _READS or "\0" in query:
        raise InputError(
            f"the query begins with {query.strip()[:20]!r}",
            todo=f"one statement that reads begins with {', '.join(_READS)}",
        )
