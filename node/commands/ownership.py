"""What `owner sign` does, and how its line is read again."""

from collections.abc import Callable
from pathlib import Path

from node.commands.output import console, show_aside, show_json
from node.local.arguments import read_key
from store import key_seed
from wire.errors import InputError
from wire.ownership import LINE_CHARACTERS_MAX, PREFIX, Ownership
from wire.signing import SigningKey


async def sign_peers(
    typed: tuple[str, ...], state: Path, entropy: Callable[[int], bytes], *, as_json: bool
) -> None:
    """Print for each peer the line by which it may say that it is this folder's owner's."""
    if not (state / "key").exists():
        raise InputError(
            f"there is no key in {state}",
            todo="give the folder of the peer that is to stand for its owner: --state DIR",
        )
    key = SigningKey(key_seed(state, lambda: entropy(32)))
    peers = [read_key(it) for it in typed] or [key.peer]
    signed = [Ownership.signed_by(key, it) for it in peers]
    if as_json:
        lines = [{"peer": str(it.peer), "line": it.line} for it in signed]
        show_json({"owner": str(key.peer), "peers": lines})
        return
    for one in signed:
        show_aside(f"on {one.peer}: python -m node join --owner LINE, with this line")
        console.print(one.line, markup=False, soft_wrap=True)


def read_owner(typed: str | None) -> str:
    """The line that was typed, or that is in the file that was named; empty if neither was."""
    if typed is None or typed.startswith(PREFIX):
        return typed or ""
    path = Path(typed).expanduser()
    try:
        with path.open("rb") as opened:
            return opened.read(2 * LINE_CHARACTERS_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{typed[:80]!r} is neither an owner's line nor a file with one",
            todo="have the owner print one: python -m node owner sign PEER",
        ) from error
