"""Peers that freeze, and peers that come back elsewhere: real processes, and what others say."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.command_line import START_DEADLINE_S, Peer, at_once, joined

# A frozen peer is found by what it does not answer: yamux's ping, or a swap. In 12 s on a machine
# that has nothing else to do; timeouts follow one that is short of processor time.
NOTICED_WITHIN_S = 45.0
COUNTED_AGAIN_WITHIN_S = 60.0
FOUND_AGAIN_WITHIN_S = 45.0
# How often others save where everybody is, and a little more.
SAVED_AFTER_S = 33.0


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[dict[str, Peer]]:
    """A network of this test's own: who is struck here is nobody else's neighbour."""
    with ExitStack() as stack, ThreadPoolExecutor() as starting:
        first = stack.enter_context(joined(tmp_path / "a", "--role", "store"))

        def hashing(name: str) -> Peer:
            role = "infer" if name.startswith("i") else "verify"
            place = tmp_path / name
            return stack.enter_context(
                joined(place, first.address, "--role", role, "--model", "hash")
            )

        names = ("i1", "i2", "v1")
        found = {"asker": first, **dict(zip(names, starting.map(hashing, names), strict=True))}
        # Who never met it notices nothing of a peer's silence until its advert has run out.
        within(
            2 * START_DEADLINE_S, lambda: all(connected(it) == len(names) for it in found.values())
        )
        yield found


def within(seconds: float, true: Callable[[], bool]) -> float:
    """Seconds until it came to pass; fails if it did not in time."""
    began_at_s = time.monotonic()
    while not true():
        assert time.monotonic() < began_at_s + seconds, "it did not come to pass"
        time.sleep(0.1)
    return time.monotonic() - began_at_s


def living(peer: Peer) -> dict[str, str]:
    """Whom `peer` counts, and where it says that they are."""
    rows = peer.ask("peers", "--json").document["peers"]
    return {row["peer"]: row["addresses"][0] for row in rows}


def connected(peer: Peer) -> int:
    count: int = peer.ask("status", "--json").document["connected"]
    return count


def answered_by(asker: Peer, count: int) -> set[str]:
    """Ask some new questions at once; who did their legs."""
    words = ("ask", "hash", "--fresh", "--verdicts", "1/1", "--deadline", 25, "--json")
    texts = [f"{time.monotonic()} {number}" for number in range(count)]
    done = at_once([(*words, "--text", text, "--state", asker.state) for text in texts])
    return {it.document["route"][-1]["peer"] for it in done}


def test_a_frozen_peer_is_counted_by_nobody_and_tasks_go_around_it_until_it_goes_on(
    peers: dict[str, Peer],
) -> None:
    frozen, seeing = peers["i1"], (peers["asker"], peers["v1"])
    frozen.process.send_signal(signal.SIGSTOP)
    frozen_s = time.monotonic()
    try:
        # Nobody knows yet: some of these are offered to it, and handed on.
        assert answered_by(peers["asker"], 4) == {peers["i2"].id}
        left_s = NOTICED_WITHIN_S - (time.monotonic() - frozen_s)
        within(left_s, lambda: all(frozen.id not in living(it) for it in seeing))
        assert connected(peers["asker"]) == 2
        assert answered_by(peers["asker"], 2) == {peers["i2"].id}
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    within(COUNTED_AGAIN_WITHIN_S, lambda: all(frozen.id in living(it) for it in seeing))
    within(COUNTED_AGAIN_WITHIN_S, lambda: connected(peers["asker"]) == 3)


def test_a_peer_that_comes_back_on_another_port_is_found_there(peers: dict[str, Peer]) -> None:
    gone, first = peers["i1"], peers["asker"]
    gone.stop(signal.SIGKILL)
    with joined(gone.state, first.address, "--role", "infer", "--model", "hash") as back:
        assert back.id == gone.id
        assert back.address != gone.address
        seeing = (first, peers["i2"], peers["v1"])
        within(
            FOUND_AGAIN_WITHIN_S,
            lambda: all(living(it).get(back.id) == back.address for it in seeing),
        )
        # Only it can do this now.
        peers["i2"].stop(signal.SIGKILL)
        assert answered_by(first, 1) == {back.id}


@pytest.mark.soak
def test_a_bootstrap_that_comes_back_on_another_port_calls_those_it_knew(
    peers: dict[str, Peer],
) -> None:
    gone = peers["asker"]
    time.sleep(SAVED_AFTER_S)
    gone.stop(signal.SIGKILL)
    # Told of nobody: what it knew is in its state folder.
    with joined(gone.state, "--role", "store") as back:
        assert back.id == gone.id
        assert back.address != gone.address
        within(FOUND_AGAIN_WITHIN_S, lambda: connected(back) == 3)
        within(FOUND_AGAIN_WITHIN_S, lambda: living(peers["v1"]).get(back.id) == back.address)
        assert answered_by(back, 1) <= {peers["i1"].id, peers["i2"].id}
