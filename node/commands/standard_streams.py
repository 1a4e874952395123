"""Standard output and standard error that end no work, whatever becomes of who reads them.

Everything that a command shows goes through here: to a reader that may be gone, a full disk, a
closed descriptor, a terminal that was hung up, an encoding that has no block characters. A command
that only shows something ends when it cannot be shown; a peer that holds work goes on, and says in
its status what was lost. Nothing above needs to know.
"""

import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from wire.errors import BatonError

# Of a peer whose reader stands still, this much waits to be written; what comes then is lost.
WAITING_BYTES_MAX = 256 << 10
# How long a command that ends waits for what it said last to be written.
LAST_WORDS_S = 1.0
_DESCRIPTORS = (0, 1, 2)
_POLL_S = 1.0
# Python itself sets LC_CTYPE to one of these where a person's locale is C.
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")


class OutputLost(BatonError):
    """What a command shows cannot be written. `reader_gone`: nobody wants to read any more."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"the output cannot be written: {error.strerror}",
            todo="send it where there is room",
        )
        self.reader_gone = isinstance(error, BrokenPipeError)


# Characters that this program and its tables draw with, where the encoding or the locale has none
# of them. One for one, so that every column stays where it is.
_PLAIN = {
    "█": "#", "▉": "#", "▊": "#", "▋": "#", "▌": "#", "▍": "#", "▎": "|", "▏": "|",
    "░": "-", "▒": "-", "▓": "#", "▀": "#", "▄": "#", "■": "#", "╸": "-", "╺": "-",
    "✓": "+", "✗": "x", "⚡": "!", "…": ".", "·": "*", "•": "*", "●": "*", "○": "o",
    "—": "-", "–": "-", "→": ">", "←": "<", "↑": "^", "↓": "v", "×": "x",  # noqa: RUF001
    "“": '"', "”": '"', "‘": "'", "’": "'", "\N{REPLACEMENT CHARACTER}": "?",  # noqa: RUF001
}  # fmt: skip
_BOX_LINES = {"─": "-", "━": "-", "═": "-", "│": "|", "┃": "|", "║": "|"}
PLAIN = str.maketrans(
    {chr(code): "+" for code in range(0x2500, 0x2580)}
    | {chr(code): "*" for code in range(0x2800, 0x2900)}
    | _BOX_LINES
    | _PLAIN
)


class _Pump:
    """A thread that writes, so that a reader who stands still stops nobody."""

    def __init__(self, descriptor: int) -> None:
        self.problem = ""
        self.lost = 0
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=f"output {descriptor}", daemon=True).start()

    def offer(self, data: bytes) -> None:
        """Have this written when its turn comes; lost where too much waits."""
        with self._changed:
            if self._waiting_bytes + len(data) > WAITING_BYTES_MAX:
                self.lost += 1
                self.problem = "whoever reads it does not go on"
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()

    def finish(self, deadline_s: float) -> None:
        """Wait until all is written, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, deadline_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                data = self._waiting[0]
            problem = ""
            try:
                _write_all(self._descriptor, data)
            except OSError as error:
                problem = error.strerror or str(error)
            with self._changed:
                self._waiting.popleft()
                self._waiting_bytes -= len(data)
                if problem:
                    self.lost += 1
                    self.problem = problem
                self._changed.notify_all()


class GuardedFile(io.RawIOBase):
    """One descriptor. Fails at most once, and only where what is shown must arrive."""

    def __init__(self, descriptor: int, *, must_arrive: bool) -> None:
        self._descriptor = descriptor
        self._must_arrive = must_arrive
        self._failed = False
        self._pump: _Pump | None = None

    def keep_going(self) -> None:
        """From now on nothing fails and nothing waits: what cannot be written is lost."""
        if self._pump is None:
            self._pump = _Pump(self._descriptor)

    @property
    def lost(self) -> tuple[int, str]:
        """How many writes of a peer were lost so far, and why the latest was."""
        return (0, "") if self._pump is None else (self._pump.lost, self._pump.problem)

    def finish(self) -> None:
        """Give what waits a moment to be written."""
        if self._pump is not None:
            self._pump.finish(LAST_WORDS_S)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The descriptor that is written to; libraries ask whether it is a terminal."""
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        """OutputLost the first time that it cannot be written, where it must arrive."""
        whole = bytes(data)
        if self._pump is not None:
            self._pump.offer(whole)
        elif not self._failed:
            try:
                _write_all(self._descriptor, whole)
            except OSError as error:
                self._failed = True
                if self._must_arrive:
                    raise OutputLost(error) from error
        return len(whole)


class _Text(io.TextIOWrapper):
    """Text for one descriptor; `plain` draws with ASCII alone."""

    def __init__(self, file: GuardedFile, encoding: str, *, plain: bool) -> None:
        # What an encoding lacks is shown as a question mark, and never an error.
        super().__init__(
            io.BufferedWriter(file),
            encoding=encoding,
            errors="replace",
            line_buffering=file.isatty() or file.fileno() == 2,
        )
        self._plain = plain

    def write(self, text: str, /) -> int:
        return super().write(text.translate(PLAIN) if self._plain else text)


class StandardStreams:
    """The two streams of this process, once they are guarded."""

    def __init__(self) -> None:
        self._files: list[GuardedFile] = []

    def guard(self, environment: Mapping[str, str]) -> None:
        """Take the place of `sys.stdout` and `sys.stderr`. Once, before anything is shown."""
        _fill_closed()
        plain_locale = _locale(environment) in ("C", "POSIX")
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            before = getattr(sys, name)
            encoding = "utf-8" if before is None else before.encoding
            file = GuardedFile(descriptor, must_arrive=descriptor == 1)
            plain = plain_locale or not encoding.lower().startswith("utf")
            setattr(sys, name, _Text(file, encoding, plain=plain))
            self._files.append(file)

    def keep_going(self) -> None:
        """This process holds work: what cannot be shown from here on is lost, and counted."""
        for file in self._files:
            file.keep_going()

    def problem(self) -> str:
        """Why the latest of a peer's output was lost, in words; empty if nothing was."""
        reasons = [reason for count, reason in (it.lost for it in self._files) if count]
        return f"lines of this peer's output were lost: {reasons[-1]}" if reasons else ""

    def finish(self) -> None:
        """Wait a moment for what was said last."""
        for file in self._files:
            file.finish()


def _locale(environment: Mapping[str, str]) -> str:
    """Which locale a person chose for characters; empty if none was named."""
    character_type = environment.get("LC_CTYPE", "")
    if character_type in _COERCED:
        character_type = ""
    return environment.get("LC_ALL") or character_type or environment.get("LANG", "")


def _fill_closed() -> None:
    """Open what is closed of the first three descriptors.

    Else the next file that is opened takes that number, the store's perhaps, and gets whatever is
    printed.
    """
    for descriptor in _DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            # The system gives the lowest number that is free.
            os.open(os.devnull, os.O_RDWR)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            # Somebody who shares it has made it a descriptor that does not wait.
            select.select((), (descriptor,), (), _POLL_S)


streams = StandardStreams()
