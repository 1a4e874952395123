"""A release built twice, as two people would: other times, zones, umasks, folders. Equal bytes?

The commit that is checked out is built, so what is tracked must not be changed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# How two people differ who build the same: where, when, and what their machines are set to.
BUILDERS = (
    {"TZ": "Asia/Tokyo", "LC_ALL": "C", "umask": 0o077},
    {"TZ": "America/Lima", "LC_ALL": "C.UTF-8", "umask": 0o002},
)
_NOT_SET = ("SOURCE_DATE_EPOCH", "PYTHONHASHSEED")


def run() -> dict[str, Any]:
    """Digests of both, and seconds each took."""
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        found = []
        for number, builder in enumerate(BUILDERS):
            began_s = time.monotonic()
            digests = built(ROOT, Path(folder) / f"builder-{number}", builder)
            found.append((digests, round(time.monotonic() - began_s, 1)))
    (first, _), (second, _) = found
    return {
        "files": first,
        "took_s": [took_s for _, took_s in found],
        "held": first == second and len(first) == 4,
    }


def built(
    root: Path, folder: Path, builder: Mapping[str, Any], secret: Path | None = None
) -> dict[str, str]:
    """Build the commit that `root` is at, as this builder; the digests of all files."""
    kept = {it: value for it, value in os.environ.items() if it not in _NOT_SET}
    subprocess.run(
        [sys.executable, str(root / ".ci" / "release.py"), str(folder), *filter(None, [secret])],
        env={**kept, "TZ": builder["TZ"], "LC_ALL": builder["LC_ALL"]},
        umask=builder["umask"],
        check=True,
        capture_output=True,
    )
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }
