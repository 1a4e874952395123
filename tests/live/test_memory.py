"""Where a peer's threads take memory from: a heap of each keeps pages that little lies on."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from tests.live.command_line import Peer

# Glibc sets aside so much, at a multiple of it, for the heap of a thread.
HEAP_BYTES = 64 << 20


def heaps_of_threads(process: int) -> int:
    """How many heaps a process has besides its first."""
    maps = Path(f"/proc/{process}/maps").read_text().splitlines()
    rows = [
        (*(int(it, 16) for it in words[0].split("-")), words[1])
        for words in (line.split() for line in maps)
    ]
    return sum(
        begin % HEAP_BYTES == 0
        and begin + HEAP_BYTES == rest_end
        and end == rest_begin
        and (may, rest_may) == ("rw-p", "---p")
        for (begin, end, may), (rest_begin, rest_end, rest_may) in pairwise(rows)
    )


@pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in os.confstr_names or not Path("/proc/self/maps").exists(),
    reason="only glibc has heaps of threads",
)
def test_threads_of_a_peer_have_no_heap_of_their_own(network: dict[str, Peer]) -> None:
    found = {name: heaps_of_threads(it.process.pid) for name, it in network.items()}
    assert found == dict.fromkeys(network, 0)
