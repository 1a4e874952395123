"""`export`, `import`: files and folders as CAR archives, which IPFS tools write and read."""

from pathlib import Path

import click

from node.commands.command import Command, run
from node.commands.options import deadline_option, json_option, state_option

FOLDER_ID = "bafybeiem7coag5mkjdmzv43ve2c4hwk27763sqd5vfqb5fold3iw3lmtgq"


@click.command("export", cls=Command, examples=(f"export {FOLDER_ID} photos.car",))
@click.argument("content_id")
@click.argument("file", type=click.Path(path_type=Path))
@deadline_option(600, "After how many seconds to give up.")
@state_option
@json_option
def export_command(
    *, content_id: str, file: Path, deadline: int, state: Path, as_json: bool
) -> None:
    """Write a published file or folder to a CAR archive.

    IPFS tools read it: ipfs dag import, ipfs-car unpack. What is not here is fetched from other
    peers. A file that is there already is replaced, once the archive is whole.
    """
    from node.commands.archives import export

    run(lambda: export(state.expanduser(), content_id, file, deadline_s=deadline, as_json=as_json))


@click.command("import", cls=Command, examples=("import photos.car",))
@click.argument("file", type=click.Path(path_type=Path))
@state_option
@json_option
def import_command(*, file: Path, state: Path, as_json: bool) -> None:
    """Keep what a CAR archive holds, and print its content id.

    The archive is one that this peer or an IPFS tool made of a file or folder: ipfs dag export,
    ipfs-car pack. The id stays the same, unless the archive has pieces of more than 256 KiB, as
    ipfs-car makes them: those are cut again, and what comes of them gets another id. Every piece is
    compared with its hash, and nothing is kept of an archive that is not whole.
    """
    from node.commands.archives import take

    run(lambda: take(state.expanduser(), file, as_json=as_json))
