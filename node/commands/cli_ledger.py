"""`network`, `wallet`, `ledger`: a network with credits, one's account in it, and all accounts."""

from pathlib import Path
from typing import Any

import click

from node.commands.command import Assembly, Command, Group, run
from node.commands.options import json_option, state_option

KEY = "12D3KooWAU1jyZ5Bs2ypJWmVvWYRYrJyjDVGWDcrnxiwGy1PP8iS"


@click.group(
    "network",
    cls=Group,
    examples=("network new home --private", "network new home --grant me=1000"),
)
def network_group() -> None:
    """Begin a network of one's own: private, with credits, or both."""


@network_group.command(
    "new",
    cls=Command,
    examples=(
        "network new home --private",
        "network new home --grant me=1000",
        f"network new lab --member {KEY} --epoch 10m --out lab.genesis",
    ),
)
@click.argument("name")
@click.option(
    "--private",
    is_flag=True,
    help="Only who is invited may take part. The network's id is this peer's key, and this peer"
    " invites (`invite`). Without credits, unless --member or --grant is given too.",
)
@click.option(
    "--member",
    "members",
    multiple=True,
    help="The key of a peer that keeps the ledger. May be given several times; four tolerate one"
    " bad member. Default: this peer alone.",
)
@click.option(
    "--grant",
    "grants",
    multiple=True,
    metavar="KEY=AMOUNT",
    help="Credits that an account has from the beginning; KEY may be `me`. May be given several"
    " times. The rest of the supply is the network's fund.",
)
@click.option(
    "--supply", default="1000000000", show_default=True, help="All credits there will ever be."
)
@click.option(
    "--epoch",
    default="1h",
    show_default=True,
    help="How often accounts are settled for good, as 1h or 90s.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The file to write. Default: NAME.genesis."
)
@state_option
@json_option
@click.pass_obj
def new_command(
    assembly: Assembly,
    /,
    *,
    private: bool,
    out: Path | None,
    state: Path,
    as_json: bool,
    **typed: Any,
) -> None:
    """Begin a network called NAME, with credits or private.

    Without --private a genesis file is written. Its content id is the network, and whoever has it
    may join: join --genesis FILE. With --private nobody joins but by an invite. A network that is
    both needs both.
    """
    from node.commands.ledger import Beginning, begin_network
    from node.commands.members import begin_private

    if private:
        run(
            lambda: begin_private(
                typed["name"], state.expanduser(), assembly.entropy, as_json=as_json
            )
        )
        if not (typed["members"] or typed["grants"]):
            return
    wanted = Beginning(**typed)
    begin_network(wanted, state.expanduser(), out, assembly.entropy, as_json=as_json)


@click.group(
    "wallet",
    cls=Group,
    invoke_without_command=True,
    examples=("wallet", f"wallet pay {KEY} 2.5"),
)
@state_option
@json_option
@click.pass_context
def wallet_group(context: click.Context, /, *, state: Path, as_json: bool) -> None:
    """Show what this peer's account has, or pay from it."""
    if context.invoked_subcommand is None:
        from node.commands.ledger import show_account

        run(lambda: show_account(state.expanduser(), None, as_json=as_json))


@wallet_group.command("pay", cls=Command, examples=(f"wallet pay {KEY} 2.5",))
@click.argument("key")
@click.argument("amount")
@state_option
@json_option
def pay_command(*, key: str, amount: str, state: Path, as_json: bool) -> None:
    """Pay AMOUNT credits to KEY, and wait until it is settled."""
    from node.commands.ledger import pay

    run(lambda: pay(state.expanduser(), key, amount, as_json=as_json))


@wallet_group.command("log", cls=Command, examples=("wallet log --json",))
@state_option
@json_option
def log_command(*, state: Path, as_json: bool) -> None:
    """List what this account paid, and who paid it, the latest first.

    Who paid it is read from epochs that have ended, each checked by the members' signatures; the
    number is that of the order in the payer's account.
    """
    from node.commands.ledger import show_log

    run(lambda: show_log(state.expanduser(), as_json=as_json))


@wallet_group.command(
    "faucet", cls=Command, examples=("wallet faucet", f"wallet faucet --sponsor {KEY}")
)
@click.option("--sponsor", help="The key of the peer to ask. Default: members and peers nearby.")
@state_option
@json_option
def faucet_command(*, sponsor: str | None, state: Path, as_json: bool) -> None:
    """Ask a sponsor for the first credits of this account.

    A sponsor is a peer whose owner gives some away (`join --sponsor 100`): to each key once, and so
    much in an epoch. Some ask for work first: seconds, or minutes while many ask.
    """
    from node.commands.ledger import ask_faucet

    run(lambda: ask_faucet(state.expanduser(), sponsor, as_json=as_json))


@click.command(
    "earnings", cls=Command, examples=("earnings", "earnings --redeem", "earnings --json")
)
@click.option("--redeem", is_flag=True, help="Redeem what is promised now, instead of soon.")
@state_option
@json_option
def earnings_command(*, redeem: bool, state: Path, as_json: bool) -> None:
    """Show what others paid this peer, for which model.

    What is promised is redeemed by itself, several times an epoch.
    """
    from node.commands.ledger import show_earnings

    run(lambda: show_earnings(state.expanduser(), redeem=redeem, as_json=as_json))


@click.group("ledger", cls=Group, examples=("ledger export all.ledger", "ledger check all.ledger"))
def ledger_group() -> None:
    """Look at all accounts of a network."""


@ledger_group.command("show", cls=Command, examples=(f"ledger show {KEY}",))
@click.argument("account")
@state_option
@json_option
def show_command(*, account: str, state: Path, as_json: bool) -> None:
    """Show how ACCOUNT stands.

    It is what more than two thirds of the members say.
    """
    from node.commands.ledger import show_account

    run(lambda: show_account(state.expanduser(), account, as_json=as_json))


@ledger_group.command("export", cls=Command, examples=("ledger export all.ledger",))
@click.argument("file", type=click.Path(path_type=Path))
@state_option
@json_option
def export_command(*, file: Path, state: Path, as_json: bool) -> None:
    """Write the whole ledger, up to the last checkpoint, to FILE."""
    from node.commands.ledger import export

    run(lambda: export(state.expanduser(), file, as_json=as_json))


@ledger_group.command(
    "check",
    cls=Command,
    examples=("ledger check all.ledger", "ledger check all.ledger --genesis home.genesis"),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--genesis",
    type=click.Path(path_type=Path),
    help="The genesis file of the network that it has to be.",
)
@click.option("--account", help="Also show what this account has at the end.")
@json_option
def check_command(*, file: Path, genesis: Path | None, account: str | None, as_json: bool) -> None:
    """Check a ledger offline: every signature, every order, every sum.

    Nothing is asked of the network. Exits 0 only if all of it holds.
    """
    from node.commands.ledger import check

    check(file, genesis, account, as_json=as_json)
