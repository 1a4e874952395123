"""How the peer of a state folder was started, kept there, so that it can be started again so."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from store.files import appearing
from store.private_file import OTHERS_MAY_WRITE, read_private
from wire.errors import InputError, StoreUnusable

FILE = "started.json"
BYTES_MAX = 128 << 10
VERSION = re.compile(r"[0-9][0-9A-Za-z.+_]{0,39}")
# How an invite begins: it lets somebody in, is of no use a second time, and is kept nowhere.
_INVITE = "baton1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """One start of `join`.

    `prefix` is where its Python is installed and `packages` the folder of its packages; `arguments`
    are what was typed after `python -m node`, in the folder `folder`; `process` is its number.
    """

    version: str
    prefix: str
    packages: str
    arguments: tuple[str, ...]
    folder: str
    process: int

    @property
    def checkout(self) -> bool:
        """Whether it runs from a folder of sources, which has no version beside it."""
        return (Path(self.packages) / "pyproject.toml").exists()


def without_invites(arguments: Sequence[str]) -> tuple[str, ...]:
    """What was typed, without invites, and without what is for one start only."""
    return tuple(it for it in arguments if not it.lower().startswith(_INVITE) and it != "--debug")


def keep_started(state: Path, started: Started) -> None:
    """Write it into the state folder, whole or not at all; BatonError if that cannot be done."""
    with appearing(state / FILE) as file:
        file.write(json.dumps(asdict(started)).encode())


def read_started(state: Path, *, trusted: bool = True) -> Started | None:
    """What was kept; None if nothing was. StoreUnusable if it is no such record.

    What is `trusted` is run, so it has to be this user's own.
    """
    file = state / FILE
    try:
        if trusted:
            data = read_private(
                file, "how the peer was started", size_bytes_max=BYTES_MAX, barred=OTHERS_MAY_WRITE
            )
        else:
            with file.open("rb") as source:
                data = source.read(BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}",
            todo="run this as the user whose peer it is, or with sudo for a service",
        ) from error
    return started_of(data, file)


def started_of(data: bytes, file: Path) -> Started:
    """A record of bytes; StoreUnusable if it is none."""
    try:
        found: Any = json.loads(data)
        started = Started(
            version=_text(found["version"]),
            prefix=_text(found["prefix"]),
            packages=_text(found["packages"]),
            arguments=tuple(map(_text, found["arguments"])),
            folder=_text(found["folder"]),
            process=found["process"],
        )
        sound = VERSION.fullmatch(started.version) and type(started.process) is int
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = None
    if not sound:
        raise StoreUnusable(
            f"{file} does not say how the peer was started",
            todo="delete it, and start the peer again: it is written anew",
        )
    return started


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    return value
