"""`doctor`: why a peer does not serve, and what to do about it."""

from pathlib import Path

import click

from node.commands.cli_peer import ADDRESS, PORT_DEFAULT
from node.commands.command import Assembly, Command, run
from node.commands.options import json_option, state_option


@click.command(
    "doctor", cls=Command, examples=("doctor", f"doctor {ADDRESS}", "doctor --all --fix")
)
@click.argument("bootstrap", nargs=-1)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=PORT_DEFAULT,
    show_default=True,
    help="The port to look at while no peer runs; of a running peer it is known.",
)
@click.option("--all", "everything", is_flag=True, help="Show also what is in order.")
@click.option(
    "--fix", is_flag=True, help="Mend what needs no root and is safe: modes of the state folder."
)
@state_option
@json_option
@click.pass_obj
def doctor_command(
    assembly: Assembly,
    /,
    *,
    bootstrap: tuple[str, ...],
    port: int,
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

    patient = Patient(state=state.expanduser(), port=port, bootstraps=bootstrap)
    code: int = run(
        lambda: doctor(patient, assembly.runtime(), as_json=as_json, fix=fix, everything=everything)
    )
    return code
