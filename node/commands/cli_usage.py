"""`usage`: who uses a network, and whether they come back."""

from pathlib import Path

import click

from node.commands.command import Command, run
from node.commands.options import json_option, state_option


@click.command(
    "usage",
    cls=Command,
    examples=(
        "usage --cohorts",
        "usage --offline all.ledger --html usage.html",
        "usage --by app",
    ),
)
@click.option("--cohorts", is_flag=True, help="Also show who came back, by the week of first use.")
@click.option(
    "--by",
    type=click.Choice(("account", "app", "model")),
    help="Also list what was paid: by the account that paid, or the model that vouchers named. Or"
    " what keys of this peer's apps were used for: that is in no ledger, gateways tell it.",
)
@click.option(
    "--offline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A ledger that was exported, instead of asking the network for it.",
)
@click.option(
    "--genesis",
    type=click.Path(path_type=Path),
    help="The genesis file of the network that the ledger has to be of.",
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with the curve."
)
@click.option("--week", default="7d", show_default=True, help="What counts as a week.")
@click.option(
    "--market",
    "markets",
    multiple=True,
    metavar="KEY",
    help="An account that buys from many and sells to many: credits that go round through it make"
    " nobody an owner of others. May be given several times.",
)
@state_option
@json_option
def usage_command(
    *,
    offline: Path | None,
    genesis: Path | None,
    html: Path | None,
    state: Path,
    as_json: bool,
    **typed: object,
) -> None:
    """Show who pays for tasks, and whether they come back.

    Every number comes from a ledger that is checked first, so anybody gets the same. Accounts that
    pay each other in a circle are shown as one owner beside that, and what faking use costs.
    """
    from node.commands.usage import Looking, show_usage

    wanted = Looking.of(typed, offline=offline, genesis=genesis, html=html)
    run(lambda: show_usage(wanted, state.expanduser(), as_json=as_json))
