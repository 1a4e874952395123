"""`workflows`: a source, a model and a destination, run on a schedule by the running peer."""

from pathlib import Path

import click

from node.commands.command import Command, Group, run
from node.commands.options import json_option, state_option

EXAMPLE = "forecast.toml"


@click.group(
    "workflows",
    cls=Group,
    examples=(f"workflows add ./{EXAMPLE}", "workflows list", "workflows history forecast"),
)
def workflows() -> None:
    """Run sources through models on a schedule.

    A workflow is a small TOML file: every = "5m" (or cron = "0 9 * * 1-5" with a zone), [source],
    [model], and [[to]] for each place where results go. The running peer of --state keeps it, also
    over restarts: each slot has one result.
    """


@workflows.command(
    "add",
    cls=Command,
    examples=(
        f"workflows add ./{EXAMPLE}",
        f"workflows add ./{EXAMPLE} --standby-of FEED@KEY",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--standby-of",
    default="",
    metavar="FEED@KEY",
    help="Stand by for this keeper, whose file has to be the same.",
)
@state_option
@json_option
def add_command(*, file: Path, standby_of: str, state: Path, as_json: bool) -> None:
    """Keep the workflow that FILE describes, and run it.

    It is called as its file says, or else as the file is called. A file whose standbys = ["KEY"]
    names other peers can be added at these too: one of them goes on when the keeper was silent for
    the time takeover (2m). An edited file is not taken for a workflow that is kept: rm it first.
    """
    from node.commands.workflows import add

    run(lambda: add(state.expanduser(), file, standby_of, as_json=as_json))


@workflows.command("list", cls=Command, examples=("workflows list",))
@state_option
@json_option
def list_command(*, state: Path, as_json: bool) -> None:
    """List the workflows, each with its next slot."""
    from node.commands.workflows import list_workflows

    run(lambda: list_workflows(state.expanduser(), as_json=as_json))


@workflows.command("show", cls=Command, examples=("workflows show forecast",))
@click.argument("name")
@state_option
@json_option
def show_command(*, name: str, state: Path, as_json: bool) -> None:
    """Show a workflow, and what waits to be delivered."""
    from node.commands.workflows import show

    run(lambda: show(state.expanduser(), name, as_json=as_json))


@workflows.command("run", cls=Command, examples=("workflows run forecast",))
@click.argument("name")
@state_option
@json_option
def run_command(*, name: str, state: Path, as_json: bool) -> None:
    """Run a workflow now, out of turn, and show its result."""
    from node.commands.workflows import run_now

    run(lambda: run_now(state.expanduser(), name, as_json=as_json))


@workflows.command(
    "history",
    cls=Command,
    examples=("workflows history forecast", "workflows history forecast --count 100"),
)
@click.argument("name")
@click.option(
    "--count",
    default=20,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="How many of the last slots are shown.",
)
@state_option
@json_option
def history_command(*, name: str, count: int, state: Path, as_json: bool) -> None:
    """Show what became of the last slots, and their receipts."""
    from node.commands.workflows import history

    run(lambda: history(state.expanduser(), name, count, as_json=as_json))


@workflows.command("pause", cls=Command, examples=("workflows pause forecast",))
@click.argument("name")
@state_option
@json_option
def pause_command(*, name: str, state: Path, as_json: bool) -> None:
    """Begin no slot until the workflow is resumed.

    A run that has begun is finished. Slots that pass meanwhile are missed, by whatever rule.
    """
    from node.commands.workflows import change

    run(lambda: change(state.expanduser(), "pause", name, as_json=as_json))


@workflows.command("resume", cls=Command, examples=("workflows resume forecast",))
@click.argument("name")
@state_option
@json_option
def resume_command(*, name: str, state: Path, as_json: bool) -> None:
    """Go on with a workflow that was paused."""
    from node.commands.workflows import change

    run(lambda: change(state.expanduser(), "resume", name, as_json=as_json))


@workflows.command("rm", cls=Command, examples=("workflows rm forecast",))
@click.argument("name")
@state_option
@json_option
def remove_command(*, name: str, state: Path, as_json: bool) -> None:
    """Forget a workflow and its history.

    Files that results were written to stay, and so do receipts that are kept anyway.
    """
    from node.commands.workflows import change

    run(lambda: change(state.expanduser(), "rm", name, as_json=as_json))


@workflows.command("follow", cls=Command, examples=("workflows follow FEED@KEY",))
@click.argument("feed", metavar="FEED@KEY")
@state_option
@json_option
def follow_command(*, feed: str, state: Path, as_json: bool) -> None:
    """Follow the feed of another peer's workflow.

    Its entries are checked and kept here, with their results. The keeper of the feed shows its name
    with workflows list --json; its workflow needs a [[to]] of the kind "feed".
    """
    from node.commands.workflows import follow

    run(lambda: follow(state.expanduser(), feed, as_json=as_json))


@workflows.command("export", cls=Command, examples=("workflows export forecast 12 ./twelve.entry",))
@click.argument("name", metavar="NAME|FEED@KEY")
@click.argument("number", type=click.IntRange(1))
@click.argument("file", type=click.Path(path_type=Path))
@state_option
@json_option
def export_command(*, name: str, number: int, file: Path, state: Path, as_json: bool) -> None:
    """Write one entry to a file that anybody can verify."""
    from node.commands.workflows import export

    run(lambda: export(state.expanduser(), name, number, file, as_json=as_json))
