"""`keys`: who may use this peer's gateway, and how often."""

from collections.abc import Callable
from pathlib import Path

import click

from node.commands.join import Runtime
from node.commands.options import json_option, state_option
from node.commands.output import console, safe, show_json
from node.gateway.keys import (
    PER_MINUTE_DEFAULT,
    PER_MINUTE_MAX,
    add_key,
    keys_file,
    read_keys,
    remove_key,
)


@click.group("keys")
def keys() -> None:
    """API keys of this peer's gateway. A running gateway reads them anew when they change."""


@keys.command("add")
@click.argument("name")
@click.option(
    "--per-minute",
    default=PER_MINUTE_DEFAULT,
    show_default=True,
    type=click.IntRange(1, PER_MINUTE_MAX),
    help="How often it may ask.",
)
@state_option
@json_option
@click.pass_obj
def add_command(
    runtime: Callable[[], Runtime], /, *, name: str, per_minute: int, state: Path, as_json: bool
) -> None:
    """Make a key. It is shown this once: only its hash is kept."""
    environment = runtime().environment
    file = keys_file(state.expanduser())
    secret = add_key(file, name, per_minute, environment.entropy, environment.wall_s())
    if as_json:
        show_json({"name": name, "key": secret, "per_minute": per_minute})
        return
    console.print(f"the key [bold]{safe(name)}[/bold], shown this once:\n\n  {secret}\n")


@keys.command("list")
@state_option
@json_option
def list_command(*, state: Path, as_json: bool) -> None:
    """The keys there are, without their secrets."""
    found = read_keys(keys_file(state.expanduser()))
    if as_json:
        rows = [
            {"name": it.name, "per_minute": it.per_minute, "added_at_s": it.added_at_s}
            for it in found
        ]
        show_json({"keys": rows})
        return
    for it in found:
        console.print(f"{safe(it.name)}: {it.per_minute} requests a minute")
    if not found:
        console.print("no keys: a gateway on the loopback needs none, any other does")


@keys.command("rm")
@click.argument("name")
@state_option
@json_option
def remove_command(*, name: str, state: Path, as_json: bool) -> None:
    """Take a key away; a running gateway refuses it within a second."""
    remove_key(keys_file(state.expanduser()), name)
    if as_json:
        show_json({"removed": name})
