"""Compiled graphs on disk, so that a model is compiled once on a machine. Worker only.

A cached graph is a pickle, and reading a pickle runs what it says. So only files that this user's
workers wrote are read: in a folder nobody else can write to, owned by us, with a digest in front.
Anything else is written anew. Nothing that came from a peer ever gets here.
"""

import fcntl
import hashlib
import itertools
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Self

from tinygrad.engine import realize
from tinygrad.uop.ops import UOp

from node.engines.worker.device import WorkerDevice
from node.engines.worker.load_progress import LoadProgress
from wire.errors import EngineMissing

# Changes whenever a graph or a kernel of ours does: old files are then not found.
LAYOUT = 8
DIGEST_BYTES = 32
FILE_BYTES_MAX = 1 << 30
WAIT_S = 0.1
# Kernels of a graph that only prepares another.
FEW = 4


class GraphCache:
    """The graphs of one model in one folder. `key` names all they depend on but the bucket."""

    def __init__(self, place: WorkerDevice, key: str) -> None:
        self._folder = place.cache
        self._progress = place.progress
        self._key = f"{LAYOUT} {key}"

    def collect(self, buckets: Sequence[int], capture: Callable[[int], Any]) -> dict[int, Any]:
        """The graph of every bucket: from disk, or captured and kept there.

        Workers that start together share the compiling: each takes a bucket nobody else is at,
        and waits only for what is left. EngineMissing if the folder is not ours alone.
        """
        _own(self._folder)
        found: dict[int, Any] = {}
        with watching(self._progress):
            while left := [it for it in buckets if it not in found]:
                before = len(found)
                for bucket in left:
                    done = len(found) / len(buckets)
                    with self._progress.part(done, done + 1 / len(buckets)):
                        graph = self._one(bucket, capture)
                    if graph is not None:
                        found[bucket] = graph
                if len(found) == before:
                    # Another worker is at them. It ends or dies, and then the locks are free.
                    Event().wait(WAIT_S)
        return found

    def _one(self, bucket: int, capture: Callable[[int], Any]) -> Any:
        """One graph; None while another worker makes it."""
        if (graph := self._get(bucket)) is not None:
            return graph
        with _locked(self._path(bucket).with_suffix(".lock")) as held:
            if not held:
                return None
            return self._get(bucket) or self._make(bucket, capture)

    def _path(self, bucket: int) -> Path:
        name = hashlib.sha256(f"{self._key} {bucket}".encode()).hexdigest()[:40]
        return self._folder / f"{name}.graph"

    def _get(self, bucket: int) -> Any:
        """The graph on disk; None if there is none, or none to be trusted."""
        try:
            handle = os.open(self._path(bucket), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            state = os.fstat(handle)
            if state.st_uid != os.geteuid() or state.st_mode & 0o077:
                return None
            if state.st_size > FILE_BYTES_MAX:
                return None
            data = file.read()
        digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            return None
        return pickle.loads(body)  # noqa: S301 - see the head of this file

    def _make(self, bucket: int, capture: Callable[[int], Any]) -> Any:
        path = self._path(bucket)
        # tinygrad names buffers by a counter, and a name read from a file must not be in use
        # here: every capture takes its names from a range of its own.
        before = UOp.unique_num
        UOp.unique_num = itertools.count(int(path.stem[:10], 16) << 20)
        graph = capture(bucket)
        UOp.unique_num = before
        body = pickle.dumps(graph)
        draft = path.with_suffix(f".{os.getpid()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        draft.replace(path)
        return graph


def _own(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat(follow_symlinks=False)
    if state.st_uid != os.geteuid() or state.st_mode & 0o077:
        raise EngineMissing(
            f"{folder} must belong to this user alone: what lies there is run",
            todo=f"chmod 700 {folder}, or choose another cache folder",
        )


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether the lock is held; the system gives it back if its holder dies."""
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def watching(progress: LoadProgress) -> Iterator[None]:
    """Have tinygrad's own bar of compiled kernels move ours."""

    class Bar:
        """Stands for `tinygrad.helpers.tqdm`, as the compiler of kernels uses it."""

        def __init__(self, *, total: int, **_: Any) -> None:
            self.total, self.done = total, 0

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to put away."""

        def set_description(self, _words: str) -> None:
            """Nobody reads which kernel it is."""

        def update(self, count: int) -> None:
            self.done += count
            # What is worked out on the way compiles a few for itself.
            progress.at(self.done / self.total if self.total > FEW else 0.0)

    before, realize.tqdm = realize.tqdm, Bar
    try:
        yield
    finally:
        realize.tqdm = before
