"""`upgrade`: another version beside the one that runs, and back to that by itself."""

from pathlib import Path

import click

from node.commands.command import Assembly, Command, run
from node.commands.options import json_option, state_option
from wire.errors import InputError


@click.command(
    "upgrade",
    cls=Command,
    examples=(
        "upgrade baton-0.2.0-py3-none-any.whl",
        "upgrade ~/release --release-key ~/baton.pub",
        "upgrade --back",
    ),
)
@click.argument(
    "release", required=False, type=click.Path(path_type=Path), metavar="[WHEEL_OR_FOLDER]"
)
@click.option(
    "--release-key",
    help="The key of whose release it has to be: the line of a minisign key, or a file with it."
    " SHA256SUMS and SHA256SUMS.minisig then lie beside the wheel.",
)
@click.option(
    "--index",
    default="",
    metavar="URL",
    help="The index of packages that its libraries come from, such as https://HOST/simple/; PyPI by"
    " default. What pip and uv are set to is not heard. Wherever from: by the release's hashes.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Take the libraries that it needs from wheels beside it, and ask no index.",
)
@click.option("--back", is_flag=True, help="End an upgrade that was cut, with the old version.")
@state_option
@json_option
@click.pass_obj
def upgrade_command(
    assembly: Assembly,
    /,
    *,
    release: Path | None,
    release_key: str | None,
    index: str,
    offline: bool,
    back: bool,
    state: Path,
    as_json: bool,
) -> None:
    """Put another version in the place of the running peer's.

    It is installed beside the old one, in STATE-versions; the running peer finishes what it holds
    and ends, and the new one starts as it was started, on the same folder. If that is not healthy
    within 60 s, the old one is started again by itself. Without a release, an upgrade that was cut
    goes on. Nothing is upgraded unasked.
    """
    from node.commands.upgrade import upgrade
    from node.commands.upgrade_plan import UpgradeAsked
    from node.upgrading.installing import index_of

    if offline and index:
        raise InputError("--offline asks no index", todo="leave out --index, or --offline")

    asked = UpgradeAsked(
        state=state.expanduser().absolute(),
        release=None if release is None else release.expanduser().absolute(),
        release_key=release_key,
        index=index and index_of(index),
        offline=offline,
        back=back,
    )
    run(lambda: upgrade(asked, assembly.python, assembly.variables, as_json=as_json))
