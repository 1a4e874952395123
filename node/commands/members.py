"""What `invite`, `members` and `network new --private` do, and how they show it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.commands.ask import SOCKET
from node.commands.output import (
    console,
    safe,
    short,
    show_aside,
    show_json,
    show_table,
)
from node.commands.qr_code import qr_lines, show_qr
from node.commands.to_type import hint
from node.local.control import call, unheard
from node.own_key import own_key
from p2p.member_rows import OwnMembership, keep_own, own_membership
from store import open_store
from wire import limits
from wire.errors import InputError
from wire.invite_token import TEXT_CHARACTERS_MAX, read_token
from wire.membership import Invite
from wire.plural import plural
from wire.signed import Signed
from wire.signing import SigningKey

DEADLINE_S = 30.0
# A store is opened for one row of it.
QUOTA_BYTES = 16 << 20
_OTHERS_MAY_READ = 0o077
# A file with a QR code beside the line has three bytes for most characters.
_FILE_BYTES_MAX = 3 * TEXT_CHARACTERS_MAX
# How a text from Windows may begin.
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# What a service's credential holds once the file with the invite is gone.
NO_INVITE = "gone"


async def begin_private(
    name: str, state: Path, entropy: Callable[[int], bytes], *, as_json: bool
) -> None:
    """Make this state folder the owner of a private network, for good."""
    if not 1 <= len(name.encode(errors="replace")) <= limits.LABEL_BYTES_MAX or not (
        name.isprintable()
    ):
        raise InputError(
            f"the name of a private network is one line of at most {limits.LABEL_BYTES_MAX} bytes",
            todo="give a shorter one",
        )
    async with open_store(state, quota_bytes=QUOTA_BYTES) as store:
        me = own_key(state, store, lambda: entropy(32)).peer
        own = own_membership(store)
        if own is None:
            await keep_own(store, OwnMembership(me, name))
    if own is not None:
        raise InputError(
            f"this state folder belongs to the private network {own.name!r} ({own.network})",
            todo="give another folder with --state",
        )
    if as_json:
        show_json({"network": str(me), "name": name, "private": True, "state": str(state)})
        return
    console.print(f"the private network [bold]{safe(name)}[/bold] is\n{me}")
    console.print("  this peer is its owner; who has its state folder is. Start it, and invite:\n")
    console.print(hint("  [bold green]python -m node join[/bold green]"))
    console.print(hint("  [bold green]python -m node invite[/bold green]\n"))


def read_invite(
    typed: tuple[str, ...], file: Path | None, credential: Path | None
) -> tuple[tuple[Signed[Invite], SigningKey] | None, bool]:
    """The invite that was given, and whether one was spoken of at all.

    A file that is gone is no error: whoever has joined needs the invite no more.
    """
    if len(typed) > 1:
        raise InputError("one invite is used at a time", todo="give one of them")
    if typed:
        show_aside(
            "an invite on the command line is seen by whoever lists this machine's processes, and"
            " kept in the shell's history: put it into a file, and give --invite-file FILE"
        )
        return read_token(typed[0]), True
    source = file or (credential if credential is not None and credential.exists() else None)
    if source is None:
        return None, False
    try:
        with source.open("rb") as opened:
            raw = opened.read(_FILE_BYTES_MAX)
        open_to_others = source.stat().st_mode & _OTHERS_MAY_READ
    except FileNotFoundError:
        show_aside(f"the invite file {source} is not there; it is needed only to join")
        return None, True
    except OSError as error:
        raise InputError(
            f"{source} cannot be read: {error.strerror}", todo="check what --invite-file names"
        ) from error
    text = raw.decode("utf-16" if raw.startswith(_UTF_16) else "utf-8", errors="replace")
    if text == NO_INVITE and source is credential:
        return None, True
    token = read_token(text)
    # Said of an invite alone: what was named by mistake may have to be readable.
    if open_to_others and source is not credential:
        show_aside(f"others on this machine may read {source} and use it: chmod 600 {source}")
    return token, True


async def invite(
    state: Path, arguments: Mapping[str, Any], *, as_json: bool, qr: bool = False
) -> None:
    """Show a new invite, this once: its secret is kept nowhere."""
    if qr:
        # Whoever lacks the package is told before an invite is made.
        qr_lines("")
    found = await call(state / SOCKET, "invite", arguments, unheard, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
        return
    console.print(found["line"], markup=False)
    if qr:
        # In capitals, which are as good, it fits a terminal of 80 columns.
        show_qr(found["line"].upper())
    to_file = (
        "bring the line to the other machine in a file (invite > FILE writes one)"
        if console.is_terminal
        else "bring this output to the other machine as a file"
    )
    roles = "every role" if found["roles"] == ["all"] else ", ".join(found["roles"])
    show_aside(
        f"invite {found['id'][:8]}: {plural(found['uses'], 'use')}, until"
        f" {_time(found['not_after_s'])}; {roles}\n"
        f"{to_file}; there:\n"
        "  python -m node join --invite-file FILE"
    )
    if found["for_this_machine_alone"]:
        show_aside(
            "this peer is reached from this machine alone, and so is whoever uses the invite:"
            " start it without --listen /ip4/127.0.0.1/…"
        )


async def show_invites(state: Path, *, as_json: bool) -> None:
    """List what is kept of the invites."""
    found = await call(state / SOCKET, "invite_list", {}, unheard, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            it["id"][:8],
            safe(it["label"]),
            it["state"],
            f"{len(it['used_by'])} of {it['uses']}",
            " ".join(it["roles"]),
            _time(it["not_after_s"]),
            " ".join(map(short, it["used_by"])),
        )
        for it in found["invites"]
    ]
    columns = ("id", "label", "state", "used", "roles", "until", "by")
    show_table(plural(len(rows), "invite"), columns, rows)


async def revoke(state: Path, invite_id: str, *, as_json: bool) -> None:
    """Revoke an invite, and say who has joined by it."""
    arguments = {"id": invite_id}
    found = await call(state / SOCKET, "invite_revoke", arguments, unheard, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
        return
    console.print(f"the invite {found['id'][:8]} admits nobody any more")
    for peer in found["used_by"]:
        console.print(f"  {peer} has joined by it and stays, until: members remove {peer}")


async def show_members(state: Path, *, as_json: bool) -> None:
    """List the members that this peer knows of."""
    found = await call(state / SOCKET, "members", {}, unheard, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            it["peer"],
            safe(it["label"]),
            _state(it),
            " ".join(it["roles"]),
            "" if it["not_after_s"] is None else _time(it["not_after_s"]),
        )
        for it in found["members"]
    ]
    title = f"members of {safe(found['name'])} that this peer knows"
    show_table(title, ("peer", "label", "state", "roles", "until"), rows)


async def remove(state: Path, peer: str, *, as_json: bool) -> None:
    """Remove a member, by its key, the end of that, or its label."""
    arguments = {"peer": peer}
    found = await call(state / SOCKET, "members_remove", arguments, unheard, deadline_s=DEADLINE_S)
    if as_json:
        show_json(found)
        return
    if found["known"]:
        console.print(f"{found['peer']} is no member any more; those connected here are told now")
    else:
        console.print(
            f"no member {found['peer']} was ever met here: if there is one, it is none any more"
        )
        show_aside("if you meant another one, see: python -m node members")
    for invite_id in found["invites_revoked"]:
        console.print(f"  nor does invite {invite_id[:8]} admit anybody: that peer has its line")


def _state(row: Mapping[str, Any]) -> str:
    for name in ("removed", "expired"):
        if row[name]:
            return name
    words = ["owner"] if row["owner"] else []
    if row["me"]:
        words.append("this peer")
    elif row["connected"]:
        words.append("connected")
    return ", ".join(words) or "not connected"


def _time(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
