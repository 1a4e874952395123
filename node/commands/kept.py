"""Answers that are kept in the state folder, for commands that look at one."""

from pathlib import Path

from node.asking.old_answers import latest_rows
from node.commands.ask import SOCKET
from node.commands.models import QUOTA_BYTES, is_running
from node.local.control import call, unheard
from node.local.receipts import LISTED_MAX, imported, read_answer
from store import open_store
from wire.content import ContentId
from wire.errors import InputError

LOOK_DEADLINE_S = 30.0


async def kept_ids(state: Path) -> list[str]:
    """The ids of the answers kept last, and of imported ones."""
    if await is_running(state):
        found = await call(state / SOCKET, "receipts", {}, unheard, deadline_s=LOOK_DEADLINE_S)
        return [str(it["receipt"]) for it in found["receipts"]]
    if not (state / "version").exists():
        return []
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        kept = [ContentId(it) for _, it in latest_rows(store, LISTED_MAX)]
        return [str(it) for it in (*kept, *(one.answer_id for one in imported(store)))]


async def kept_answer(state: Path, answer_id: ContentId) -> dict[str, bytes]:
    """An answer in the store of the state folder, through its peer where one runs; Missing."""
    if await is_running(state):
        arguments = {"id": str(answer_id)}
        return await call(state / SOCKET, "receipt", arguments, unheard, deadline_s=LOOK_DEADLINE_S)
    if not (state / "version").exists():
        raise InputError(f"{state} keeps no receipts", todo="see python -m node receipts")
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        return await read_answer(store, answer_id)
