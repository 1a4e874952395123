"""`verify`: what can be checked offline, and by which of its forms a file is known."""

from pathlib import Path
from typing import Any

import click

from node.commands.command import Assembly, Command
from node.commands.options import json_option, state_option
from wire.errors import InputError


@click.command(
    "verify",
    cls=Command,
    examples=(
        "verify ~/.baton/receipts/bafkr4igz….receipt",
        "verify answer.car --model ./model.gguf",
        "verify layer.dispute --model digits.exact",
    ),
)
@click.argument("receipt", metavar="FILE|ID")
@click.option(
    "--content",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file with an input or an output of the task, to be checked against the receipt.",
)
@click.option(
    "--model",
    metavar="FILE|FOLDER|NAME",
    help="The model: its files are compared with those that the receipt names.",
)
@click.option(
    "--srs",
    type=click.Path(path_type=Path),
    help="With --model of an answer at the level zk: the SRS that its proof was made with.",
)
@click.option("--task", metavar="ID", help="The task that it has to be a receipt of.")
@click.option("--asked-by", metavar="PEER", help="The peer that has to have asked.")
@click.option("--answered-by", metavar="PEER", help="The peer that has to have done a leg.")
@click.option(
    "--row",
    type=click.IntRange(0, 1 << 62),
    help="Of the receipts of a table, check this row alone, from 0.",
)
@click.option(
    "--release-key",
    metavar="KEY|FILE",
    help="With a release's SHA256SUMS: the minisign key that has to have signed it.",
)
@state_option
@json_option
@click.pass_obj
def verify_command(
    assembly: Assembly,
    /,
    *,
    receipt: str,
    row: int | None,
    release_key: str | None,
    state: Path,
    as_json: bool,
    **expected: Any,
) -> None:
    """Check a receipt, a bundle, a dispute, a fork, or a release.

    It is a file, or for a kept answer its id. A table of answers is compared with the file of
    receipts beside it.
    What was asked and answered is printed, then what is proved, what is wrong and what cannot be
    known, part by part. No network is needed. An input and an output that lie beside a file are
    checked with it. The exit code is 0 only if all holds that the answer's level promises.
    """
    if receipt.endswith(".agreement"):
        from node.commands.agreed import verify_agreement

        verify_agreement(state.expanduser(), Path(receipt).expanduser(), as_json=as_json)
        return
    file = Path(receipt).expanduser()
    if file.name == "SHA256SUMS" or release_key is not None:
        from node.commands.verify_release import verify_release

        verify_release(file, release_key, as_json=as_json)
        return
    if _verified_rows(file, row, as_json=as_json):
        return
    if row is not None:
        raise InputError(
            f"{receipt[:80]} has no rows", todo="name the .receipts file beside a table of answers"
        )
    from node.commands.verify import Expected, verify
    from node.commands.verify_dispute import is_dispute, verify_dispute
    from node.commands.verify_entry import (
        is_entry,
        is_feed_fork,
        verify_entry,
        verify_feed_fork,
    )
    from node.commands.verify_fork import is_fork, verify_fork

    if is_entry(file):
        verify_entry(file, as_json=as_json)
        return
    if is_feed_fork(file):
        verify_feed_fork(file, as_json=as_json)
        return
    if is_fork(file):
        verify_fork(file, as_json=as_json)
        return
    if is_dispute(file):
        model = expected["model"]
        verify_dispute(file, expected["content"], model and Path(model), as_json=as_json)
        return
    now_ms = int(assembly.wall_s() * 1000)
    verify(state.expanduser(), receipt, Expected(**expected), now_ms, as_json=as_json)


def _verified_rows(file: Path, row: int | None, *, as_json: bool) -> bool:
    """Check a table of answers, or a file of its receipts; False if the file is neither."""
    from node.rows.reading import is_table

    if file.suffix != ".receipts" and not is_table(file):
        return False
    from node.commands.verify_rows import verify_rows, verify_table

    check = verify_table if is_table(file) else verify_rows
    check(file, row, as_json=as_json)
    return True
