"""`keys`: who may use this peer's gateway, and how often."""

from pathlib import Path

import click

from node.commands.command import Assembly, Command, Group
from node.commands.options import json_option, state_option
from node.gateway.keys import (
    PER_MINUTE_DEFAULT,
    PER_MINUTE_MAX,
    add_key,
    keys_file,
    read_keys,
    remove_key,
)


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
@state_option
@json_option
@click.pass_obj
def add_command(
    assembly: Assembly, /, *, name: str, per_minute: int, state: Path, as_json: bool
) -> None:
    """Make a key called NAME, and show it this once.

    Only its hash is kept, so it cannot be shown again.
    """
    from node.commands.output import console, safe, show_json

    file = keys_file(state.expanduser())
    secret = add_key(file, name, per_minute, assembly.entropy, assembly.wall_s())
    if as_json:
        show_json({"name": name, "key": secret, "per_minute": per_minute})
        return
    console.print(f"the key [bold]{safe(name)}[/bold], which is shown only now:\n\n  {secret}\n")


@keys.command("list", cls=Command, examples=("keys list",))
@state_option
@json_option
def list_command(*, state: Path, as_json: bool) -> None:
    """List the names and the limits of the keys."""
    from node.commands.output import console, safe, show_json

    found = read_keys(keys_file(state.expanduser()))
    if as_json:
        rows = [
            {"name": it.name, "per_minute": it.per_minute, "added_at_s": it.added_at_s}
            for it in found
        ]
        show_json({"keys": rows})
        return
    for key in found:
        console.print(f"{safe(key.name)}: {key.per_minute} requests a minute")
    if not found:
        console.print("there are no keys; a gateway needs one unless it listens on the loopback")


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
