"""What the running peer says of motions and cases, out of the books that it follows.

Where only an id or a bond is needed, no ledger is exported and replayed for it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.commands.ask import SOCKET
from node.local.control import call, unheard
from wire.errors import InputError

# The first time the peer reads the whole ledger.
DEADLINE_S = 600.0
ID_CHARS, BEGINNING_CHARS_MIN = 64, 4
KINDS = {"motion": "govern list", "case": "jury list"}


async def bond_now(state: Path) -> int:
    """What one more motion is made with now."""
    return int((await _governed(state))["bond"])


async def whole_id(state: Path, typed: str, kind: str) -> bytes:
    """The id of a motion or a case: all of it as typed, or looked up by its beginning."""
    if len(typed) == ID_CHARS and set(typed.lower()) <= set("0123456789abcdef"):
        return bytes.fromhex(typed)
    found = await _governed(state)
    return only_one(typed, [bytes.fromhex(it) for it in found[f"{kind}s"]], kind)


async def _governed(state: Path) -> Mapping[str, Any]:
    return await call(state / SOCKET, "governed", {}, unheard, deadline_s=DEADLINE_S)


def only_one(typed: str, names: list[bytes], kind: str) -> bytes:
    """The one that begins as typed; InputError if there is none, or there are more."""
    there = [it for it in names if it.hex().startswith(typed.lower())]
    if len(there) != 1 or len(typed) < BEGINNING_CHARS_MIN:
        raise InputError(
            f"{typed[:70]!r} names {len(there) or 'no'} {kind}" + "s" * (len(there) > 1),
            todo=f"see python -m node {KINDS[kind]}",
        )
    return there[0]
