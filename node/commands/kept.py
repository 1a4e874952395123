"""Answers that are kept in the state folder, for commands that look at one."""

from pathlib import Path

from node.commands.ask import SOCKET
from node.commands.models import QUOTA_BYTES, is_running
from node.local.control import call, unheard
from node.local.receipts import read_answer
from store import open_store
from wire.content import ContentId
from wire.errors import InputError

LOOK_DEADLINE_S = 30.0


async def kept_answer(state: Path, answer_id: ContentId) -> dict[str, bytes]:
    """An answer in the store of the state folder, through its peer where one runs; Missing."""
    if await is_running(state):
        arguments = {"id": str(answer_id)}
        return await call(state / SOCKET, "receipt", arguments, unheard, deadline_s=LOOK_DEADLINE_S)
    if not (state / "version").exists():
        raise InputError(f"{state} keeps no receipts", todo="see python -m node receipts")
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        return await read_answer(store, answer_id)
