"""`app`: apps of this peer, whose keys gateways of the network take."""

from pathlib import Path
from typing import Any

import click

from node.commands.command import Assembly, Command, Group, run
from node.commands.options import json_option, state_option

app_option = click.option("--app", "app", required=True, help="The app that the key is of.")


@click.group("app", cls=Group, examples=("app new reader --mode open", "app usage"))
def app_group() -> None:
    """Let others use the network on your word, at any gateway.

    A gateway asks this peer what a key may do, so it has to be up. Gateways on other machines take
    such keys where their owners run them with --http-apps.
    """


@app_group.command(
    "new",
    cls=Command,
    examples=(
        "app new reader --mode open --users-pay",
        "app new writer --mode call --price 0.001 --owner-pays 0.01",
        "app new magazine --mode subscription --price 2 --period 30d",
    ),
)
@click.argument("name")
@click.option(
    "--mode",
    type=click.Choice(["open", "call", "hold", "subscription"]),
    default="open",
    show_default=True,
    help="open: a key is enough. call: each call takes --price from its key's budget. hold: the"
    " key's account has held --hold credits for two epochs. subscription: it has paid this peer"
    " --price for each --period.",
)
@click.option("--price", help="What a call takes from its key's budget, or a period costs.")
@click.option("--hold", help="How many credits an account has to hold.")
@click.option("--period", help="How long a payment lasts in the mode subscription: 30d, 12h.")
@click.option(
    "--owner-pays",
    metavar="MOST",
    help="In the mode call: pay gateways of other peers up to so many credits for each call, within"
    " its key's budget.",
)
@click.option(
    "--users-pay",
    is_flag=True,
    help="Gateways that have prices have each request paid by its user (x402), beside the key.",
)
@state_option
@json_option
@click.pass_obj
def new_command(
    assembly: Assembly,
    /,
    *,
    name: str,
    mode: str,
    price: str | None,
    hold: str | None,
    state: Path,
    as_json: bool,
    **asked: Any,
) -> None:
    """Make an app called NAME."""
    from node.commands.apps import new_app

    new_app(
        state.expanduser(),
        (name, mode, price, hold, asked["period"], asked["owner_pays"]),
        assembly.wall_s(),
        users_pay=asked["users_pay"],
        as_json=as_json,
    )


@app_group.command("list", cls=Command, examples=("app list",))
@state_option
@json_option
def list_command(*, state: Path, as_json: bool) -> None:
    """List the apps of this peer, and what they ask."""
    from node.commands.apps import list_apps

    list_apps(state.expanduser(), as_json=as_json)


@app_group.command("usage", cls=Command, examples=("app usage",))
@state_option
@json_option
def usage_command(*, state: Path, as_json: bool) -> None:
    """Show what gateways say that keys were used for.

    Gateways tell it within a minute; nothing about prompts or answers is told.
    """
    from node.commands.apps import show_usage

    run(lambda: show_usage(state.expanduser(), as_json=as_json))


@app_group.group("key", cls=Group, examples=("app key add ada --app reader", "app key list"))
def key_group() -> None:
    """Give out keys of an app, and revoke them."""


@key_group.command(
    "add",
    cls=Command,
    examples=(
        "app key add ada --app reader",
        "app key add ada --app writer --budget 5 --until 2030-01-31",
        "app key add ada --app club --account 12D3KooW…",
    ),
)
@click.argument("label")
@app_option
@click.option("--budget", help="How many credits calls with it may take, in the mode call.")
@click.option("--until", help="The day it ends, as 2030-01-31 (UTC). Default: in 90 days.")
@click.option(
    "--per-minute", default=60, show_default=True, type=int, help="Requests a minute, per gateway."
)
@click.option(
    "--account", metavar="PEER", help="Whose credits count, in the modes hold and subscription."
)
@state_option
@json_option
@click.pass_obj
def key_add_command(
    assembly: Assembly,
    /,
    *,
    label: str,
    app: str,
    state: Path,
    as_json: bool,
    **asked: Any,
) -> None:
    """Make a key called LABEL, and show it this once."""
    from node.commands.apps import add_key

    add_key(
        assembly,
        state.expanduser(),
        (app, label, asked["budget"], asked["until"], asked["per_minute"], asked["account"]),
        as_json=as_json,
    )


@key_group.command("revoke", cls=Command, examples=("app key revoke ada --app reader",))
@click.argument("label")
@app_option
@state_option
@json_option
@click.pass_obj
def key_revoke_command(
    assembly: Assembly, /, *, label: str, app: str, state: Path, as_json: bool
) -> None:
    """Revoke a key for good: within a minute no gateway takes it.

    A gateway that cannot ask this peer refuses every key of its apps after that minute.
    """
    from node.commands.apps import revoke

    revoke(state.expanduser(), app, label, assembly.wall_s(), as_json=as_json)


@key_group.command("list", cls=Command, examples=("app key list",))
@state_option
@json_option
def key_list_command(*, state: Path, as_json: bool) -> None:
    """List the keys of all apps, without their secrets."""
    from node.commands.apps import list_keys

    list_keys(state.expanduser(), as_json=as_json)
