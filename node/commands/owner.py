"""What `open`, `pause`, `resume` and `leave` do: each asks the running peer over its socket."""

from pathlib import Path

from node.commands.ask import SOCKET
from node.commands.output import console, safe, show_json
from node.local.control import call, unheard
from wire.errors import Disconnected, InputError
from wire.plural import plural

DEADLINE_S = 30.0


async def open_console_link(state: Path, *, as_json: bool) -> None:
    """Print a link that lets one browser into the console; InputError if there is none."""
    status = await call(state / SOCKET, "status", {}, unheard, deadline_s=DEADLINE_S)
    if "console" not in status:
        raise InputError(
            "the peer on this state folder serves no console",
            todo="start it with: python -m node join --console",
        )
    found = await call(state / SOCKET, "console-link", {}, unheard, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
    else:
        console.print(found["url"])


async def have_done(state: Path, command: str, *, as_json: bool) -> None:
    """Have the peer pause, go on or leave, and show what it says."""
    try:
        found = await call(state / SOCKET, command, {}, unheard, deadline_s=DEADLINE_S)
    except Disconnected:
        if command != "leave":
            raise
        # It had nothing to finish, and was gone before its word came through.
        found = {"legs_under_way": 0}
    if as_json:
        show_json(found)
    elif command == "leave":
        legs = found["legs_under_way"]
        console.print(f"it finishes {plural(legs, 'leg')} and leaves" if legs else "it leaves now")
    elif found["paused"]:
        console.print(f"paused: {safe(found['paused'])}")
    else:
        console.print("it takes work")
