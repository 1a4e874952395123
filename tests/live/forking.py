"""Runs many commands, each in a process of its own that begins where the imports have ended.

Half a second to two of each command is Python reading the same files; a hundred commands are not
to wait for that. Reads lines from standard input, each a JSON list of `{arguments, out, err, uid}`,
and answers each with a line, a JSON list of exit codes. Not imported: `command_line` starts it.
"""

import json
import os
import signal
import sys
import tempfile

import lmdb

from node.__main__ import main
from node.commands import ask, bench, cli, content, demo, devnet, join, load, models, status, verify
from p2p import over_libp2p

# Imported here, so that no command has to.
IMPORTED = (ask, bench, cli, content, demo, devnet, join, load, models, status, verify, over_libp2p)
# LMDB imports a part of itself when it first opens; a command that runs as another user may not be
# allowed to read where it lies.
with tempfile.TemporaryDirectory(prefix="baton-") as scratch:
    lmdb.open(scratch).close()

# Only what hangs is ended: eight peers in a command have what a loaded machine leaves them.
DEADLINE_S = 150
# More than a small machine has cores: many of them wait for somebody.
AT_ONCE = 4


def become(job: dict[str, object]) -> None:
    """In the child: have the streams and the arguments of the command."""
    for path, number in ((job["out"], 1), (job["err"], 2)):
        os.dup2(os.open(str(path), os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(DEADLINE_S)
    if job["uid"] is not None:
        os.setgroups(())
        os.setuid(int(str(job["uid"])))
    sys.argv = ["baton", *job["arguments"]]  # type: ignore[misc]


def run(jobs: list[dict[str, object]]) -> list[int] | None:
    """In the parent the exit codes, once all have ended; None in each child, at once."""
    codes: dict[int, int] = {}
    places: dict[int, int] = {}
    waiting = list(enumerate(jobs))
    while waiting or places:
        if waiting and len(places) < AT_ONCE:
            place, job = waiting.pop(0)
            child = os.fork()
            if child == 0:
                become(job)
                return None
            places[child] = place
        else:
            child, status = os.wait()
            codes[places.pop(child)] = os.waitstatus_to_exitcode(status)
    return [codes[place] for place in range(len(jobs))]


if __name__ == "__main__":
    for line in sys.stdin:
        found = run(json.loads(line))
        if found is None:
            break
        print(json.dumps(found), flush=True)
    else:
        os._exit(0)
    try:
        main()
    except SystemExit as end:
        # Python takes a second to let go of all that was imported, and we have seen enough.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)
