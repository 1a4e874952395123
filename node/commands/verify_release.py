"""`verify SHA256SUMS`: a release, by the signature of its list of digests, offline."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from node.commands.output import console, safe, show_json
from wire.errors import InputError, WireError
from wire.minisign import TEXT_BYTES_MAX, check_minisign, read_key, read_signature

NAME = "SHA256SUMS"
SUMS_BYTES_MAX = 64 << 10
FILES_MAX = 256
_READ_BYTES = 1 << 20
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9._+-]{1,200})")


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """One file of a release: `state` is ok, changed, or not here."""

    name: str
    state: str


def verify_release(file: Path, key: str | None, *, as_json: bool) -> None:
    """Check the list's signature by `key`, and the files beside it; InputError if anything fails.

    `key` is a public key of minisign, or a file with one. Files that are not here are said.
    """
    comment, found = checked_release(file, key)
    if as_json:
        rows = [{"name": it.name, "state": it.state} for it in found]
        show_json({"comment": comment, "files": rows})
    else:
        console.print(f"[green]✓[/green] signed: {safe(comment)}")
        for one in found:
            mark = {"ok": "[green]✓[/green]", "changed": "[red]✗[/red]"}.get(
                one.state, "[dim]·[/dim]"
            )
            console.print(f"{mark} {safe(one.name)}: {one.state}")
    if changed := [it.name for it in found if it.state == "changed"]:
        raise InputError(
            f"{', '.join(changed)} is not what was released",
            todo="delete it, and fetch it again",
        )
    if not any(it.state == "ok" for it in found):
        raise InputError(
            f"no file of the release lies beside {file}", todo="put the wheel into the same folder"
        )


def checked_release(file: Path, key: str | None) -> tuple[str, list[ReleaseFile]]:
    """What the signature says of itself, and the files of the list; InputError if it is bad."""
    if not key:
        raise InputError(
            "whose release it should be is not said",
            todo="give the key that its makers published: --release-key RW…, or a file with it",
        )
    text = _text(file, SUMS_BYTES_MAX)
    try:
        by = read_key(_key_text(key))
        signature = read_signature(_text(Path(f"{file}.minisig"), TEXT_BYTES_MAX).decode())
        check_minisign(by, signature, text)
    except (WireError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is not to be trusted: {error}",
            todo="fetch the list, its .minisig and the key again, from where they were published",
        ) from error
    found = [_compared(file.parent, name, digest) for name, digest in _sums(file, text).items()]
    return signature.trusted_comment, found


def _key_text(key: str) -> str:
    path = Path(key).expanduser()
    try:
        return _text(path, TEXT_BYTES_MAX).decode() if len(key) < 4096 and path.is_file() else key
    except OSError:
        return key


def _text(file: Path, size_bytes_max: int) -> bytes:
    try:
        with file.open("rb") as source:
            data = source.read(size_bytes_max + 1)
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}",
            todo="a release is SHA256SUMS, SHA256SUMS.minisig and its files, in one folder",
        ) from error
    if len(data) > size_bytes_max:
        raise InputError(f"{file} has more than {size_bytes_max} bytes", todo="fetch it again")
    return data


def _sums(file: Path, text: bytes) -> dict[str, str]:
    """Digests by names, which lie beside the list; InputError for what is no such list."""
    found: dict[str, str] = {}
    for line in text.decode("ascii", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[2] in found or match[2] in (".", "..") or len(found) >= FILES_MAX:
            raise InputError(f"{file} is no list of digests", todo="fetch it again")
        found[match[2]] = match[1]
    return found


def _compared(folder: Path, name: str, digest: str) -> ReleaseFile:
    path = folder / name
    if not path.is_file():
        return ReleaseFile(name, "not here")
    with path.open("rb") as source:
        hashed = hashlib.sha256()
        while part := source.read(_READ_BYTES):
            hashed.update(part)
    return ReleaseFile(name, "ok" if hashed.hexdigest() == digest else "changed")
