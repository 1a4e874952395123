"""`sources`: outside data that this peer brings in, and how it looks once it is in."""

from pathlib import Path

import click

from node.commands.command import Assembly, Command, Group, run
from node.commands.options import deadline_option, json_option, state_option

EXAMPLE = "prices.toml"


@click.group(
    "sources",
    cls=Group,
    examples=("sources add prices ./prices.toml", "sources test prices", "sources list"),
)
def sources() -> None:
    """Manage the outside data that this peer brings in.

    A source is a small TOML file. A running data peer notices at once when sources change.
    """


@sources.command(
    "add",
    cls=Command,
    examples=(f"sources add prices ./{EXAMPLE}", f"sources add prices ./{EXAMPLE} --allow-host"),
)
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--allow-host",
    is_flag=True,
    help="Let this peer reach the source's host and port, at a private address too.",
)
@state_option
@json_option
def add_command(*, name: str, file: Path, allow_host: bool, state: Path, as_json: bool) -> None:
    """Keep the source that FILE describes, under NAME."""
    from node.commands.sources import add

    add(state.expanduser(), name, file, allow_host=allow_host, as_json=as_json)


@sources.command("list", cls=Command, examples=("sources list",))
@state_option
@json_option
def list_command(*, state: Path, as_json: bool) -> None:
    """List the sources of this peer, with their content ids."""
    from node.commands.sources import list_sources

    list_sources(state.expanduser(), as_json=as_json)


@sources.command("rm", cls=Command, examples=("sources rm prices",))
@click.argument("name")
@state_option
@json_option
def remove_command(*, name: str, state: Path, as_json: bool) -> None:
    """Forget a source."""
    from node.commands.sources import remove

    remove(state.expanduser(), name, as_json=as_json)


@sources.command(
    "test", cls=Command, examples=("sources test prices", f"sources test ./{EXAMPLE} --rows 20")
)
@click.argument("what", metavar="NAME|NAME:PATH|FILE")
@click.option(
    "--rows",
    default=10,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="How many rows, or lines of text, are shown.",
)
@state_option
@json_option
@click.pass_obj
def test_command(
    assembly: Assembly, /, *, what: str, rows: int, state: Path, as_json: bool
) -> None:
    """Fetch a source here and now, and show what comes out.

    It is a source of this peer, one of its files, or a TOML file that is not added yet. Nothing
    is sent to other peers, and nothing is kept.
    """
    from node.commands.sources import test

    run(lambda: test(state.expanduser(), what, rows, assembly.wall_s, as_json=as_json))


@sources.command(
    "fetch",
    cls=Command,
    examples=(
        "sources fetch prices",
        f"sources fetch ./{EXAMPLE}",
        f'sources fetch ./{EXAMPLE} --quorum 3 --agree "median 0.5%" --pay-max 0.03',
    ),
)
@click.argument("what", metavar="NAME|FILE")
@deadline_option(60, "After how many seconds the task has failed.")
@click.option(
    "--quorum",
    default=1,
    show_default=True,
    type=click.IntRange(1, 16),
    help="How many data peers fetch it, each for itself. More than half of them have to agree.",
)
@click.option(
    "--agree",
    default="majority",
    show_default=True,
    help="When they agree: exact (all the same), majority (more than half the same), or median"
    " 0.5% (numbers within that of their median). With within 30s: fetched in that time.",
)
@click.option(
    "--pay-max", help="What all fetches may cost, in credits; each its part. Default: nothing."
)
@state_option
@json_option
def fetch_command(
    *,
    what: str,
    deadline: int,
    quorum: int,
    agree: str,
    pay_max: str | None,
    state: Path,
    as_json: bool,
) -> None:
    """Have a data peer fetch a source, and keep its receipt.

    The running peer of --state asks, and what came is kept beside the receipt. Give a source's
    name at data peers, or a TOML file, which is sent to a data peer whose owner lets others fetch
    from its host.
    """
    from node.commands.sources import fetch
    from wire.amount import read_credits

    terms = None if quorum == 1 else (quorum, agree)
    most = 0 if pay_max is None else read_credits(pay_max)
    run(lambda: fetch(state.expanduser(), what, deadline, terms, most, as_json=as_json))
