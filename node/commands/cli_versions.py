"""`versions`: what this Baton runs on, by name and version, to compare with known advisories."""

import platform
from importlib import metadata

import click

from node.commands.command import Command
from node.commands.options import json_option


def installed() -> dict[str, str]:
    """Every library of this Python environment and its version, by its normalised name."""
    found = {
        it.name.lower().replace("_", "-").replace(".", "-"): it.version
        for it in metadata.distributions()
        # A folder that was only half removed has no name.
        if it.name
    }
    return dict(sorted(found.items()))


@click.command("versions", cls=Command, examples=("versions", "versions --json"))
@json_option
def versions_command(*, as_json: bool) -> None:
    """Name every library that is installed here, with its version.

    One line each, as a requirements file, which pip-audit reads: `… versions > all.txt` and then
    `pip-audit -r all.txt` say what is known against them.
    """
    from node.commands.output import show_json

    libraries = installed()
    if as_json:
        show_json({"python": platform.python_version(), "libraries": libraries})
        return
    click.echo(f"# python {platform.python_version()}")
    for name, version in libraries.items():
        click.echo(f"{name}=={version}")
