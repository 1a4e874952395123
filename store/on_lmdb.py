"""The store on disk: one LMDB environment, one writer that commits in groups, many readers.

Only this file imports lmdb, and turns its errors into ours. Pages are written with `pwrite`, not
through the map: on a full disk the first gives an error code, the second a fatal signal.
"""

import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import trio

from store import files
from store.catalog import Catalog
from store.content_store import ContentStore
from store.files import NO_ROOM
from store.folder import open_folder
from store.group_commit import Action, CommitRequest, CommitStatistics, Committer, MoveOnAfter
from store.placed import PlacedRows
from store.private_file import open_own
from store.quota import Quota
from store.recency import Recency
from store.rows import CATALOG_TABLES
from store.seam import Store, Table
from wire.errors import BatonError, StoreFull, StoreUnusable

T = TypeVar("T")

# The map is address space, not disk: it grows by doubling, later by steps.
MAP_BYTES_START = 64 << 20
MAP_BYTES_STEP = 4 << 30
# Threads that read at once; more would only compete for the disk.
_READERS = 4
_FOLDER = "store"
# The file in it, and the folder in which that is written anew.
_DATA = "data.mdb"
_ANEW = "anew"
# LMDB maps this one too: a head, and a place for each of 126 readers.
_LOCK, _LOCK_BYTES = "lock.mdb", 8192
# The store's file is written anew at the start if more than this of it is free, and more than is
# used, and if no more than this is used: a start should not take long.
FREE_BYTES_MIN = 256 << 20
COPY_BYTES_MAX = 1 << 30
# The folder beside it, for content that is kept as files.
FILES_FOLDER = "files"


class LmdbRows:
    """One LMDB transaction as `store.rows.Rows`. It returns copies, never its own pages."""

    __slots__ = ("_tables", "_transaction")

    def __init__(self, transaction: Any, tables: dict[str, Any]) -> None:
        self._transaction = transaction
        self._tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        value = self._transaction.get(key, db=self._tables[table])
        return None if value is None else bytes(value)

    def size(self, table: str, key: bytes) -> int | None:
        value = self._transaction.get(key, db=self._tables[table])
        return None if value is None else len(value)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write a value under a key of a table, replacing an earlier one; lmdb.Error."""
        self._transaction.put(key, value, db=self._tables[table])

    def put_many(self, table: str, rows: Sequence[tuple[bytes, bytes]]) -> None:
        with self._transaction.cursor(db=self._tables[table]) as cursor:
            cursor.putmulti(rows)

    def insert(self, table: str, key: bytes, value: bytes) -> bool:
        return bool(self._transaction.put(key, value, overwrite=False, db=self._tables[table]))

    def delete(self, table: str, key: bytes) -> bool:
        return bool(self._transaction.delete(key, db=self._tables[table]))

    def scan(self, table: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return [(bytes(key), bytes(value)) for key, value in self._from(table, start, limit)]

    def sizes(self, table: str, start: bytes, limit: int) -> list[tuple[bytes, int]]:
        return [(bytes(key), len(value)) for key, value in self._from(table, start, limit)]

    def let_go(self) -> None:
        """Forget the transaction: py-lmdb keeps its reader slot as long as it is referenced."""
        self._transaction = None

    def _from(
        self, table: str, start: bytes, limit: int
    ) -> Iterator[tuple[memoryview, memoryview]]:
        with self._transaction.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_range(start):
                return
            for row, _ in zip(cursor, range(limit), strict=False):
                yield row


class _Gate:
    """A lock for many readers or one that resizes the map. LMDB leaves this to its user."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._growing = False

    def enter(self) -> None:
        with self._changed:
            while self._growing:
                self._changed.wait()
            self._readers += 1

    def leave(self) -> None:
        with self._changed:
            self._readers -= 1
            if self._growing:
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._growing = True
            while self._readers:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._growing = False
                self._changed.notify_all()


class _Reading:
    """One reading transaction. A class and not a generator: a task has many, and they are short."""

    __slots__ = ("_environment", "_files", "_gate", "_rows", "_tables", "_transaction")

    def __init__(
        self, gate: _Gate, environment: Any, tables: dict[str, Any], files: Path | None
    ) -> None:
        self._gate = gate
        self._environment = environment
        self._tables = tables
        self._files = files

    def __enter__(self) -> PlacedRows:
        self._gate.enter()
        try:
            self._transaction = self._environment.begin(buffers=True)
        except lmdb.Error as error:
            self._gate.leave()
            raise _ours(error) from error
        self._rows = LmdbRows(self._transaction, self._tables)
        return PlacedRows(self._rows, self._files)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._rows.let_go()
            self._transaction.abort()
            self._transaction = None
        finally:
            self._gate.leave()
        if isinstance(error, lmdb.Error):
            raise _ours(error) from error


class LmdbEnvironment:
    """An open LMDB environment: transactions, and a map that grows when needed."""

    def __init__(self, environment: Any, tables: dict[str, Any]) -> None:
        self._environment = environment
        self._tables = tables
        self._gate = _Gate()

    def reading(self, files: Path | None = None) -> "_Reading":
        """The rows as they are now, for as long as a block runs; `files` as in PlacedRows."""
        return _Reading(self._gate, self._environment, self._tables, files)

    def write(self, work: Callable[[LmdbRows], None]) -> None:
        """Run `work` in one transaction, again if the map had to grow; durable on return."""
        with _translated():
            while True:
                try:
                    with self._environment.begin(write=True, buffers=True) as transaction:
                        work(LmdbRows(transaction, self._tables))
                    return
                except lmdb.MapFullError:
                    self._grow()

    def _grow(self) -> None:
        with self._gate.alone():
            map_bytes = self._environment.info()["map_size"]
            self._environment.set_mapsize(map_bytes + min(map_bytes, MAP_BYTES_STEP))


class LmdbBackend:
    """See `store.backend.Backend`."""

    def __init__(
        self,
        environment: LmdbEnvironment,
        quota: Quota,
        recency: Recency,
        files: Path | None = None,
        move_on_after: MoveOnAfter = trio.move_on_after,
    ) -> None:
        self._environment = environment
        self._files = files
        self._quota = quota
        self._recency = recency
        self._readers = trio.CapacityLimiter(_READERS)
        self.committer = Committer(self._run_group, move_on_after)

    async def commit(self, action: Action[T], size_bytes: int = 0) -> T:
        return await self.committer.submit(action, size_bytes)

    def offer(self, action: Action[object]) -> bool:
        return self.committer.offer(action)

    def reading(self) -> AbstractContextManager[PlacedRows]:
        return self._environment.reading(self._files)

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._readers)

    def statistics(self) -> CommitStatistics:
        """What the writer did since the store was opened, and how many requests wait for it."""
        return self.committer.statistics()

    def _run_group(self, group: Sequence[CommitRequest[Any]]) -> None:
        def run_all(rows: LmdbRows) -> None:
            catalog = Catalog(PlacedRows(rows, self._files), self._quota, self._recency)
            for request in group:
                request.run(catalog)
            catalog.finish()

        self._environment.write(run_all)


@asynccontextmanager
async def open_store(
    folder: Path, *, quota_bytes: int, move_on_after: MoveOnAfter = trio.move_on_after
) -> AsyncIterator[Store]:
    """The store in this state folder, for as long as the block runs.

    The folder is locked meanwhile; see `store.folder.open_folder` for when it is refused. All that
    callers were promised, and what `write_soon` took, is on the disk when the block ends. A commit
    that takes too long by `move_on_after` ends the store.
    """
    recency, quota = Recency(), Quota(quota_bytes, folder)
    with open_folder(folder):
        handle = await _open_compact(folder / _FOLDER)
        backend: LmdbBackend | None = None
        try:
            with _translated():
                tables = {name: handle.open_db(name.encode()) for name in (*CATALOG_TABLES, *Table)}
            kept = folder / FILES_FOLDER
            backend = LmdbBackend(
                LmdbEnvironment(handle, tables), quota, recency, kept, move_on_after
            )
            with backend.reading() as rows:
                files.sweep(kept, rows.file_names())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.committer.run)
                try:
                    yield ContentStore(backend, recency, quota, kept)
                finally:
                    backend.committer.close()
        finally:
            # A thread that never returned still uses the map: closing the map would kill the
            # process before it can say why.
            if backend is None or not backend.committer.stuck:
                handle.close()


def _open_environment(path: Path) -> Any:
    # LMDB would give the folder the mode of its files, and only root may enter such a folder.
    path.mkdir(mode=0o700, exist_ok=True)
    _reserve(path / _LOCK)
    with _translated():
        return lmdb.open(
            str(path), map_size=MAP_BYTES_START, max_dbs=32, mode=0o600, max_spare_txns=_READERS
        )


def _reserve(lock: Path) -> None:
    """Have the disk give the room of LMDB's lock file, which it maps; OSError if there is none.

    LMDB makes it without, and the system would end this process at the first write to it.
    """
    descriptor = open_own(lock, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_BYTES)
    finally:
        os.close(descriptor)


async def _open_compact(path: Path) -> Any:
    """The environment, written anew before if most of its file is pages without content.

    LMDB never makes its file smaller. Blocks that became a file, as those of a fetched model do,
    leave their pages behind: as many as the model is large.
    """
    handle = _open_environment(path)
    anew = path / _ANEW
    # What a process that was killed left behind.
    shutil.rmtree(anew, ignore_errors=True)
    with _translated():
        worthwhile = _mostly_free(handle)
    if not worthwhile:
        return handle
    try:
        await trio.to_thread.run_sync(_copy, handle, anew)
        handle.close()
        (anew / _DATA).replace(path / _DATA)
        files.sync_folder(path)
    except (lmdb.Error, OSError):
        # There may be no room for the copy. The file as it is serves as well.
        handle.close()
    shutil.rmtree(anew, ignore_errors=True)
    return _open_environment(path)


def _copy(handle: Any, folder: Path) -> None:
    """Write what the environment has to a new file in a new folder; durable on return."""
    folder.mkdir(mode=0o700)
    handle.copy(str(folder), compact=True)
    with (folder / _DATA).open("rb") as file:
        (folder / _DATA).chmod(0o600)
        os.fsync(file.fileno())


def _mostly_free(handle: Any) -> bool:
    """Whether a copy of what is used is small, and far smaller than the file."""
    with handle.begin() as transaction:
        names = [bytes(name) for name, _ in transaction.cursor()]
        tables = [handle.open_db(name, transaction, create=False) for name in names]
        counts = [handle.stat(), *(transaction.stat(table) for table in tables)]
    page_bytes = counts[0]["psize"]
    used = sum(it["branch_pages"] + it["leaf_pages"] + it["overflow_pages"] for it in counts)
    free = handle.info()["last_pgno"] + 1 - used
    enough: bool = free * page_bytes >= FREE_BYTES_MIN and free > used
    return enough and bool(used * page_bytes <= COPY_BYTES_MAX)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise _ours(error) from error


# LMDB reports a write that was only partly done as an input/output error.
_REFUSED = NO_ROOM | {errno.EIO, errno.ENOMEM}


def _ours(error: lmdb.Error) -> BatonError:
    code = getattr(error, "code", None)
    if code in _REFUSED or isinstance(error, lmdb.DiskError | lmdb.MemoryError):
        return StoreFull(
            f"the disk refused a write ({error}); what was stored before is safe",
            todo="free some space on the disk of the state folder; if it has space, check the disk",
        )
    return StoreUnusable(
        f"the store cannot be used ({error})",
        todo="start the peer again; if that does not help, move the folder's 'store' away: what "
        "was in it can be fetched again, the peer's key stays",
    )
