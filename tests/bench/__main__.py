"""Runs one bench and prints what it measured, with the machine's facts, as one JSON document.

A bench is a file of this folder with `run() -> dict` or `run(arguments: list[str]) -> dict`; where
that has a key `held`, the exit status says the same. Files that begin with `_` are shared by
benches. This file measures nothing itself.
"""

import importlib
import inspect
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from node.engines.host.launch import default_device

FOLDER = Path(__file__).parent


def bench_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def machine() -> dict[str, Any]:
    """The machine's facts that a figure depends on; taken before the bench loads the machine."""
    return {
        "cpus": os.cpu_count(),
        "load_average_1_min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def main(words: list[str]) -> int:
    """Run the bench `words[0]` with the arguments that follow; the exit status is returned."""
    if not words or words[0] not in bench_names():
        wanted = f"no bench is called {words[0]}" if words else "which bench?"
        sys.stderr.write(f"{wanted}: python -m tests.bench {'|'.join(bench_names())}\n")
        return 2
    name, arguments = words[0], words[1:]
    facts = machine()
    # Whatever a bench starts runs on the processor, unless the bench says otherwise: tinygrad would
    # take the first device that it finds.
    os.environ["DEV"] = default_device()
    run = importlib.import_module(f"tests.bench.{name}").run
    measured = run(arguments) if inspect.signature(run).parameters else run()
    json.dump({"bench": name, "machine": facts, "measured": measured}, sys.stdout, indent=2)
    sys.stdout.write("\n")
    # `held` says whether what the bench proves is true.
    return 0 if measured.get("held", True) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
