"""How much a store may keep: what its owner says, and nothing more while its disk is nearly full.

A database's file never shrinks, and what is evicted from it makes room for what comes. So a store
that keeps no more than it has goes on for as long as it likes beside whatever filled the disk.
"""

import os
from dataclasses import dataclass
from pathlib import Path

# A disk is nearly full when less than this is free, or than this share of a small one.
FREE_BYTES_MIN = 512 << 20
FREE_SHARE_MIN = 0.05
# A store that has hardly begun may use the last of the disk.
SMALL_BYTES = 64 << 20
# Beyond what is held there is a little room, or nothing could come in place of what is let go.
SPARE_SHARE, SPARE_BYTES_MAX = 1 / 19, 128 << 20


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be kept now, and the bytes that are free on the disk if that is nearly full."""

    quota_bytes: int
    free_bytes: int | None = None

    @property
    def problem(self) -> str:
        """What a person should know of it; "" if all is well."""
        if self.free_bytes is None:
            return ""
        return (
            f"{self.free_bytes >> 20} MiB are free on the disk, so what is new takes the place of"
            " what is old; make room there"
        )


@dataclass(slots=True)
class Quota:
    """The owner's word, and the folder whose disk is looked at; None where there is none.

    It is asked in the loop and in the writer's thread: each step is one assignment.
    """

    owner_bytes: int
    folder: Path | None = None
    # What may be kept since the disk was first seen to be nearly full.
    _capped_bytes: int | None = None

    def now(self, used_bytes: int, held_bytes: int) -> Allowed:
        """What a store may keep that keeps so much, and may not evict `held_bytes` of it."""
        free_bytes = None if self.folder is None else nearly_full(self.folder)
        if free_bytes is None:
            self._capped_bytes = None
            return Allowed(self.owner_bytes)
        capped_bytes = self._capped_bytes
        if capped_bytes is None:
            spare_bytes = min(int(held_bytes * SPARE_SHARE), SPARE_BYTES_MAX)
            capped_bytes = max(used_bytes, held_bytes + spare_bytes, SMALL_BYTES)
            self._capped_bytes = capped_bytes
        return Allowed(min(self.owner_bytes, capped_bytes), free_bytes)


def nearly_full(folder: Path) -> int | None:
    """The bytes that are free on the disk of `folder`; None while these are enough, or unknown."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    free_bytes = found.f_bavail * found.f_frsize
    least = min(FREE_BYTES_MIN, FREE_SHARE_MIN * found.f_blocks * found.f_frsize)
    return free_bytes if free_bytes < least else None
