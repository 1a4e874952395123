"""The journal of an upgrade: one small file beside the versions, which appears whole or not."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from node.upgrading.started import VERSION, Started, started_of
from node.upgrading.steps import UpgradeStep
from store.files import appearing, sync_folder
from store.private_file import (
    OTHERS_MAY_WRITE,
    check_own_folder,
    open_own,
    own_folder,
    read_private,
)
from wire.errors import BatonError, InputError, StoreUnusable

FILE = "upgrade.json"
_LOCK = "lock"
BYTES_MAX = 512 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeJournal:
    """One upgrade under way: how the old peer was started, and what takes its place.

    `source` is the folder that libraries come from, "" for an index: `index`, or "" for the public
    one. `unit` is the text of the service's unit, "" if the peer is no service. `peer`, `connected`
    and `models` are what the old peer said of itself: its id, whether it had neighbours, and its
    models that ran.
    """

    step: UpgradeStep
    old: Started
    version: str
    wheel: str
    source: str = ""
    index: str = ""
    for_user: bool = False
    unit: str = ""
    peer: str = ""
    connected: bool = False
    models: tuple[str, ...] = ()
    # The version of the old peer's state folder.
    folder_version: int = 0
    why: str = ""


def versions_folder(state: Path) -> Path:
    """Where the versions of this peer lie: beside its state folder."""
    return state.with_name(f"{state.name}-versions")


def keep_journal(versions: Path, journal: UpgradeJournal) -> None:
    """Write it, so that it is there also after a power cut."""
    with appearing(versions / FILE) as file:
        file.write(json.dumps(asdict(journal)).encode())


def end_journal(versions: Path) -> None:
    """The upgrade is over."""
    (versions / FILE).unlink(missing_ok=True)
    sync_folder(versions)


def read_journal(versions: Path) -> UpgradeJournal | None:
    """The upgrade that is under way or was cut; None if none is. StoreUnusable for what is none."""
    file = versions / FILE
    try:
        check_own_folder(versions)
        data = read_private(
            file, "an upgrade's journal", size_bytes_max=BYTES_MAX, barred=OTHERS_MAY_WRITE
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}",
            todo="run this as the user who began the upgrade",
        ) from error
    try:
        found: Any = json.loads(data)
        old = started_of(json.dumps(found.pop("old")).encode(), file)
        texts = ("version", "wheel", "source", "index", "unit", "peer", "why")
        if not all(isinstance(found[it], str) for it in texts):
            raise TypeError
        if not VERSION.fullmatch(found["version"]):
            raise ValueError
        return UpgradeJournal(
            **found
            | {
                "step": UpgradeStep(found["step"]),
                "old": old,
                "models": tuple(map(str, found["models"])),
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BatonError) as error:
        raise StoreUnusable(
            f"{file} is no journal of an upgrade",
            todo="delete it, and start the peer as you did before: python -m node join",
        ) from error


@contextmanager
def upgrading_alone(versions: Path) -> Iterator[int]:
    """Make the folder if there is none, and keep other upgrades out; InputError if one runs.

    Yields the descriptor that does so, until every process that has it closed it or ended.
    StoreUnusable if the folder is not this user's own.
    """
    try:
        # A service that runs as a user of its own reads it.
        own_folder(versions, 0o755)
        descriptor = open_own(versions / _LOCK, os.O_RDWR)
    except OSError as error:
        raise InputError(
            f"{versions} cannot be made or used: {error.strerror}",
            todo="run this as the user whose peer it is, or with sudo for a service",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "another upgrade of this peer runs, or what it began still installs",
                todo="wait until it has ended",
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def cut_words(state: Path) -> str:
    """One line about an upgrade that was cut; "" if there is none, or if it is under way."""
    versions = versions_folder(state)
    try:
        journal = read_journal(versions)
        if journal is None:
            return ""
        with upgrading_alone(versions):
            return (
                f"an upgrade to {journal.version} was cut while {journal.step.value}: go on with"
                " python -m node upgrade, or end it with python -m node upgrade --back"
            )
    except InputError:
        return ""
    except (StoreUnusable, OSError) as error:
        return str(error)
