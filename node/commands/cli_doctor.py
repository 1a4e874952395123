"""`doctor`: why a peer does not serve, and what to do about it."""

import os
from pathlib import Path

import click
from click.core import ParameterSource

from node.commands.cli_peer import ADDRESS, PORT_DEFAULT
from node.commands.command import Assembly, Command, run
from node.commands.options import json_option, state_option
from wire.errors import InputError


@click.command(
    "doctor", cls=Command, examples=("doctor", f"doctor {ADDRESS}", "doctor --all --fix")
)
@click.argument("bootstrap", nargs=-1)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port that `join` is to be given, to look at while no peer runs. Default: the one that"
    f" its service names, or of its earlier starts, or {PORT_DEFAULT}.",
)
@click.option("--all", "everything", is_flag=True, help="Show also what is in order.")
@click.option(
    "--fix", is_flag=True, help="Mend what needs no root and is safe: modes of the state folder."
)
@state_option
@json_option
@click.pass_context
def doctor_command(
    context: click.Context,
    /,
    *,
    bootstrap: tuple[str, ...],
    port: int | None,
    everything: bool,
    fix: bool,
    state: Path,
    as_json: bool,
) -> int:
    """Find out why this machine's peer does not serve.

    It works while the peer runs, is stopped, or cannot start; with BOOTSTRAP it also calls the
    peers at these addresses. Exits 0 only if nothing is bad.
    """
    from node.commands.doctor import Patient, doctor

    state = state.expanduser()
    named = context.get_parameter_source("state") is not ParameterSource.DEFAULT
    # A link is looked at by itself: who may not look behind it is told so by a finding.
    if named and not os.path.lexists(state):
        raise InputError(
            f"there is no state folder {state}",
            todo="name a peer's, as it was given to join --state; without --state it is ~/.baton",
        )
    patient = Patient(state=state, port=port, bootstraps=bootstrap)
    assembly: Assembly = context.obj
    code: int = run(
        lambda: doctor(patient, assembly.runtime(), as_json=as_json, fix=fix, everything=everything)
    )
    return code
