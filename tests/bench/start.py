"""The processor time that starting a command takes, beside a Python program that does nothing.

A person who mistypes, or a script that asks for the status every second, pays for every import.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.live.command_line import ROOT, baton_in, environment, joined

RUNS = 7
# The aims were set on a machine on which `python -c pass` takes this long; elsewhere, and on a busy
# machine, the same multiple of it counts.
PASS_CPU_S = 0.016
AIM_CPU_S = {"--version": 0.25, "--help": 0.25, "misspelt": 0.25, "verify": 0.5, "status": 0.4}


def run(arguments: list[str]) -> dict[str, Any]:
    """Median CPU-seconds of each command, and its ratio to `python -c pass`.

    A number among the arguments is how many runs each median is taken from. `--json` is accepted,
    but the output is JSON in any case.
    """
    runs = next((int(it) for it in arguments if it.isdecimal()), RUNS)
    # The path is short, because a socket's path has a bound.
    with tempfile.TemporaryDirectory(prefix="baton-") as folder:
        state = Path(folder) / "s"
        # A peer that may run its own task is a network of one.
        with joined(state, "--role", "store", "--role", "infer", "--model", "hash") as peer:
            asked = ["ask", "hash", "--text", "a text", "--verdicts", "0/0", "--json"]
            answer = baton_in({}, *asked, "--state", peer.state).document
            words = {
                "--version": ["--version"],
                "--help": ["--help"],
                "misspelt": ["sttaus"],
                "verify": ["verify", answer["receipt_file"]],
                "status": ["status", "--state", str(peer.state)],
            }
            codes = {"misspelt": 2}
            nothing_s, *commands_s = _medians(
                [
                    (["-c", "pass"], 0),
                    *((["-m", "node", *line], codes.get(it, 0)) for it, line in words.items()),
                ],
                runs,
            )
    measured = {
        name: {
            "cpu_s": round(cpu_s, 3),
            "ratio": round(cpu_s / nothing_s, 1),
            "ratio_aim": round(AIM_CPU_S[name] / PASS_CPU_S, 1),
        }
        for name, cpu_s in zip(words, commands_s, strict=True)
    }
    return {
        "runs": runs,
        "python_pass_cpu_s": round(nothing_s, 4),
        "commands": measured,
        "held": all(found["ratio"] <= found["ratio_aim"] for found in measured.values()),
    }


def _medians(commands: Sequence[tuple[list[str], int]], runs: int) -> list[float]:
    """The median CPU-seconds of each command; other load on the machine affects all alike."""
    rounds = [[_cpu_s(*command) for command in commands] for _ in range(runs)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _cpu_s(words: list[str], code: int) -> float:
    """CPU-seconds of one Python process; AssertionError if it ends with another code."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment({}),
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == code, f"{words} ended with {process.returncode}"
    return used.ru_utime + used.ru_stime
