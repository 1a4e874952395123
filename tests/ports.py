"""A port that stays free until a test has it taken: the system gives it to nobody else."""

import itertools
import os
import socket
from contextlib import closing
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
PORTS = 8192
_numbers = itertools.count(os.getpid() * 64)


def free_port() -> int:
    """A port below those of which the system gives whoever asks for any one, or calls somebody.

    Other tests ask for such all the time, and one of those that was closed may be theirs at once.
    """
    end = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32768
    for number in itertools.islice(_numbers, PORTS):
        port = max(1024, end - PORTS) + number % min(PORTS, end - 1024)
        with closing(socket.socket()) as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
        return port
    raise AssertionError("every port is taken")
