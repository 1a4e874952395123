"""A release built twice, as two people would: in other time zones, umasks and folders. Equal bytes?

The commit that is checked out is built, so what is tracked must not be changed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILDERS = ({"TZ": "Asia/Tokyo", "umask": 0o077}, {"TZ": "America/Lima", "umask": 0o002})


def run() -> dict[str, Any]:
    """Digests of both, and seconds each took."""
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        found = [
            _built(Path(folder) / f"builder-{number}", builder)
            for number, builder in enumerate(BUILDERS)
        ]
    first, second = (it["digests"] for it in found)
    return {
        "files": first,
        "took_s": [it["took_s"] for it in found],
        "held": first == second and len(first) == 3,
    }


def _built(folder: Path, builder: dict[str, Any]) -> dict[str, Any]:
    began_s = time.monotonic()
    subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "release.py"), str(folder)],
        env={**os.environ, "TZ": builder["TZ"]},
        umask=builder["umask"],
        check=True,
        capture_output=True,
    )
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("baton-*"))
    }
    return {"digests": digests, "took_s": round(time.monotonic() - began_s, 1)}
