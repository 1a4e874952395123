"""`receipts`: kept answers listed, shown, written to files and taken from them.

With a peer running on the state folder this works through it, else on the folder alone.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.asking import as_maps
from node.asking.answers import Answered, Answers
from node.commands.ask import SOCKET, show_route
from node.commands.models import QUOTA_BYTES, is_running
from node.commands.output import console, safe, short, show_json, show_table, size
from node.commands.receipt_file import read_receipt
from node.commands.to_type import hint
from node.local.bundles import export_receipt, import_receipt
from node.local.control import call, unheard
from node.local.receipts import list_receipts
from node.models.model_store import ModelStore
from store import Store, open_store
from wire.amount import show_credits
from wire.content import ContentId
from wire.errors import InputError, Malformed, WireError
from wire.plural import plural
from wire.receipt import Answer
from wire.signed import open_signed

LOOK_DEADLINE_S = 30.0
COPY_DEADLINE_S = 3600.0
# Names are shorter than that, content ids are not.
ID_CHARS = 50


async def list_kept(state: Path, *, as_json: bool) -> None:
    """Show the answers that are kept, latest first, then what was imported."""
    if await is_running(state):
        found = await call(state / SOCKET, "receipts", {}, unheard, deadline_s=LOOK_DEADLINE_S)
    else:
        async with open_kept(state) as store:
            found = await list_receipts(Answers(store), ModelStore(store).manifest_of)
    if as_json:
        show_json(found)
    else:
        _show_list(found)


def show(state: Path, receipt: str, *, as_json: bool) -> None:
    """Show who did what for an answer; it is read, and its signatures are checked, no more."""
    raw = read_receipt(state, receipt).answer
    try:
        answer = open_signed(raw, Answer)
        told = as_maps.answer_map(Answered(answer=answer, output=b"", kept_before=True))
    except WireError as error:
        raise InputError(
            f"the receipt cannot be read: {error.message}",
            todo=f"see what is wrong with it: python -m node verify {receipt}",
        ) from error
    if as_json:
        show_json(told)
        return
    console.print(f"[bold]receipt {told['receipt']}[/bold]")
    console.print(f"  task {told['task']}, asked by {short(str(answer.signer))}")
    console.print(f"  answered {_time(told)} UTC after {told['duration_ms'] / 1000:.2f} s")
    for leg in told["route"]:
        console.print(f"  leg {leg['leg']}: input {leg['input']}\n         output {leg['output']}")
        if leg["model"] is not None:
            console.print(f"         model {leg['model']}, {safe(leg['profile'])}")
    show_route(told)
    console.print(hint(f"\ncheck it: python -m node verify {safe(receipt)}"))


async def export(state: Path, receipt: str, output: Path | None, *, as_json: bool) -> None:
    """Write a kept answer to a file: a bundle if its name ends in .car, else the receipt alone."""
    answer_id = _id_of(receipt)
    path = (output or Path(f"{answer_id}.car")).expanduser().absolute()
    if await is_running(state):
        arguments = {"id": str(answer_id), "path": str(path)}
        found = await call(
            state / SOCKET, "receipts-export", arguments, unheard, deadline_s=COPY_DEADLINE_S
        )
    else:
        async with open_kept(state) as store:
            found = await export_receipt(store, answer_id, path)
    if as_json:
        show_json(found)
        return
    beside = f", with {found['blobs']} inputs and outputs" if path.suffix == ".car" else ""
    log = ", with its place in a log" if found["log"] else ""
    console.print(f"{size(found['size_bytes'])} in {safe(path)}{beside}{log}")
    console.print(hint(f"check it: python -m node verify {safe(path)}"))


async def take(state: Path, path: Path, now_ms: int, *, as_json: bool) -> None:
    """Keep a receipt that somebody else gave; InputError if it does not hold."""
    path = path.expanduser().absolute()
    if await is_running(state):
        arguments = {"path": str(path)}
        found = await call(
            state / SOCKET, "receipts-import", arguments, unheard, deadline_s=COPY_DEADLINE_S
        )
    else:
        async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
            found = await import_receipt(store, path, now_ms)
    if as_json:
        show_json(found)
        return
    before = " (it was imported before)" if found["known_before"] else ""
    console.print(f"imported {found['receipt']}{before}")
    if found["disputed"]:
        console.print("[bold red]it is disputed: do not rely on it[/bold red]")
    console.print(hint(f"check it: python -m node verify {found['receipt']}"))


def _id_of(receipt: str) -> ContentId:
    """The id of an answer, which may be typed as the name of its file."""
    name = Path(receipt).name.removesuffix(".receipt")
    try:
        return ContentId.parse(name)
    except Malformed as error:
        raise InputError(
            f"{receipt[:80]!r} is not the id of a receipt",
            todo="see the ids: python -m node receipts",
        ) from error


@asynccontextmanager
async def open_kept(state: Path) -> AsyncIterator[Store]:
    """The store of a folder that no peer runs on; InputError if it is no peer's."""
    if not (state / "version").exists():
        raise InputError(
            f"{state} is no peer's folder", todo="name the folder of your peer with --state"
        )
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        yield store


def _show_list(found: Mapping[str, Any]) -> None:
    rows = [
        (
            _time(it),
            safe(_name(it["model_name"])),
            it["route"][-1]["operation"],
            _verdict(it),
            "free" if not it["charged"] else show_credits(it["charged"]),
            f"{it['duration_ms'] / 1000:.2f} s",
            it["receipt"],
        )
        for it in found["receipts"]
    ]
    columns = ("time (UTC)", "model", "operation", "verdict", "price", "took", "receipt")
    more = f", and {found['left_out']} more" if found["left_out"] else ""
    show_table(f"{plural(len(rows), 'answer')}, latest first{more}", columns, rows)


def _time(row: Mapping[str, Any]) -> str:
    return datetime.fromtimestamp(row["answered_at_ms"] / 1000, UTC).strftime("%m-%d %H:%M:%S")


def _name(called: str) -> str:
    """A model's name as it is, or the end of its id."""
    return called if len(called) < ID_CHARS else short(called)


def _verdict(row: Mapping[str, Any]) -> str:
    """Whether an answer was checked, and what is thought of it since."""
    agree = sum(it["agrees"] for it in row["verdicts"])
    first = f"{agree} of {len(row['verdicts'])} agree" if row["needed"] else "not checked"
    return first + _LATER.get(row["later"], "") + ("; imported" if row.get("imported") else "")


_LATER = {
    "wrong": "; doubtful: found wrong later by 2 of 3",
    "suspect": "; doubtful: its peer was found lying later",
    "held": "; confirmed when checked again",
}
