"""`invite`, `members`, `owner`: who may take part in a private network, and whose peers are."""

from pathlib import Path

import click

from node.commands.command import Assembly, Command, Group, run
from node.commands.options import json_option, roles_of, state_option

PEER = "12D3KooWAU1jyZ5Bs2ypJWmVvWYRYrJyjDVGWDcrnxiwGy1PP8iS"


@click.group(
    "invite",
    cls=Group,
    invoke_without_command=True,
    examples=("invite --qr", "invite --uses 5 --for 2h --label lab", "invite list"),
)
@click.option(
    "--uses", default=1, show_default=True, type=int, help="How many peers may join by it."
)
@click.option("--for", "lasts", default="24h", show_default=True, help="How long, as 30m, 24h, 7d.")
@click.option(
    "--roles",
    default="",
    help="What these peers may do, as infer,verify. Default: every role.",
)
@click.option("--label", default="", help="What `members` calls whoever joins by it.")
@click.option(
    "--admitter",
    "admitters",
    multiple=True,
    metavar="PEER",
    help="A member that admits by it, in place of this peer. May be given up to four times; the"
    " uses are shared among them.",
)
@click.option("--qr", is_flag=True, help="Show the line as a QR code too.")
@state_option
@json_option
@click.pass_context
def invite_group(
    context: click.Context,
    /,
    *,
    uses: int,
    lasts: str,
    roles: str,
    label: str,
    admitters: tuple[str, ...],
    state: Path,
    **shown: bool,
) -> None:
    """Print a line by which another machine joins this network.

    It works where the owner of a private network runs: network new NAME --private. Whoever has the
    line can use it, so pass it on as a password: join --invite-file FILE.
    """
    if context.invoked_subcommand is not None:
        return
    from node.commands.genesis import read_epoch_s
    from node.commands.members import invite

    bits = sum(1 << role for role in roles_of(tuple(filter(None, roles.split(",")))))
    arguments = {
        "uses": uses,
        "for_s": read_epoch_s(lasts, "--for 24h or 30m"),
        "label": label,
        "admitters": list(admitters),
        **({"roles": bits} if bits else {}),
    }
    run(lambda: invite(state.expanduser(), arguments, **shown))


@invite_group.command("list", cls=Command, examples=("invite list",))
@state_option
@json_option
def list_command(*, state: Path, as_json: bool) -> None:
    """List the invites, and who joined by them."""
    from node.commands.members import show_invites

    run(lambda: show_invites(state.expanduser(), as_json=as_json))


@invite_group.command("revoke", cls=Command, examples=("invite revoke 5f0c",))
@click.argument("id")
@state_option
@json_option
def revoke_command(*, id: str, state: Path, as_json: bool) -> None:  # noqa: A002
    """Have the invite ID admit nobody any more.

    The beginning of an id is enough. Who has joined by it stays: members remove PEER.
    """
    from node.commands.members import revoke

    run(lambda: revoke(state.expanduser(), id, as_json=as_json))


@click.group(
    "members",
    cls=Group,
    invoke_without_command=True,
    examples=("members", f"members remove {PEER}"),
)
@state_option
@json_option
@click.pass_context
def members_group(context: click.Context, /, *, state: Path, as_json: bool) -> None:
    """List the members of this private network."""
    if context.invoked_subcommand is None:
        from node.commands.members import show_members

        run(lambda: show_members(state.expanduser(), as_json=as_json))


@members_group.command(
    "remove", cls=Command, examples=("members remove bob", f"members remove {PEER}")
)
@click.argument("peer")
@state_option
@json_option
def remove_command(*, peer: str, state: Path, as_json: bool) -> None:
    """Remove PEER from this private network.

    PEER is its label, its key or the end of that, as `members` and `status` show them: …cmGCzQ.
    Its connections are closed everywhere, also in the middle of a task, which goes on elsewhere.
    Whom it admitted is no member any more either.
    """
    from node.commands.members import remove

    run(lambda: remove(state.expanduser(), peer, as_json=as_json))


@click.group("owner", cls=Group, examples=(f"owner sign {PEER}",))
def owner_group() -> None:
    """Say whose peers are, so that they do not check each other."""


@owner_group.command("sign", cls=Command, examples=("owner sign", f"owner sign {PEER}"))
@click.argument("peers", nargs=-1, metavar="[PEER]...")
@state_option
@json_option
@click.pass_obj
def sign_command(assembly: Assembly, *, peers: tuple[str, ...], state: Path, as_json: bool) -> None:
    """Sign with this state folder's key that peers are its owner's.

    Each PEER, as `status` names it, has a line of its own; without one this folder's own peer has.
    Whoever starts that peer gives it: join --owner LINE. The line is no secret, and holds for good;
    only the peer that it names can show it.
    """
    from node.commands.ownership import sign_peers

    run(lambda: sign_peers(peers, state.expanduser(), assembly.entropy, as_json=as_json))
