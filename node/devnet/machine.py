"""What a run asks of the machine it runs on: real time, processor time, memory."""

from collections.abc import Callable
from dataclasses import dataclass

from wire.errors import InputError

# Measured: 2.0 MiB for each of a thousand peers once they are up, 3.2 MiB for each of two hundred
# after a minute of ten tasks a second.
PEER_BYTES = 3 << 20
PROCESS_BYTES = 200 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Made in `node.__main__`, or by a test.

    `seed_library` seeds what libp2p draws by itself. `collect_seldom` has cyclic garbage looked for
    seldom: with the objects of so many peers it took a quarter of all processor time.
    """

    monotonic_s: Callable[[], float]
    cpu_s: Callable[[], float]
    used_bytes: Callable[[], int]
    free_bytes: Callable[[], int]
    seed_library: Callable[[int], None]
    collect_seldom: Callable[[], None]


def check_memory(peers: int, machine: Machine) -> None:
    """InputError, saying how many would fit, unless the machine has memory for so many peers."""
    free_bytes = machine.free_bytes()
    fitting = max(0, (free_bytes - PROCESS_BYTES) // PEER_BYTES)
    if peers > fitting:
        raise InputError(
            f"{peers} peers need about {(PROCESS_BYTES + peers * PEER_BYTES) >> 20} MiB, and"
            f" {free_bytes >> 20} MiB are free",
            todo=f"{fitting} fit: give --peers {fitting} or fewer",
        )
