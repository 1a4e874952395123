"""`receipts`: the answers that a peer keeps, and how one gets out of its folder or into it."""

from pathlib import Path

import click

from node.commands.cli_tasks import CONTENT_ID
from node.commands.command import Assembly, Command, Group, run
from node.commands.options import json_option, state_option


@click.group(
    "receipts",
    cls=Group,
    invoke_without_command=True,
    examples=("receipts", f"receipts export {CONTENT_ID} --output answer.car"),
)
@state_option
@json_option
@click.pass_context
def receipts_group(context: click.Context, *, state: Path, as_json: bool) -> None:
    """List the kept answers, or copy one to a file or from one.

    With a peer running on the state folder the commands work through it, else on the folder alone.
    """
    if context.invoked_subcommand is None:
        _list(state, as_json=as_json)


@receipts_group.command("list", cls=Command, examples=("receipts list --json",))
@state_option
@json_option
def list_command(*, state: Path, as_json: bool) -> None:
    """List the kept answers, latest first, then imported ones."""
    _list(state, as_json=as_json)


def _list(state: Path, *, as_json: bool) -> None:
    from node.commands.receipts import list_kept

    run(lambda: list_kept(state.expanduser(), as_json=as_json))


@receipts_group.command("show", cls=Command, examples=(f"receipts show {CONTENT_ID}",))
@click.argument("receipt", metavar="FILE|ID")
@state_option
@json_option
def show_command(*, receipt: str, state: Path, as_json: bool) -> None:
    """Show who did what for one answer. `verify` says what of it holds."""
    from node.commands.receipts import show

    show(state.expanduser(), receipt, as_json=as_json)


@receipts_group.command(
    "export",
    cls=Command,
    examples=(
        f"receipts export {CONTENT_ID}",
        f"receipts export {CONTENT_ID} --output answer.receipt",
    ),
)
@click.argument("receipt", metavar="ID")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write. If its name ends in .car, it is a bundle: a CAR archive with the"
    " receipt and every input and output that it names. Else the receipt alone. Default: ID.car.",
)
@state_option
@json_option
def export_command(*, receipt: str, output: Path | None, state: Path, as_json: bool) -> None:
    """Write a kept answer to a file that `verify` reads anywhere."""
    from node.commands.receipt_file import full_id
    from node.commands.receipts import export

    whole = full_id(state.expanduser(), receipt)
    run(lambda: export(state.expanduser(), whole, output, as_json=as_json))


@receipts_group.command("import", cls=Command, examples=("receipts import answer.car",))
@click.argument("file", type=click.Path(path_type=Path))
@state_option
@json_option
@click.pass_obj
def import_command(assembly: Assembly, /, *, file: Path, state: Path, as_json: bool) -> None:
    """Keep a receipt of somebody else, or a bundle, if it holds.

    It is listed and checked like an own one. It is never used as the answer to a task of yours.
    """
    from node.commands.receipts import take

    now_ms = int(assembly.wall_s() * 1000)
    run(lambda: take(state.expanduser(), file, now_ms, as_json=as_json))


@click.command(
    "audit",
    cls=Command,
    examples=("audit minilm", "audit 12D3KooWAU1jyZ5Bs2ypJWmVvWYRYrJyjDVGWDcrnxiwGy1PP8iS --json"),
)
@click.argument("whose", metavar="PEER|MODEL")
@state_option
@json_option
def audit_command(*, whose: str, state: Path, as_json: bool) -> None:
    """Show how much of a peer's or a model's work was checked.

    It reads the answers that are kept here: how many legs were checked, by whom, at once or
    afterwards, and what was found wrong. A model is its name or its id, a peer its whole id.
    """
    from node.commands.audit import audit

    run(lambda: audit(state.expanduser(), whose, as_json=as_json))
