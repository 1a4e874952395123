"""Mutated conversations with a server, none of which may end it or leave resources in use.

`python -m tests.bench fuzz http [CONVERSATIONS [SEED]]`: a gateway without a network, with its
server and all its endpoints, in one process. A million conversations is the whole run.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from tests.bench._http_fuzz import fuzzed

CONVERSATIONS = 20_000
WHAT = ("http",)


def run(arguments: list[str]) -> dict[str, Any]:
    """How the conversations ended; `held` says whether nothing broke and nothing leaked."""
    if not arguments or arguments[0] not in WHAT:
        raise SystemExit(f"fuzz what? python -m tests.bench fuzz {'|'.join(WHAT)} [CONVERSATIONS]")
    count = int(arguments[1]) if len(arguments) > 1 else CONVERSATIONS
    seed = int(arguments[2]) if len(arguments) > 2 else 1
    began_at_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        found = trio.run(fuzzed, count, seed, Path(folder), clock=MockClock(autojump_threshold=0))
    return found | {"seconds": round(time.monotonic() - began_at_s, 1)}
