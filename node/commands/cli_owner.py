"""`completion`, `config`, `logs`, `top`: what a shell and a peer's owner want to know."""

from pathlib import Path

import click

from node.commands.command import Command, Group, run
from node.commands.options import json_option, state_option

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    cls=Command,
    examples=("completion bash", "completion zsh", "completion fish"),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, *, shell: str) -> None:
    """Print a script that completes `baton` commands in a shell.

    It completes the installed command (pip install .). Append it to ~/.bashrc or ~/.zshrc, or
    write it to ~/.config/fish/completions/baton.fish.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    made = found(context.find_root().command, {}, "baton", "_BATON_COMPLETE")
    # The script's own text: click's `source()` first asks which bash there is, which a pipe lacks.
    click.echo(made.source_template % made.source_vars())


@click.group("config", cls=Group, examples=("config show",))
def config_group() -> None:
    """See with which settings the peer of a state folder runs."""


@config_group.command("show", cls=Command, examples=("config show", "config show --json"))
@state_option
@json_option
def show_command(*, state: Path, as_json: bool) -> None:
    """Show the settings of the running peer, and their origins."""
    from node.commands.config_show import show_config

    run(lambda: show_config(state.expanduser(), as_json=as_json))


@click.command("logs", cls=Command, examples=("logs", "logs --state ~/second-peer --json"))
@state_option
@json_option
def logs_command(*, state: Path, as_json: bool) -> None:
    """Show what the running peer noted last."""
    from node.commands.config_show import show_logs

    run(lambda: show_logs(state.expanduser(), as_json=as_json))


@click.command("top", cls=Command, examples=("top", "top --every 5"))
@click.option(
    "--every",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.2, 3600),
    help="How many seconds lie between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, show the second, and end.")
@state_option
def top_command(*, every: float, once: bool, state: Path) -> None:
    """Watch the running peer.

    Tasks, units of work a second, peers, models, memory and GPUs are shown until Ctrl-C.
    """
    from node.commands.top import top

    run(lambda: top(state.expanduser(), every, once=once))
