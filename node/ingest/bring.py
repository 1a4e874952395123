"""Bringing outside data in: a source is fetched, what came is parsed, and the record says so.

Read from top to bottom: by name (the owner's sources), by record (another peer's), then what both
share. What was fetched is kept for a moment, so that the legs of one index read one document.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from node.ingest.budget import FetchBudget
from node.ingest.came import Came
from node.ingest.database import read_database
from node.ingest.dataset import GetContent, bring_dataset
from node.ingest.extractor import Extractor
from node.ingest.http_fetch import HttpFetcher
from node.ingest.local_files import FILE_BYTES_MAX, files_below, read_file
from node.ingest.location import read_url
from node.ingest.over_http import OverHttp
from node.ingest.owned import OwnedSources, is_free
from node.ingest.source_file import check_strange
from node.ingest.tokenise import STEP, TABLE_BYTES_MAX, tables_of
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError, Malformed, Oversize
from wire.fetch import AttestedFetch, SourceRecord
from wire.latest import Latest
from wire.tree import name_of

KEPT_S = 30.0
FETCHES_KEPT = 8
# The names of files are looked for that often at most, and a look is followed by so many times its
# length of rest.
LOOK_S, LOOK_REST = 3.0, 20.0
TABLES_KEPT = 2
# For one table, which may be a few blocks of another peer's.
TABLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Brought:
    """One fetch: its record, what came, and what was made of it."""

    record: AttestedFetch
    body: bytes
    output: bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    """`begun_at_s` and `at_s`: when its fetch began and ended."""

    brought: Brought
    begun_at_s: float
    at_s: float


@dataclass(slots=True)
class Ingest:
    """Brings in the sources of one peer's owner, and those of other peers that the owner lets."""

    owned: OwnedSources
    fetcher: HttpFetcher
    extractor: Extractor
    wall_s: Callable[[], float]
    # How published content is found: the peer that this belongs to says it once it runs.
    get_content: GetContent | None = None
    budget: FetchBudget = field(default_factory=FetchBudget)
    over_http: OverHttp = field(init=False)
    _under_way: dict[tuple[ContentId, str], trio.Event] = field(default_factory=dict)
    _kept: Latest[tuple[ContentId, str], _Kept] = field(
        default_factory=lambda: Latest(FETCHES_KEPT)
    )

    _listed: list[str] = field(default_factory=list)
    _list_again_at_s: float = -math.inf
    _listing: trio.Lock = field(default_factory=trio.Lock)
    _kept_tables: Latest[ContentId, bytes] = field(default_factory=lambda: Latest(TABLES_KEPT))

    def __post_init__(self) -> None:
        self.over_http = OverHttp(self.owned, self.fetcher, self.extractor, self.budget)

    async def names(self) -> list[str]:
        """Every name that `named` takes: a source, or one of its files.

        The disk is looked at every LOOK_S at most, and for a twentieth of the time at most: any
        stranger may ask for this.
        """
        async with self._listing:
            began_at_s = trio.current_time()
            if began_at_s >= self._list_again_at_s:
                self._listed = await trio.to_thread.run_sync(self._names)
                took_s = trio.current_time() - began_at_s
                self._list_again_at_s = began_at_s + max(LOOK_S, LOOK_REST * took_s)
            return self._listed

    async def has(self, name: str) -> bool:
        """Whether a name is of one of the owner's sources."""
        scheme = name.partition(":")[0]
        return is_free(scheme) and await trio.to_thread.run_sync(self.owned.has, scheme)

    async def named(self, name: str, asker: PeerId | None, *, max_age_s: float = KEPT_S) -> Brought:
        """Fetch one of the owner's sources, `NAME` or `NAME:FILE`; a BatonError if it fails.

        Without an asker it is the owner itself that asks. What was fetched longer than `max_age_s`
        ago, and anything longer than KEPT_S ago, will not do.
        """
        source = await trio.to_thread.run_sync(self.owned.get, name.partition(":")[0])
        file = name.partition(":")[2]
        return await self._once(source, file, asker, strange=False, max_age_s=max_age_s)

    async def owners(self, source: SourceRecord, *, max_age_s: float = KEPT_S) -> Brought:
        """Fetch a source that the owner has at hand and did not add yet."""
        return await self._once(source, "", None, strange=False, max_age_s=max_age_s)

    async def given(
        self, source: SourceRecord, asker: PeerId | None, *, max_age_s: float = KEPT_S
    ) -> Brought:
        """Fetch a source that another peer sent, as the owner's rules for strangers let.

        If it is one of the owner's own, those rules do not matter.
        """
        known = await trio.to_thread.run_sync(self.owned.by_id, source.id)
        if known is None:
            check_strange(source)
            # Also before what the owner itself had fetched a moment ago is shown.
            if source.kind == "http":
                rules = await trio.to_thread.run_sync(self.owned.rules)
                rules.check(read_url(source.place), strange=True)
        return await self._once(source, "", asker, strange=known is None, max_age_s=max_age_s)

    async def _once(
        self,
        source: SourceRecord,
        file: str,
        asker: PeerId | None,
        *,
        strange: bool,
        max_age_s: float,
    ) -> Brought:
        key = (source.id, file)
        asked_at_s = trio.current_time()
        # Whoever asks for the same meanwhile waits, and finds it kept.
        while (under_way := self._under_way.get(key)) is not None:
            await under_way.wait()
            kept = self._kept.get(key)
            if kept is not None and kept.begun_at_s >= asked_at_s:
                # As fresh as any: else those who want it anew would wait for each other in turn.
                return kept.brought
        kept = self._kept.get(key)
        age_s_max = min(max_age_s, KEPT_S)
        if kept is not None and kept.at_s + age_s_max > trio.current_time():
            return kept.brought
        self._under_way[key] = trio.Event()
        begun_at_s = trio.current_time()
        try:
            brought = await self._fetch(source, file, asker, strange=strange)
        finally:
            self._under_way.pop(key).set()
        self._kept[key] = _Kept(brought, begun_at_s, trio.current_time())
        return brought

    async def _fetch(
        self, source: SourceRecord, file: str, asker: PeerId | None, *, strange: bool
    ) -> Brought:
        self.budget.check_bytes(asker, trio.current_time())
        came = await self._bring(source, file, asker, strange=strange)
        self.budget.spend_bytes(asker, len(came.body), trio.current_time())
        fetched_at_ms = int(self.wall_s() * 1000)
        tables = await self._tables(source, asker)
        async with self.extractor.turn(of_others=asker is not None):
            output = await self.extractor.extract(source.extraction, came.body, tables)
        record = AttestedFetch(
            source=source.id,
            urls=came.urls,
            fetched_at_ms=fetched_at_ms,
            status=came.status,
            headers=came.headers,
            certificates=came.certificates,
            body=name_of(came.body),
            body_size_bytes=len(came.body),
            extraction=source.extraction,
            output=name_of(output),
            pages=came.pages,
            folders=came.folders,
            more=came.more,
        )
        return Brought(record, came.body, output)

    async def _tables(self, source: SourceRecord, asker: PeerId | None) -> dict[str, bytes]:
        """The published tables that a source's steps name; InputError if they cannot be had."""
        found: dict[str, bytes] = {}
        for table in tables_of(source.extraction):
            kept = self._kept_tables.get(table)
            if kept is None:
                if self.get_content is None:
                    raise InputError(f"the table {table} cannot be brought in here")
                try:
                    with trio.fail_after(TABLE_S):
                        kept = await self.get_content(table, TABLE_BYTES_MAX)
                except (BatonError, trio.TooSlowError) as error:
                    raise InputError(
                        f"the table {table} of the step {STEP} cannot be had: {error}",
                        todo="publish it at a peer that runs: python -m node put FILE",
                    ) from error
                self.budget.spend_bytes(asker, len(kept), trio.current_time())
                self._kept_tables[table] = kept
            found[str(table)] = kept
        return found

    async def _bring(
        self, source: SourceRecord, file: str, asker: PeerId | None, *, strange: bool
    ) -> Came:
        match source.kind:
            case "files":
                return await trio.to_thread.run_sync(_read_file, source, file)
            case "http":
                return await self.over_http.bring(source, asker, strange=strange)
            case "sql":
                return await self._of_database(source, asker)
            case "dataset" if self.get_content is not None:
                self.budget.take_asker(asker, trio.current_time())
                return await bring_dataset(source.place, self.get_content)
            case _:
                raise InputError(f"a source of the kind {source.kind!r} cannot be brought in here")

    async def _of_database(self, source: SourceRecord, asker: PeerId | None) -> Came:
        database = read_database(source.place)
        # What is shown of a database in a refusal is its name alone.
        self.budget.take(f"{database.engine}:{database.name}", asker, trio.current_time())
        if database.location is not None:
            rules = await trio.to_thread.run_sync(self.owned.rules)
            rules.check_named(database.location)
        password = ""
        if source.credential:
            password = await trio.to_thread.run_sync(self.owned.credential, source.credential)
        async with self.extractor.turn(of_others=asker is not None):
            body = await self.extractor.query(database, password, source.query)
        if password and password.encode() in body:
            raise Malformed("the database's answer repeats the credential: not kept")
        # Neither the path nor the server: what is signed is shown to others.
        return Came((f"{database.engine}:{database.name}",), body)

    def _names(self) -> list[str]:
        names = []
        for name in self.owned.names():
            try:
                source = self.owned.get(name)
            except InputError:
                # `sources list` names it; a damaged file takes nothing from the others.
                continue
            if source.kind == "files":
                names += list(_files_of(source, f"{name}:"))
            else:
                names.append(name)
        return names


def _files_of(source: SourceRecord, prefix: str) -> dict[str, Path]:
    return files_below(Path(source.place).expanduser(), prefix, source.glob)


def _read_file(source: SourceRecord, file: str) -> Came:
    """One file of a source; the only one may go without its name. InputError."""
    files = _files_of(source, "")
    if not file and len(files) == 1:
        file = next(iter(files))
    if file not in files:
        some = ", ".join(list(files)[:10]) or "none"
        raise InputError(
            f"there is no file {file[:80]!r} in this source (there are: {some})"
            if file
            else f"this source has {len(files)} files: {some}",
            todo="name one, as SOURCE:FILE",
        )
    try:
        body = read_file(files[file])
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if len(body) > FILE_BYTES_MAX:
        raise Oversize(f"{file} has more than {FILE_BYTES_MAX} bytes")
    return Came((file,), body)
