"""Who is behind a relay makes no asker pay for what that never called for: it is bounded."""

from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from node.paying import uncalled_bytes
from node.paying.uncalled_bytes import (
    ALL_BYTES,
    EACH_BYTES,
    EACH_BYTES_PER_S,
    FETCHED_PART,
    LINE_BYTES,
    UncalledBytes,
)
from node.peer import Node
from p2p.free_bytes import FreeBytes
from p2p.transport import Lined
from tests.node.network import open_network
from tests.p2p.transports import key_of
from tests.paying.relays import A_MIB, PRICE, ends, get, homes, quiet, relays
from wire.content import PeerId
from wire.errors import BatonError

PAYS = {"relay_pay_max": 1_000_000}
RELAY, ANN = key_of("relay").peer, key_of("ann").peer
LOOK_S = 0.25


def line(brought: int, fetched: int = 0) -> Lined:
    return Lined(RELAY, brought + fetched, True, brought, fetched)


def until_left(counts: UncalledBytes, peer: PeerId, step: int, *, fetches: bool = False) -> int:
    """How much one that goes on and on has moved when its line is left."""
    for number in range(1, 100_000):
        size = number * step
        seen = {peer: line(0, size) if fetches else line(size)}
        if counts.look_at(seen, number * LOOK_S):
            return size
    raise AssertionError("it is never left")


def test_who_sends_without_end_has_a_burst_and_a_trickle() -> None:
    step = 500_000
    assert EACH_BYTES / 2 < until_left(UncalledBytes(), ANN, step) < 2 * EACH_BYTES
    fetched = until_left(UncalledBytes(), ANN, step, fetches=True)
    assert FETCHED_PART * EACH_BYTES / 2 < fetched < FETCHED_PART * 2 * EACH_BYTES
    # What goes on below the trickle is no flood.
    counts = UncalledBytes()
    for number in range(20_000):
        size = int(number * LOOK_S * EACH_BYTES_PER_S * 0.9)
        assert not counts.look_at({ANN: line(size)}, number * LOOK_S)


def test_a_line_that_ends_before_it_is_looked_at_counts_all_the_same() -> None:
    counts = UncalledBytes()
    lines = 0
    while not counts.look_at({ANN: line(0)}, lines * LOOK_S):
        counts.look_at({}, lines * LOOK_S)
        lines += 1
    assert EACH_BYTES // LINE_BYTES <= lines < 2 * EACH_BYTES // LINE_BYTES


def test_who_calls_many_keeps_its_lines() -> None:
    counts, random = UncalledBytes(), Random(2)
    for number in range(1500):
        greeted = {PeerId(random.randbytes(32)): line(4000) for _ in range(4)}
        assert not counts.look_at(greeted, number * LOOK_S), number


def test_what_is_on_its_way_to_its_reader_counts_once() -> None:
    counts = UncalledBytes()
    for number in range(1000):
        # A megabyte has come that is read by the next look.
        seen = Lined(RELAY, number * A_MIB, True, A_MIB if number % 2 else 0, 0)
        assert not counts.look_at({ANN: seen}, number * LOOK_S)


def test_many_keys_move_no_more_than_all_together_may() -> None:
    counts, random, moved = UncalledBytes(), Random(1), 0
    for number in range(400):
        peer = PeerId(random.randbytes(32))
        for step in range(1, 17):
            at_s = number * 4 + step * LOOK_S
            moved += 500_000
            if counts.look_at({peer: line(step * 500_000)}, at_s):
                break
    seconds = 400 * 4
    allowed = ALL_BYTES + seconds * uncalled_bytes.ALL_BYTES_PER_S
    assert moved < 2 * allowed


async def flood(kept: Node, asker: Node) -> None:
    """Send what begins a frame, and never its end, again and again."""
    endpoint = kept.peers.endpoint
    with suppress(BatonError):
        while True:
            stream = await endpoint.open_stream(asker.peers.me, deadline_s=5.0)
            with trio.move_on_after(2.0):
                await stream.write((900 << 10).to_bytes(4) + bytes(200 << 10))
            await stream.reset()
            await trio.sleep(0.1)


@pytest.mark.parametrize("fetches", [False, True])
async def test_a_kept_peer_that_floods_an_asker_is_left(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fetches: bool
) -> None:
    monkeypatch.setattr(uncalled_bytes, "EACH_BYTES", A_MIB)
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network, **PAYS)
        await get(asker, kept, 2 * A_MIB)
        await quiet()
        before = ends(asker, relay)[0].relayed_bytes
        if fetches:
            with suppress(BatonError):
                for seed in range(3):
                    await get(kept, asker, 4 * A_MIB, seed)
        else:
            with trio.move_on_after(20):
                await flood(kept, asker)
        await quiet()
        more = ends(asker, relay)[0].relayed_bytes - before
        # What was called for allows as much again.
        assert more < (10 if fetches else 5) * A_MIB
        assert "than this peer called for" in asker.peers.problems[f"line to {kept.peers.me}"]
        # It may still be asked, and is paid for.
        await trio.sleep(120)
        await get(asker, kept, A_MIB, 7)


async def test_who_pays_has_a_line_whatever_those_hold_that_do_not(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network, **PAYS)
        counts, now_at_s = relay.peers.relaying.counts, trio.current_time()
        for number in range(counts.limits.lines_per_kept):
            # Keys cost nothing.
            counts.admit(key_of(f"{number}").peer, kept.peers.me, now_at_s)
        await asker.peers.endpoint.leave_line(kept.peers.me)
        for seed in range(4):
            with suppress(BatonError):
                await get(asker, kept, 2 * A_MIB, seed)
                break
            await trio.sleep(20)
        await quiet()
        assert ends(asker, relay)[1].charged > 0


async def test_who_pays_is_not_kept_out_by_those_who_use_up_what_is_free(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        (relay,) = await relays(network, PRICE)
        asker, kept = await homes(network, **PAYS)
        # Others, with as many keys as they like, take all there is before anybody else can.
        monkeypatch.setattr(FreeBytes, "take", lambda *_: False)
        for seed in range(4):
            with suppress(BatonError):
                await get(asker, kept, 2 * A_MIB, seed)
                break
            await trio.sleep(20)
        await quiet()
        paid, earned = ends(asker, relay)
        assert earned.charged > 0
        assert paid.relayed_bytes > 2 * A_MIB
