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
from typing import Any

from tinygrad.uop.ops import UOp

from wire.errors import EngineMissing

# Changes whenever a graph or a kernel of ours does: old files are then not found.
LAYOUT = 2
DIGEST_BYTES = 32
FILE_BYTES_MAX = 1 << 30


class GraphCache:
    """The graphs of one model in one folder. `key` names all they depend on but the bucket."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = f"{LAYOUT} {key}"

    def collect(self, buckets: Sequence[int], capture: Callable[[int], Any]) -> dict[int, Any]:
        """The graph of every bucket: from disk, or captured and kept there.

        Workers that start together share the compiling: each takes a bucket nobody else is at,
        and waits only for what is left. EngineMissing if the folder is not ours alone.
        """
        _own(self._folder)
        found: dict[int, Any] = {}
        for wait in (False, True):
            for bucket in buckets:
                if bucket not in found and (graph := self._get(bucket)) is not None:
                    found[bucket] = graph
                if bucket in found:
                    continue
                with _locked(self._path(bucket).with_suffix(".lock"), wait=wait) as held:
                    if held:
                        found[bucket] = self._get(bucket) or self._make(bucket, capture)
        return found

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
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the lock is held; the system gives it back if its holder dies."""
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
