"""`open`, `pause`, `resume`, `leave`: what a peer's owner has the running peer do."""

from pathlib import Path

import click

from node.commands.command import Command, run
from node.commands.options import json_option, state_option


@click.command("open", cls=Command, examples=("open", "open --state ~/second-peer --json"))
@state_option
@json_option
def open_command(*, state: Path, as_json: bool) -> None:
    """Print a link to the console of the running peer.

    The peer serves one if it was started with `join --console`. A link lets one browser in, once,
    within five minutes; for a machine without a screen: ssh -L 4750:127.0.0.1:4750 MACHINE.
    """
    from node.commands.owner import open_console_link

    run(lambda: open_console_link(state.expanduser(), as_json=as_json))


def _owner_command(name: str, help_text: str) -> click.Command:
    """A command that has the running peer do one thing."""

    @click.command(
        name, cls=Command, help=help_text, examples=(name, f"{name} --state ~/second-peer")
    )
    @state_option
    @json_option
    def command(*, state: Path, as_json: bool) -> None:
        from node.commands.owner import have_done

        run(lambda: have_done(state.expanduser(), name, as_json=as_json))

    return command


pause_command = _owner_command(
    "pause",
    "Have the running peer take no new work.\n\nWhat it took is finished. It goes on with `resume`,"
    " or once it is started again.",
)
resume_command = _owner_command(
    "resume",
    "Have a peer that was paused take work again.\n\nWhat its rules say still holds: a schedule, a"
    " battery, a busy owner.",
)
leave_command = _owner_command(
    "leave", "Have the running peer finish its work and end, as Ctrl-C does."
)
