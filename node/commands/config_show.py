"""`config show` and `logs`: the settings of the running peer, and what it noted last."""

from pathlib import Path

from node.commands.ask import SOCKET
from node.commands.output import console, safe, show_json, show_table
from node.commands.status_lines import noted_words
from node.commands.to_type import advised
from node.local.control import call, unheard

DEADLINE_S = 30.0


async def show_config(state: Path, *, as_json: bool) -> None:
    """One row for each setting: its name, its value, where that came from."""
    found = await call(state / SOCKET, "config", {}, unheard, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
        return
    rows = [(it["name"], safe(it["value"]), it["origin"]) for it in found["settings"]]
    show_table(f"the peer on {safe(state)}", ("setting", "value", "from"), rows)


async def show_logs(state: Path, *, as_json: bool) -> None:
    """The lines that the peer keeps, oldest first."""
    found = await call(state / SOCKET, "logs", {}, unheard, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
        return
    for note in found["noted"]:
        console.print(safe(advised(noted_words(note).removeprefix("noted "))))
    if not found["noted"]:
        console.print("nothing was noted since this peer started")
