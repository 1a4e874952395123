"""Results as lines of a file: each entry once, also if this peer is killed while it writes.

Before a line is written, the last one that is there is read: a part of a line is cut off, and what
is there already is not written again.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from store.private_file import open_own
from wire.errors import InputError, StoreUnusable

# The last line has to be within so many bytes of the end.
TAIL_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file of one workflow's results. Its methods belong into a thread."""

    path: Path
    feed: str

    def add(self, number: int, line: bytes) -> None:
        """Write the line of an entry, unless it is there; InputError, or StoreUnusable."""
        try:
            descriptor = open_own(self.path, os.O_RDWR)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "r+b") as file:
                end = file.seek(0, os.SEEK_END)
                begin = file.seek(max(0, end - TAIL_BYTES))
                tail = file.read()
                whole = tail.rfind(b"\n") + 1
                if not whole and begin:
                    raise InputError(f"{self.path} has no line at its end", todo="move it away")
                if self._last(tail[:whole]) >= number:
                    return
                file.seek(begin + whole)
                file.truncate()
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreUnusable(f"{self.path} cannot be written: {error.strerror}") from error

    def _last(self, lines: bytes) -> int:
        """The number of the last entry that is there; InputError if it is not of this feed."""
        last = lines.rstrip(b"\n").rpartition(b"\n")[2]
        if not last:
            return 0
        try:
            found = json.loads(last)
            feed, number = found["feed"], found["number"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"{self.path} has other lines than results", todo="name a file of its own"
            ) from error
        if feed != self.feed or type(number) is not int:
            raise InputError(
                f"{self.path} has results of another workflow, or of one of this name before",
                todo="move it away, or name another file",
            )
        return number
