"""Builds a release: a wheel and an sdist that are the same bytes whoever builds them, and digests.

    python .ci/release.py FOLDER [SECRET]

Beside them lies `baton-requirements.txt`, by which pip, pipx and uv install what the wheel needs.
What is built is the commit that is checked out, by the tools of build.lock. SECRET is a file with
the 40 bytes (eight of the key's number, then the seed) that sign the digests as minisign does; the
line of its public key is printed. Nothing is built where what is tracked was changed.
"""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKEND = """
import sys
from setuptools import build_meta

print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def git(*words: str) -> bytes:
    line = ["git", "-C", str(ROOT), *words]
    return subprocess.run(line, check=True, capture_output=True).stdout  # noqa: S603


def built(folder: Path, source: Path, epoch: int) -> list[Path]:
    """The wheel and the sdist of an exported source."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    found = []
    for what in ("build_wheel", "build_sdist"):
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", BACKEND, what, str(folder)],
            cwd=source,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        found.append(folder / done.stdout.splitlines()[-1])
    _level(found[1], epoch)
    return found


def _libraries(folder: Path, source: Path) -> Path:
    """The list of what the release needs, in the versions that it was tested with."""
    from node.upgrading.locked import LOCK, needed_by, versions_in

    project, lock = ((source / it).read_text() for it in ("pyproject.toml", LOCK))
    file = folder / "baton-requirements.txt"
    file.write_text(versions_in(needed_by(project, lock)))
    return file


def _level(sdist: Path, epoch: int) -> None:
    """Write an sdist anew without what differs from machine to machine: times, owners, order."""
    out = io.BytesIO()
    with (
        tarfile.open(sdist) as old,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda it: it.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, member.size, epoch
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)
    sdist.write_bytes(gzip.compress(out.getvalue(), 9, mtime=epoch))


def signature_of(data: bytes, secret: bytes, comment: str) -> tuple[str, str]:
    """The signature file, and the line of the public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key_id, private = secret[:8], Ed25519PrivateKey.from_private_bytes(secret[8:40])
    signed = private.sign(hashlib.blake2b(data).digest())
    own = private.sign(signed + comment.encode())
    public = b64encode(b"Ed" + key_id + private.public_key().public_bytes_raw()).decode()
    lines = (
        "untrusted comment: signature of a release of Baton",
        b64encode(b"ED" + key_id + signed).decode(),
        f"trusted comment: {comment}",
        b64encode(own).decode(),
    )
    return "\n".join(lines) + "\n", public


def main(words: list[str]) -> int:
    if not 1 <= len(words) <= 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    if git("status", "--porcelain", "--untracked-files=no"):
        sys.stderr.write("error: what is tracked was changed: commit it, or put it back\n")
        return 1
    # Modes of files are in a wheel, and depend on it.
    os.umask(0o022)
    folder = Path(words[0])
    folder.mkdir(parents=True, exist_ok=True)
    epoch, commit = git("log", "-1", "--format=%ct %H").decode().split()
    with tempfile.TemporaryDirectory() as source:
        with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as exported:
            exported.extractall(source, filter="data")
        files = built(folder, Path(source), int(epoch))
        sys.path.insert(0, source)
        files.append(_libraries(folder, Path(source)))
    digests = {it.name: hashlib.sha256(it.read_bytes()).hexdigest() for it in sorted(files)}
    sums = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    (folder / "SHA256SUMS").write_text(sums)
    sys.stdout.write(sums)
    if len(words) == 2:
        secret = Path(words[1]).read_bytes()
        text, public = signature_of(sums.encode(), secret, f"Baton, commit {commit}")
        (folder / "SHA256SUMS.minisig").write_text(text)
        sys.stdout.write(f"signed by {public}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
