"""`jury`: answers that no rule decides, and what stakers who were drawn find of them."""

from pathlib import Path

import click

from node.commands.command import Command, Group, run
from node.commands.options import json_option, offline_option, state_option


@click.group(
    "jury",
    cls=Group,
    examples=("jury list", "jury charge RECEIPT wrong.evidence", "jury show 4f1c"),
)
def jury_group() -> None:
    """Have stakers look at an answer that no rule decides.

    Thirteen seats are drawn by stake. If ten find that the answer is wrong, whoever signed it loses
    half of its stake; if ten find that it is not, the accuser's bond pays them. A peer with a seat
    looks by itself if it has the model. Nobody copies: a case is announced before its evidence is
    shown, and findings are sealed before any is told.
    """


@jury_group.command("charge", cls=Command, examples=("jury charge RECEIPT wrong.evidence",))
@click.argument("receipt")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--leg",
    type=click.IntRange(1),
    metavar="NUMBER",
    help="The leg that is accused, where a task was passed on. Default: the last that ran a model.",
)
@state_option
@json_option
def charge_command(
    *, receipt: str, file: Path, leg: int | None, state: Path, as_json: bool
) -> None:
    """Write what a jury is shown about RECEIPT to FILE.

    Question and answer are in it, and everybody can read them once FILE is given to `slash`. Where
    they are too large for that, FILE names them, and jurors fetch them from this peer.
    """
    from node.commands.jury import charge

    charge(state.expanduser(), receipt, file, leg, as_json=as_json)


@jury_group.command("list", cls=Command, examples=("jury list", "jury list --json"))
@offline_option
@state_option
@json_option
def list_command(*, offline: Path | None, state: Path, as_json: bool) -> None:
    """List all cases, the latest first."""
    from node.commands.jury import list_cases

    run(lambda: list_cases(state.expanduser(), offline, as_json=as_json))


@jury_group.command("show", cls=Command, examples=("jury show 4f1c07aa",))
@click.argument("case")
@offline_option
@state_option
@json_option
def show_command(*, case: str, offline: Path | None, state: Path, as_json: bool) -> None:
    """Show who sits on CASE, and what was found.

    CASE is its id, or the beginning of that.
    """
    from node.commands.jury import show_case

    run(lambda: show_case(state.expanduser(), case, offline, as_json=as_json))


@jury_group.command("save", cls=Command, examples=("jury save 4f1c07aa found.evidence",))
@click.argument("case")
@click.argument("file", type=click.Path(path_type=Path))
@offline_option
@state_option
@json_option
def save_command(
    *, case: str, file: Path, offline: Path | None, state: Path, as_json: bool
) -> None:
    """Write what the jury of CASE found to FILE, for anybody to check.

    `slash FILE --only-check` judges it offline.
    """
    from node.commands.jury import save

    run(lambda: save(state.expanduser(), case, file, offline, as_json=as_json))


@jury_group.command("find", cls=Command, examples=("jury find 4f1c07aa wrong",))
@click.argument("case")
@click.argument("finding", type=click.Choice(("wrong", "right")))
@state_option
@json_option
def find_command(*, case: str, finding: str, state: Path, as_json: bool) -> None:
    """Say what you found of CASE, if you have a seat. The last word counts.

    It is sealed, and this peer tells it by itself once all seats have sealed theirs.
    """
    from node.commands.jury import find

    run(lambda: find(state.expanduser(), case, wrong=finding == "wrong", as_json=as_json))
