"""A peer's memory: one heap, and what it used at its busiest is the system's again soon."""

import ctypes
import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.commands.running import COLLECTED_OBJECTS, RETURN_EVERY_S, return_freed_memory

# Larger than what Python keeps in places of its own, smaller than what the C library maps.
PIECE_BYTES, PIECES, KEEP_EACH = 2000, 30_000, 64


def own_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (found,) = (it.split()[1] for it in lines if it.startswith("RssAnon"))
    return int(found) << 10


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim") or not Path("/proc/self/status").exists(),
    reason="only glibc gives back what lies between",
)
async def test_what_was_freed_between_what_is_used_is_given_back(
    autojump_clock: MockClock,
) -> None:
    pieces = [bytes([1]) * PIECE_BYTES for _ in range(PIECES)]
    kept = pieces[::KEEP_EACH]
    del pieces
    async with trio.open_nursery() as nursery:
        nursery.start_soon(return_freed_memory)
        await trio.sleep(RETURN_EVERY_S / 2)
        before_bytes = own_bytes()
        await trio.sleep(RETURN_EVERY_S)
        assert own_bytes() < before_bytes - PIECE_BYTES * PIECES // 2
        nursery.cancel_scope.cancel()
    assert all(it == bytes([1]) * PIECE_BYTES for it in kept)


# Threads that hold something larger than Python keeps in places of its own, all at once.
THREADS_ALLOCATE = """
import ctypes, sys, threading
from node.commands.running import keep_one_heap
if sys.argv[1] == "one":
    keep_one_heap()
together = threading.Barrier(5)
def allocate():
    held = [bytes(2000) for _ in range(100)]
    together.wait()
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for it in threads:
    it.start()
together.wait()
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fopen(sys.argv[2].encode(), b"w"))
library.malloc_info(0, file)
library.fclose(file)
together.wait()
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="only glibc has heaps of threads"
)
@pytest.mark.parametrize("heaps", ["one", "as many as threads"])
def test_threads_of_a_peer_share_one_heap(heaps: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", THREADS_ALLOCATE, heaps, str(tmp_path / "heaps")]
    subprocess.run(words, check=True)
    found = (tmp_path / "heaps").read_text().count("<heap nr=")
    assert found == 1 if heaps == "one" else found > 1


class Ring:
    """Something that only the collector ends."""

    def __init__(self) -> None:
        self.itself = self


async def test_what_is_old_and_unused_does_not_wait_for_a_busy_day(
    autojump_clock: MockClock,
) -> None:
    before = gc.get_threshold()
    gc.set_threshold(COLLECTED_OBJECTS, 10, 10)
    try:
        ring = Ring()
        # It outlives two collections, as what lasts for as long as a connection does.
        gc.collect()
        alive = weakref.ref(ring)
        del ring
        async with trio.open_nursery() as nursery:
            nursery.start_soon(return_freed_memory)
            await trio.sleep(RETURN_EVERY_S / 2)
            assert alive() is not None
            await trio.sleep(RETURN_EVERY_S)
            nursery.cancel_scope.cancel()
        assert alive() is None
    finally:
        gc.set_threshold(*before)
