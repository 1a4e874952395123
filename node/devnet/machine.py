"""What a run needs from its machine: real time, processor time, memory."""

from collections.abc import Callable
from dataclasses import dataclass

from wire.errors import InputError

# Measured per peer: 2.0 MiB with a thousand peers once they are up, 3.2 MiB with two hundred after
# a minute of ten tasks a second.
PEER_BYTES = 3 << 20
PROCESS_BYTES = 200 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine, as `node.__main__` or a test gives it.

    `collect_seldom` makes Python's garbage collection rare: with so many objects it took a quarter
    of all processor time.
    """

    monotonic_s: Callable[[], float]
    cpu_s: Callable[[], float]
    used_bytes: Callable[[], int]
    free_bytes: Callable[[], int]
    collect_seldom: Callable[[], None]


def check_memory(peers: int, machine: Machine) -> None:
    """InputError, with the number that would fit, if the machine lacks memory for so many peers."""
    free_bytes = machine.free_bytes()
    fitting = max(0, (free_bytes - PROCESS_BYTES) // PEER_BYTES)
    if peers > fitting:
        raise InputError(
            f"{peers} peers need about {(PROCESS_BYTES + peers * PEER_BYTES) >> 20} MiB, and"
            f" {free_bytes >> 20} MiB are free",
            todo=f"{fitting} fit: give --peers {fitting} or fewer",
        )
