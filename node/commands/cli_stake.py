"""`stake`, `evidence`, `slash`: credits that answer for what a peer does."""

from pathlib import Path

import click

from node.commands.cli_ledger import KEY
from node.commands.command import Command, Group, run
from node.commands.options import json_option, state_option

role_option = click.option(
    "--for",
    "role",
    default="verify",
    show_default=True,
    metavar="ROLE",
    help="The role that the stake is for: data, infer, verify, store, gateway or ledger.",
)


@click.group("stake", cls=Group, examples=("stake add 50 --for verify", "stake show"))
def stake_group() -> None:
    """Stake credits on doing right, and have them back.

    Others weigh a verifier by what it has staked. All of it answers for what its owner signs:
    evidence takes a part, or all.
    """


@stake_group.command("add", cls=Command, examples=("stake add 50", "stake add 20 --for infer"))
@click.argument("amount")
@role_option
@state_option
@json_option
def add_command(*, amount: str, role: str, state: Path, as_json: bool) -> None:
    """Stake AMOUNT credits of this peer's account for a role."""
    from node.commands.stake import add

    run(lambda: add(state.expanduser(), amount, role, as_json=as_json))


@stake_group.command("unbond", cls=Command, examples=("stake unbond", "stake unbond 20"))
@click.argument("amount", required=False)
@role_option
@state_option
@json_option
def unbond_command(*, amount: str | None, role: str, state: Path, as_json: bool) -> None:
    """Have AMOUNT credits back, 14 epochs later.

    Without AMOUNT, all that is staked for the role. Until it is back it can still be taken.
    """
    from node.commands.stake import unbond

    run(lambda: unbond(state.expanduser(), amount, role, as_json=as_json))


@stake_group.command("show", cls=Command, examples=("stake show", f"stake show {KEY}"))
@click.argument("account", required=False)
@state_option
@json_option
def show_command(*, account: str | None, state: Path, as_json: bool) -> None:
    """Show what ACCOUNT has staked, this peer's own by default."""
    from node.commands.stake import show_stake

    run(lambda: show_stake(state.expanduser(), account, as_json=as_json))


@click.command("evidence", cls=Command, examples=("evidence", "evidence --json"))
@state_option
@json_option
def evidence_command(*, state: Path, as_json: bool) -> None:
    """List what this peer holds against whom, judged anew.

    Forks of logs, disputes, and what members or verifiers signed wrongly, as files in `receipts`.
    """
    from node.commands.evidence import show_evidence

    show_evidence(state.expanduser(), as_json=as_json)


@click.command(
    "slash", cls=Command, examples=("slash X.evidence", "slash X.dispute --model digits.exact")
)
@click.argument("evidence", type=click.Path(path_type=Path))
@click.option(
    "--model", type=click.Path(path_type=Path), help="The model's file, for a record of a dispute."
)
@click.option(
    "--genesis",
    type=click.Path(path_type=Path),
    help="The network's genesis, to check the checkpoint of a jury's finding.",
)
@click.option("--bond", help="Put up more than the least, if members ask for it.")
@click.option("--only-check", is_flag=True, help="Judge it here, and send nothing.")
@state_option
@json_option
def slash_command(
    *,
    evidence: Path,
    model: Path | None,
    genesis: Path | None,
    bond: str | None,
    only_check: bool,
    state: Path,
    as_json: bool,
) -> None:
    """Have stake taken from whom the file EVIDENCE convicts.

    It is judged here first, offline. A bond of one credit goes with it, and comes back with the
    penalty; who only repeats what others showed in an earlier epoch loses it. What `jury charge`
    wrote convicts nobody: it asks a jury. That case is announced first, and this peer shows the
    evidence once the epoch has ended.
    """
    from node.commands.evidence import slash

    run(
        lambda: slash(
            state.expanduser(),
            evidence,
            (model, genesis, bond),
            only_check=only_check,
            as_json=as_json,
        )
    )
