"""A stream that breaks goes on elsewhere: who watches sees each token once, and the right ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.asking.run import TaskRequest
from node.engines.hash_engine import HashEngine, hash_piece
from node.engines.interface import Emit, Job, Output, Part
from node.peer import Node
from node.task.events import Event
from p2p.typed_call import TypedCall
from tests.dispatch.test_progress import Screen
from tests.node.asking import FETCH, MODEL, complete, failures, request, signers
from tests.node.engines import PROBE, Counted
from tests.node.network import D, I, S, open_network
from wire import limits
from wire.content import PeerId
from wire.errors import EngineFailed
from wire.kinds import Level
from wire.message import Accept, Message, Offer, Piece, Refuse

TOKENS = 20
PROMPT = request(complete(TOKENS), data=b"prompt", level=Level.SIGNED)
OUTPUT = b"".join(hash_piece(MODEL, b"prompt", at) for at in range(TOKENS))


class Watching:
    """An asker's screen, and everything that was told."""

    def __init__(self) -> None:
        self.screen = Screen()
        self.events: list[Event] = []
        self.moved = trio.Event()

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self.screen.on_event(event)
        self.moved.set()
        self.moved = trio.Event()

    async def until(self, units: int) -> None:
        while self.screen.units < units:
            await self.moved.wait()


def busy(nodes: list[Node]) -> Node:
    return next(it for it in nodes if it.leg_server.under_way)


async def watched(asker: Node, wanted: TaskRequest, watching: Watching) -> list[str]:
    """Wait for the answer: the screen shows it, whole. Who signed for it."""
    task = await asker.tasks.submit(wanted)
    with trio.fail_after(wanted.deadline_s + 5):
        answered = await asker.tasks.watch(task, watching.on_event)
    assert watching.screen.data == answered.output
    assert watching.screen.units == TOKENS
    return [str(it) for it in signers(answered)]


@pytest.mark.parametrize("kills", [1, 2])
@pytest.mark.parametrize("legs", [1, 2])
async def test_peers_that_die_in_mid_stream_are_stood_in_for_token_by_token(
    autojump_clock: MockClock, tmp_path: Path, kills: int, legs: int
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(D, S)
        workers = [await network.start(I, S, engine=Counted(unit_s=1.0)) for _ in range(3)]
        await network.settled()
        wanted = PROMPT
        if legs == 2:
            wanted = request(FETCH, complete(TOKENS), data=None, level=Level.SIGNED)
        watching = Watching()
        began_at_s = trio.current_time()

        async def kill_them() -> None:
            for number in range(kills):
                await watching.until(5 * (number + 1))
                worker = busy(workers)
                workers.remove(worker)
                network.kill(worker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_them)
            await watched(asker, wanted, watching)
        assert watching.screen.restarts == 0
        if legs == 1:
            assert watching.screen.data == OUTPUT
        # What was there was not made again: that would have taken five more seconds, or fifteen.
        assert trio.current_time() - began_at_s < TOKENS + 4
        # It is what a run without deaths gives.
        again = Watching()
        await watched(asker, wanted, again)
        assert again.screen.data == watching.screen.data


async def test_the_only_peer_goes_on_where_its_connection_broke(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        worker = await network.start(I, S, engine=Counted(unit_s=1.0))
        await network.settled()
        watching, paused_s = Watching(), list[float]()

        async def cut() -> None:
            for number in range(2):
                await watching.until(4 * (number + 1))
                nursery.start_soon(again, watching.screen.units + 1, trio.current_time())
                # As when its address changes, or the relay before it dies: nobody says good-bye.
                await asker.peers.endpoint.disconnect(worker.peers.me)

        async def again(units: int, cut_at_s: float) -> None:
            await watching.until(units)
            paused_s.append(trio.current_time() - cut_at_s)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            assert await watched(asker, PROMPT, watching) == [str(worker.peers.me)]
        assert len(paused_s) == 2
        assert max(paused_s) < 4
        assert watching.screen.restarts == 0
        assert watching.screen.data == OUTPUT


@pytest.mark.parametrize("both", [False, True], ids=["one leg", "both legs"])
async def test_the_data_peer_that_dies_in_mid_stream_is_stood_in_for_too(
    autojump_clock: MockClock, tmp_path: Path, both: bool
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        if both:
            holders = [await network.start(D, I, S, engine=Counted(unit_s=1.0)) for _ in range(2)]
        else:
            holders = [await network.start(D, S) for _ in range(2)]
            for _ in range(3):
                await network.start(I, S, engine=Counted(unit_s=1.0))
        await network.settled()
        watching = Watching()
        began_at_s = trio.current_time()

        async def kill_the_holder() -> None:
            await watching.until(5)
            network.kill(busy(holders))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_the_holder)
            wanted = request(FETCH, complete(TOKENS), data=None, level=Level.SIGNED)
            await watched(asker, wanted, watching)
        assert len(failures(watching.events, "data")) == 1
        assert watching.screen.restarts == 0
        assert trio.current_time() - began_at_s < TOKENS + 4


class Wrong(Counted):
    """Gives honest tokens, then wrong ones, and then fails."""

    def __init__(self, right: int) -> None:
        super().__init__(unit_s=0.0)
        self.right = right

    async def infer(self, job: Job, emit: Emit | None = None) -> Output:
        if job.input == PROBE:
            return await super().infer(job, emit)
        assert emit is not None
        for at in range(self.right + 4):
            piece = hash_piece(MODEL, job.input, at)
            await emit(Part(at, 1, piece if at < self.right else piece[::-1]))
        raise EngineFailed("it ran out of lies")


@pytest.mark.parametrize("right", [0, 3])
@pytest.mark.parametrize("legs", [1, 2])
async def test_wrong_tokens_are_taken_back_by_who_goes_on(
    autojump_clock: MockClock, tmp_path: Path, right: int, legs: int
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(D, S)
        await network.start(I, S, engine=Wrong(right))
        honest = await network.start(I, S, engine=Counted(unit_s=1.0))
        await network.settled()
        wanted = PROMPT
        if legs == 2:
            wanted = request(FETCH, complete(TOKENS), data=None, level=Level.SIGNED)
        watching = Watching()
        began_at_s = trio.current_time()
        by = await watched(asker, wanted, watching)
        assert by[-1] == str(honest.peers.me)
        assert watching.screen.restarts == 1
        # What was right was gone on from.
        assert trio.current_time() - began_at_s == pytest.approx(TOKENS - right, abs=1)


Pieces = list[tuple[int, int, bytes]]


@asynccontextmanager
async def hostile(tmp_path: Path, pieces: Pieces) -> AsyncIterator[tuple[Node, PeerId]]:
    """An asker, and somebody that is asked first, streams `pieces` and does no more."""
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        await network.start(I, S, engine=Counted(unit_s=0.1))
        await network.settled()

        async def stream(call: TypedCall, _: Message) -> None:
            await call.send(Accept(expected_ms=0))
            for position, units, data in pieces:
                await call.send(Piece(position=position, units=units, data=data))
            await call.send(Refuse(reason="no more", retry_after_ms=None))

        async with network.outsider(I) as rogue:
            rogue.answer(Offer, stream)
            yield asker, rogue.key.peer


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 1, b"a"), (2, 1, b"c")],
        [(1, 1, b"b")],
        [(0, 2**31, b"a"), (2**31, 1, b"b")],
        [(0, 1, b"a"), (0, 1, b"a")] * 40,
    ],
    ids=["a gap", "not from the start", "without end", "again and again"],
)
async def test_who_leaves_tokens_out_or_repeats_them_is_passed_over(
    autojump_clock: MockClock, tmp_path: Path, pieces: Pieces
) -> None:
    async with hostile(tmp_path, pieces) as (asker, rogue):
        watching = Watching()
        await watched(asker, PROMPT, watching)
        assert watching.screen.data == OUTPUT
        assert [it.peer for it in failures(watching.events)] == [rogue]
        assert asker.peers.scores.cost(rogue, trio.current_time()) > 0


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 5, b"a")],
        [(0, 5, OUTPUT[: 5 * 64])],
        [(0, 5, OUTPUT[: 4 * 64] + bytes(64))],
        [(0, 1, OUTPUT[:32]), (1, 1, OUTPUT[32:128]), (2, 1, bytes(64))],
        [(0, TOKENS + 50, OUTPUT)],
        [(0, 1, b""), (1, 2**30, b"")],
        [(at, 1, bytes(16 << 10)) for at in range(6)],
        [(0, TOKENS, OUTPUT), (TOKENS, 7, b"and more")],
    ],
    ids=[
        "fewer bytes than units",
        "one large piece",
        "one large piece, wrong at its end",
        "cut elsewhere",
        "more units than bytes",
        "nothing at all",
        "more than is passed on",
        "beyond the end",
    ],
)
async def test_whatever_was_streamed_before_the_answer_is_shown_right_in_the_end(
    autojump_clock: MockClock, tmp_path: Path, pieces: Pieces
) -> None:
    async with hostile(tmp_path, pieces) as (asker, _):
        watching = Watching()
        await watched(asker, PROMPT, watching)
        assert watching.screen.data == OUTPUT


async def test_a_stream_that_is_too_large_to_pass_on_is_still_shown_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    tokens = limits.INLINE_BYTES_MAX // 64 + 200
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        workers = [await network.start(I, S, engine=HashEngine(unit_s=0.001)) for _ in range(2)]
        await network.settled()
        watching = Watching()

        async def kill_it() -> None:
            await watching.until(tokens - 100)
            network.kill(busy(workers))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_it)
            wanted = request(complete(tokens), data=b"prompt", level=Level.SIGNED)
            task = await asker.tasks.submit(wanted)
            answered = await asker.tasks.watch(task, watching.on_event)
        assert watching.screen.data == answered.output
        assert (watching.screen.units, watching.screen.restarts) == (tokens, 0)
        assert failures(watching.events)


async def test_an_answer_that_was_computed_before_is_shown_as_well(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start(S)
        engine = Counted()
        await network.start(I, S, engine=engine)
        await network.settled()
        for _ in range(2):
            await watched(asker, PROMPT, Watching())
        assert engine.calls == 1
