"""A ledger's file as commands read it: one that was given, or the network's as it is now."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from node.commands.ask import SOCKET
from node.ledger.chain_file import Replayed, Watcher, read_parts, replay, unwatched
from node.local.control import call, unheard
from wire.errors import InputError, WireError

EXPORT_DEADLINE_S = 24 * 3600.0
EXPORT_AGAIN = "export it again: python -m node ledger export FILE"


async def export_to(state: Path, file: Path) -> dict[str, Any]:
    """Have the running peer write its network's ledger to a file; what it says of it."""
    arguments = {"path": str(file)}
    return await call(
        state / SOCKET, "ledger_export", arguments, unheard, deadline_s=EXPORT_DEADLINE_S
    )


@asynccontextmanager
async def given_or_exported(state: Path, offline: Path | None) -> AsyncIterator[Path]:
    """The file that was given, or one of the running peer's network for as long as it is read."""
    if offline is not None:
        yield offline
        return
    with tempfile.TemporaryDirectory(prefix="baton-ledger-") as folder:
        file = Path(folder) / "all.ledger"
        await export_to(state, file)
        yield file


def replay_file(file: Path, watch: Watcher = unwatched, *, todo: str = "") -> Replayed:
    """Check all of a ledger's file; InputError, with `todo`, if it does not hold."""
    try:
        with file.open("rb") as source:
            return replay(read_parts(source), watch)
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}", todo="check the name"
        ) from error
    except WireError as error:
        raise InputError(f"this ledger does not hold: {error.message}", todo=todo) from error
