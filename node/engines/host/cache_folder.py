"""What workers compiled, kept on disk: the oldest goes when there is too much of it.

A new version of tinygrad, of the compiler or of a model makes files of its own, and nobody asks
again for the old ones. What is still wanted and goes all the same is only compiled once more.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Those of a model are some megabytes.
CACHE_BYTES_MAX = 2 << 30
GRAPHS = "graphs"
KERNELS = "kernels-"


def sweep(folder: Path, kernels: Path) -> int:
    """Remove the oldest files until the rest is small enough; how many went.

    Not those of `kernels`, the database that is about to be used, nor the latest of all, which a
    worker may be writing. What cannot be removed stays.
    """
    found = sorted(_files(folder, kernels.name), reverse=True)
    left_bytes, gone = 0, 0
    for place, (_, size_bytes, file) in enumerate(found):
        left_bytes += size_bytes
        if place and left_bytes > CACHE_BYTES_MAX:
            with suppress(OSError):
                file.unlink()
                gone += 1
                left_bytes -= size_bytes
    return gone


def _files(folder: Path, kernels: str) -> Iterator[tuple[int, int, Path]]:
    """When each was written, its size, and where it is."""
    for pattern in (f"{GRAPHS}/*", f"{KERNELS}*"):
        for file in folder.glob(pattern):
            # Another worker may have removed or renamed it meanwhile.
            with suppress(OSError):
                state = file.stat(follow_symlinks=False)
                # SQLite has files beside a database, by its name.
                if not file.name.startswith(kernels):
                    yield state.st_mtime_ns, state.st_size, file
