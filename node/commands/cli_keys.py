"""`keys`: who may use this peer's gateway, how often, and for how much."""

from pathlib import Path
from typing import Any

import click

from node.commands.command import Assembly, Command, Group
from node.commands.options import json_option, state_option
from node.gateway.keys import (
    PER_MINUTE_DEFAULT,
    PER_MINUTE_MAX,
    add_key,
    allow_more,
    keys_file,
    read_keys,
    remove_key,
)
from wire.amount import read_credits, show_credits
from wire.errors import BatonError

LOOK_S = 10.0


@click.group("keys", cls=Group, examples=("keys add laptop --per-minute 600", "keys list"))
def keys() -> None:
    """Manage the API keys of this peer's gateway.

    A running gateway notices within a second when they change.
    """


@keys.command(
    "add", cls=Command, examples=("keys add laptop", "keys add build-server --per-minute 60")
)
@click.argument("name")
@click.option(
    "--per-minute",
    default=PER_MINUTE_DEFAULT,
    show_default=True,
    type=click.IntRange(1, PER_MINUTE_MAX),
    help="How many requests a minute may be made with this key.",
)
@click.option(
    "--credits",
    "budget",
    help="How many credits may be spent with this key, as 50: by what peers ask, and by"
    " --http-price. Default: only what costs nothing is asked for.",
)
@state_option
@json_option
@click.pass_obj
def add_command(
    assembly: Assembly,
    /,
    *,
    name: str,
    per_minute: int,
    budget: str | None,
    state: Path,
    as_json: bool,
) -> None:
    """Make a key called NAME, and show it this once.

    Only its hash is kept, so it cannot be shown again.
    """
    from node.commands.output import console, safe, show_json

    file = keys_file(state.expanduser())
    most = None if budget is None else read_credits(budget)
    secret = add_key(file, name, per_minute, assembly.entropy, assembly.wall_s(), most)
    if as_json:
        more = {} if most is None else {"credits": most}
        show_json({"name": name, "key": secret, "per_minute": per_minute, **more})
        return
    console.print(f"the key [bold]{safe(name)}[/bold], which is shown only now:\n\n  {secret}\n")


@keys.command("list", cls=Command, examples=("keys list",))
@state_option
@json_option
def list_command(*, state: Path, as_json: bool) -> None:
    """List the names and the limits of the keys, and what was spent."""
    from node.commands.output import console, safe, show_json

    found = read_keys(keys_file(state.expanduser()))
    spending = _spending(state.expanduser()) if any(it.credits is not None for it in found) else {}
    if as_json:
        rows = [
            {
                "name": it.name,
                "per_minute": it.per_minute,
                "added_at_s": it.added_at_s,
                "credits": it.credits,
                "spent": spending.get(it.name, {}).get("spent"),
            }
            for it in found
        ]
        show_json({"keys": rows})
        return
    for key in found:
        told = f"{safe(key.name)}: {key.per_minute} requests a minute"
        if key.credits is not None:
            spent = spending.get(key.name, {}).get("spent")
            said = "nothing that a running gateway told" if spent is None else show_credits(spent)
            told += f", {show_credits(key.credits)} credits, spent: {said}"
        console.print(told)
    if not found:
        console.print("there are no keys; a gateway needs one unless it listens on the loopback")


@keys.command("allow", cls=Command, examples=("keys allow laptop 20",))
@click.argument("name")
@click.argument("more")
@state_option
@json_option
def allow_command(*, name: str, more: str, state: Path, as_json: bool) -> None:
    """Let MORE credits be spent with the key called NAME."""
    from node.commands.output import console, safe, show_json

    key = allow_more(keys_file(state.expanduser()), name, read_credits(more))
    if as_json:
        show_json({"name": name, "credits": key.credits})
    else:
        console.print(f"{safe(name)} may spend {show_credits(key.credits or 0)} credits in all")


def _spending(state: Path) -> dict[str, Any]:
    """What the running gateway says that was spent, by the names of keys; nothing if none is up."""
    import trio

    from node.commands.ask import SOCKET
    from node.local.control import call, unheard

    found: dict[str, Any] = {}

    async def look() -> None:
        try:
            told = await call(state / SOCKET, "status", {}, unheard, deadline_s=LOOK_S)
            found.update(told.get("keys", {}))
        except BatonError:
            # Without a gateway the limits are told all the same.
            return

    trio.run(look)
    return found


@keys.command("rm", cls=Command, examples=("keys rm laptop",))
@click.argument("name")
@state_option
@json_option
def remove_command(*, name: str, state: Path, as_json: bool) -> None:
    """Delete the key called NAME. A running gateway refuses it within a second."""
    from node.commands.output import show_json

    remove_key(keys_file(state.expanduser()), name)
    if as_json:
        show_json({"removed": name})
