"""What may come from outside, altered: none of it may end a peer or leave resources in use.

`python -m tests.bench fuzz http [CONVERSATIONS [SEED]]`: a gateway without a network, with its
server and all its endpoints, in one process. A million conversations is the whole run.

`python -m tests.bench fuzz records [--minutes N] [--seed N]`: every parser of receipts, bundles,
verdicts, disputes, calibrations and logs, every record and message, and of what pays: ledgers,
motions, invites, payments over HTTP. Minutes are the processor's; sixty are the whole run.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from tests.bench._http_fuzz import fuzzed
from tests.bench._record_fuzz import fuzz_records

CONVERSATIONS = 20_000
WHAT = ("http", "records")


def run(arguments: list[str]) -> dict[str, Any]:
    """What came of it; `held` says whether nothing broke and nothing leaked."""
    if not arguments or arguments[0] not in WHAT:
        raise SystemExit(f"fuzz what? python -m tests.bench fuzz {'|'.join(WHAT)}")
    if arguments[0] == "records":
        return _records(arguments[1:])
    count = int(arguments[1]) if len(arguments) > 1 else CONVERSATIONS
    seed = int(arguments[2]) if len(arguments) > 2 else 1
    began_at_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        found = trio.run(fuzzed, count, seed, Path(folder), clock=MockClock(autojump_threshold=0))
    return found | {"seconds": round(time.monotonic() - began_at_s, 1)}


def _records(arguments: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench fuzz records")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        return fuzz_records(60 * options.minutes, options.seed, Path(folder))
