"""Runs `python -m node ...` and samples where its processor time goes, function by function.

`python -m tests.bench._profiled FILE node-arguments...`: every few milliseconds of processor time
(of all threads) the function that runs in the main thread is counted. SIGUSR1 begins the count
anew. The counts are written to FILE as JSON when the process ends. Time in C counts for the Python
function that called it.
"""

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

INTERVAL_S = 0.002
_SITE = f"{os.sep}site-packages{os.sep}"


class Sampler:
    """Counts of functions: `own` where they ran themselves, `within` with all that they called."""

    def __init__(self) -> None:
        self.own: Counter[CodeType] = Counter()
        self.within: Counter[CodeType] = Counter()
        self.samples = 0

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR1, self._clear)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def _clear(self, _number: int, _frame: FrameType | None) -> None:
        self.own.clear()
        self.within.clear()
        self.samples = 0

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.samples += 1
        self.own[frame.f_code] += 1
        seen: set[CodeType] = set()
        above: FrameType | None = frame
        while above is not None:
            seen.add(above.f_code)
            above = above.f_back
        self.within.update(seen)

    def document(self) -> dict[str, Any]:
        """Shares of all samples, the largest first."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        return {
            "samples": self.samples,
            "own": self._shares(self.own),
            "within": self._shares(self.within),
        }

    def _shares(self, counts: Counter[CodeType]) -> dict[str, float]:
        found: Counter[str] = Counter()
        for code, number in counts.items():
            found[_name(code)] += number
        return {
            name: round(number / max(1, self.samples), 4) for name, number in found.most_common(120)
        }


def _name(code: CodeType) -> str:
    path = code.co_filename
    for mark in (_SITE, f"{Path.cwd()}{os.sep}", f"{os.sep}lib{os.sep}"):
        _, found, rest = path.rpartition(mark)
        if found:
            path = rest
            break
    return f"{path}:{code.co_qualname}"


def main(arguments: list[str]) -> None:
    from node.__main__ import main as node_main

    out, *rest = arguments
    sampler = Sampler()
    sampler.start()
    sys.argv = ["node", *rest]
    try:
        node_main()
    finally:
        Path(out).write_text(json.dumps(sampler.document()))


if __name__ == "__main__":
    main(sys.argv[1:])
