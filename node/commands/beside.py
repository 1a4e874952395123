"""Receipts written to files, with what was fetched beside them: where `verify` finds it all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from node.commands.ask import SOCKET, save_receipt
from node.ingest.tokenise import tables_of
from node.local.control import call, unheard
from wire.fetch import AttestedFetch

# How long content may take that a running peer has by then.
CONTENT_S = 120.0
# What lies beside a receipt, and which content it is.
FETCH_BESIDE = {".fetch": "record", ".body": "body", ".extracted": "extracted"}
# The published table of words that the preparation needs; there is one at most.
TABLE_SUFFIX = ".table"
_CALL_BESIDE = {".input": ("input_payload", "input"), ".output": ("payload", "output")}


async def keep_fetch(state: Path, result: Mapping[str, Any]) -> Path:
    """Write the receipt of a fetch, with what was fetched beside it."""
    saved = await trio.to_thread.run_sync(save_receipt, state, result)
    for suffix, content in FETCH_BESIDE.items():
        await get_content(state, result[content], saved.with_suffix(suffix))
    record = await trio.Path(saved.with_suffix(".fetch")).read_bytes()
    for table in tables_of(AttestedFetch.from_bytes(record).extraction):
        await get_content(state, str(table), saved.with_suffix(TABLE_SUFFIX))
    return saved


async def keep_call(state: Path, result: Mapping[str, Any]) -> Path:
    """Write the receipt of a call whose input was fetched, and those of the fetches."""
    for one in result["fetched"]:
        await keep_fetch(state, {**one, "input_payload": b""})
    saved = await trio.to_thread.run_sync(save_receipt, state, result)
    for suffix, (payload, content) in _CALL_BESIDE.items():
        # What is large did not come with the result.
        if not result[payload]:
            await get_content(state, result[content], saved.with_suffix(suffix))
    return saved


async def get_content(state: Path, content: str, path: Path) -> None:
    """Have the running peer write content to a file."""
    asked = {"id": content, "path": str(path.absolute())}
    await call(state / SOCKET, "get", asked, unheard, deadline_s=CONTENT_S)
