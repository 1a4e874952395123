"""`govern` and `fund`: what stakers and users decide together, and what they grant."""

from pathlib import Path

import click

from node.commands.command import Command, Group, run
from node.commands.options import json_option, offline_option, state_option


@click.group(
    "govern",
    cls=Group,
    examples=("govern list", "govern propose motion.toml", "govern vote 4f1c07aa yes"),
)
def govern_group() -> None:
    """Decide about a network together: motions and votes.

    Two houses vote: what is staked, and what was paid for tasks in four weeks. A motion passes with
    more than half of the votes of both, if a fifth of both has voted when its time is over; or as
    soon as more than half of both is for it.
    """


@govern_group.command("list", cls=Command, examples=("govern list", "govern list --json"))
@offline_option
@state_option
@json_option
def list_command(*, offline: Path | None, state: Path, as_json: bool) -> None:
    """List all motions, the latest first."""
    from node.commands.govern import list_motions

    run(lambda: list_motions(state.expanduser(), offline, as_json=as_json))


@govern_group.command("show", cls=Command, examples=("govern show 4f1c07aa",))
@click.argument("motion")
@offline_option
@state_option
@json_option
def show_command(*, motion: str, offline: Path | None, state: Path, as_json: bool) -> None:
    """Show what MOTION would do, and how it stands.

    MOTION is its id, or the beginning of that.
    """
    from node.commands.govern import show_motion

    run(lambda: show_motion(state.expanduser(), motion, offline, as_json=as_json))


@govern_group.command(
    "tally",
    cls=Command,
    examples=("govern tally 4f1c07aa", "govern tally 4f1c07aa --offline all.ledger"),
)
@click.argument("motion")
@offline_option
@state_option
@json_option
def tally_command(*, motion: str, offline: Path | None, state: Path, as_json: bool) -> None:
    """Count the votes on MOTION again, from the signed ballots.

    `examples/recount.py` counts them without any code of this program.
    """
    from node.commands.govern import tally

    run(lambda: tally(state.expanduser(), motion, offline, as_json=as_json))


@govern_group.command("models", cls=Command, examples=("govern models", "govern models --json"))
@offline_option
@state_option
@json_option
def models_command(*, offline: Path | None, state: Path, as_json: bool) -> None:
    """List the models that have an author, with the share of each.

    A motion with [model] id, author and share registers one; of several the first that passed
    holds, until a motion with the share 0 ends it.
    """
    from node.commands.govern import show_models

    run(lambda: show_models(state.expanduser(), offline, as_json=as_json))


def _parameter_rows() -> dict[str, list[tuple[str, str]]]:
    from node.commands.motion_file import parameter_rows

    return {"Parameters": parameter_rows()}


@govern_group.command(
    "propose", cls=Command, examples=("govern propose motion.toml",), details=_parameter_rows
)
@click.argument("file", type=click.Path(path_type=Path))
@state_option
@json_option
def propose_command(*, file: Path, state: Path, as_json: bool) -> None:
    """Make the motion that FILE describes.

    A TOML file: title and why, and one of [parameter] with name and value, [grant]
    with to, step, steps and use, [model] with id, author and share, [builder] with account, or
    [member] with account, weight and since, an epoch: from it on, that account keeps the ledger,
    or with the weight 0 no longer. Who is to keep it makes the motion itself or votes for it, and
    runs a peer with --role ledger before. Shares are written "5%" or 0.05, amounts in credits. Its
    bond comes back unless fewer than a fifth vote.
    """
    from node.commands.govern import propose

    run(lambda: propose(state.expanduser(), file, grant=False, as_json=as_json))


@govern_group.command("vote", cls=Command, examples=("govern vote 4f1c07aa yes",))
@click.argument("motion")
@click.argument("vote", type=click.Choice(("yes", "no")))
@state_option
@json_option
def vote_command(*, motion: str, vote: str, state: Path, as_json: bool) -> None:
    """Vote on MOTION. Of several votes the last counts."""
    from node.commands.govern import vote as cast

    run(lambda: cast(state.expanduser(), motion, yes=vote == "yes", as_json=as_json))


@click.group(
    "fund",
    cls=Group,
    invoke_without_command=True,
    examples=("fund", "fund --offline all.ledger", "fund apply grant.toml"),
)
@offline_option
@state_option
@json_option
@click.pass_context
def fund_group(
    context: click.Context, /, *, offline: Path | None, state: Path, as_json: bool
) -> None:
    """Show what came into the network's fund, and what went out."""
    if context.invoked_subcommand is None:
        from node.commands.govern import show_fund

        run(lambda: show_fund(state.expanduser(), offline, as_json=as_json))


@fund_group.command("apply", cls=Command, examples=("fund apply grant.toml",))
@click.argument("file", type=click.Path(path_type=Path))
@state_option
@json_option
def apply_command(*, file: Path, state: Path, as_json: bool) -> None:
    """Ask the fund for the grant that FILE describes.

    It is a motion with a [grant], and is voted on as any other.
    """
    from node.commands.govern import propose

    run(lambda: propose(state.expanduser(), file, grant=True, as_json=as_json))
