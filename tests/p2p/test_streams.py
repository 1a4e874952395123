"""Conversations over pooled streams: what holds, and what breaking it costs."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

from p2p import framed_stream as lanes
from p2p.frames import Frame, FrameKind, FrameParser, credit_frame
from p2p.streams import Call, Streams
from p2p.transport import ByteStream
from tests.p2p.transports import Kind as Transport
from tests.p2p.transports import connect, kind_of, read_all, until
from wire import limits
from wire.content import PeerId
from wire.errors import Disconnected, LocalProtocolError, TooSlow, Unreachable


async def serve(call: Call) -> None:
    """Echo; some words are instructions."""
    async for payload in call:
        match payload:
            case b"refuse":
                raise Disconnected("refused")
            case b"sleep":
                await trio.sleep_forever()
            case b"ask no more":
                await call.send(b"goodbye")
                return
            case _:
                await call.send(payload)


@pytest.fixture(params=["tcp", "memory"])
def kind(request: pytest.FixtureRequest) -> Transport:
    return kind_of(request.param)


@pytest.fixture
def memory() -> Transport:
    return kind_of("memory")


async def ask(
    streams: Streams, peer: PeerId, payload: bytes = b"hello", *, deadline_s: float = 20
) -> bytes:
    async with streams.call(peer, deadline_s=deadline_s) as call:
        await call.send(payload)
        call.finish()
        return await call.receive()


async def raw(streams: Streams, peer: PeerId) -> ByteStream:
    """A stream without a lane: for saying what an honest peer never says."""
    return await streams.endpoint.open_stream(peer, deadline_s=5)


async def test_conversations_follow_each_other_on_one_stream(kind: Transport) -> None:
    async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        for number in range(50):
            assert await ask(a, peer, b"%d" % number) == b"%d" % number
            # The end of the last conversation is on its way back.
            await until(lambda: a.statistics().idle == 1)
        assert a.statistics().opened == 1
        assert a.statistics().reused == 49
        await until(lambda: b.statistics().served == 50)


async def test_both_sides_may_ask_at_once(kind: Transport) -> None:
    async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, a, peer)
                nursery.start_soon(ask, b, a.endpoint.me)


async def test_three_hundred_exchanges_at_once_share_the_pool(kind: Transport) -> None:
    answers = []

    async def one(number: int) -> None:
        answers.append(await ask(a, peer, b"%d" % number * 1000) == b"%d" % number * 1000)

    async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(one, number)
        assert answers == [True] * 300
        assert a.statistics().open_out <= limits.STREAMS_PER_PEER_MAX
        assert b.statistics().refused == 0


async def test_megabytes_flow_under_the_credit_both_ways(kind: Transport) -> None:
    block = bytes(range(256)) * (limits.FRAME_BYTES_MAX // 256)
    async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        async with a.call(peer, deadline_s=60) as call, trio.open_nursery() as nursery:

            async def send() -> None:
                for _ in range(10):
                    await call.send(block)
                call.finish()

            nursery.start_soon(send)
            assert [payload == block async for payload in call] == [True] * 10


@pytest.mark.parametrize("trial", range(12))
async def test_a_cancelled_exchange_costs_one_stream(kind: Transport, trial: int) -> None:
    async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        async with a.call(peer, deadline_s=20) as kept:
            await kept.send(b"first")
            assert await kept.receive() == b"first"
            with trio.move_on_after(0.001 * trial):
                async with a.call(peer, deadline_s=20) as cut:
                    while True:
                        await cut.send(bytes(500_000))
            await kept.send(b"second")
            assert await kept.receive() == b"second"
        assert await ask(a, peer) == b"hello"


async def test_the_credit_stops_a_sender_whom_nobody_reads(
    memory: Transport, autojump_clock: trio.testing.MockClock
) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        sent = 0

        async def send_for_ever() -> None:
            nonlocal sent
            async with a.call(peer, deadline_s=5) as call:
                await call.send(b"sleep")
                while True:
                    await call.send(bytes(1000))
                    sent += 1000

        with pytest.raises(TooSlow, match="took no more"):
            await send_for_ever()
        assert limits.STREAM_CREDIT_BYTES // 2 < sent <= limits.STREAM_CREDIT_BYTES


async def test_a_sender_beyond_its_credit_is_reset_and_alone(memory: Transport) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        greedy = await raw(a, peer)
        await greedy.write(Frame(FrameKind.DATA, b"sleep").to_bytes())
        with pytest.raises(Disconnected), trio.fail_after(5):
            await greedy.write(Frame(FrameKind.DATA, bytes(100_000)).to_bytes() * 100)
        assert await ask(a, peer) == b"hello"


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"\x00" * 20,
        b"\x01\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        Frame(FrameKind.END).to_bytes() * 2 + Frame(FrameKind.END).to_bytes(),
        Frame(FrameKind.DATA, b"x").to_bytes()
        + Frame(FrameKind.END).to_bytes()
        + Frame(FrameKind.DATA, b"x").to_bytes(),
        Frame(FrameKind.DATA, b"x").to_bytes() + credit_frame(1, 2**32 - 1).to_bytes(),
    ],
)
async def test_what_breaks_the_rules_resets_that_stream_only(
    kind: Transport, bytes_sent: bytes
) -> None:
    async def slow(call: Call) -> None:
        heard = [payload async for payload in call]
        if heard != [b"hello"]:
            # Long enough for all that was sent to fall into one conversation.
            await trio.sleep(0.3)
        for payload in heard:
            await call.send(payload)

    async with kind.streams("a", serve) as a, kind.streams("b", slow) as b:
        peer = await connect(a.endpoint, b.endpoint)
        stream = await raw(a, peer)
        await stream.write(bytes_sent)
        with trio.fail_after(5), pytest.raises(Disconnected):
            await read_until_reset(stream)
        assert await ask(a, peer) == b"hello"
        await until(lambda: b.statistics().open_in == 1)


async def read_until_reset(stream: ByteStream) -> None:
    while await stream.read(1 << 16):
        pass
    # A close instead of a reset also ends it; writing then says so.
    while True:
        await stream.write(b"\x00" * 100)
        await trio.sleep(0.01)


async def test_a_conversation_one_byte_at_a_time(kind: Transport) -> None:
    async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
        stream = await raw(a, await connect(a.endpoint, b.endpoint))
        said = Frame(FrameKind.DATA, b"slowly").to_bytes() + Frame(FrameKind.END).to_bytes()
        for index in range(len(said)):
            await stream.write(said[index : index + 1])
        answer = FrameParser().feed(await read_all(stream, len(said)))
        assert answer == [Frame(FrameKind.DATA, b"slowly"), Frame(FrameKind.END)]


async def test_an_answer_nobody_asked_for_is_not_taken(
    memory: Transport, autojump_clock: trio.testing.MockClock
) -> None:
    async def babble(_peer: PeerId, stream: ByteStream) -> None:
        await stream.write(Frame(FrameKind.DATA, b"unasked").to_bytes() * 2)
        await trio.sleep_forever()

    async with memory.streams("a", serve) as a, memory.open("b", accept=babble) as b:
        peer = await connect(a.endpoint, b)
        async with a.call(peer, deadline_s=5) as call:
            await trio.sleep(0.1)
            with pytest.raises(Disconnected, match="outside a call"):
                await call.send(b"hello")


async def test_a_silent_peer_is_found(
    memory: Transport, autojump_clock: trio.testing.MockClock
) -> None:
    async def silent(_peer: PeerId, _stream: ByteStream) -> None:
        await trio.sleep_forever()

    async with memory.streams("a", serve) as a, memory.open("b", accept=silent) as b:
        peer = await connect(a.endpoint, b)
        began_at_s = trio.current_time()
        with pytest.raises(Disconnected, match="heard nothing"):
            await ask_for(a, peer, 600)
        assert trio.current_time() - began_at_s == pytest.approx(lanes.SILENCE_S, abs=0.5)


async def test_a_peer_that_thinks_for_an_hour_is_not_silent(
    memory: Transport, autojump_clock: trio.testing.MockClock
) -> None:
    async def think(call: Call) -> None:
        await call.receive()
        await trio.sleep(600)
        await call.send(b"42")

    async with memory.streams("a", serve) as a, memory.streams("b", think) as b:
        peer = await connect(a.endpoint, b.endpoint)
        assert await ask_for(a, peer, 700) == b"42"
        with pytest.raises(TooSlow, match="said nothing"):
            await ask_for(a, peer, 60)


async def ask_for(streams: Streams, peer: PeerId, deadline_s: float) -> bytes:
    async with streams.call(peer, deadline_s=deadline_s) as call:
        await call.send(b"what is it")
        return await call.receive()


async def test_idle_streams_are_closed_on_both_sides(
    memory: Transport, autojump_clock: trio.testing.MockClock
) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        await ask(a, peer)
        await trio.sleep(lanes.IDLE_S / 2)
        assert (a.statistics().idle, b.statistics().open_in) == (1, 1)
        await trio.sleep(lanes.IDLE_S)
        assert (a.statistics().open_out, b.statistics().open_in) == (0, 0)
        assert await ask(a, peer) == b"hello"


@pytest.mark.parametrize("trickle", [b"", b"\x00"], ids=["nothing", "a byte now and then"])
async def test_a_stream_on_which_nothing_is_said_is_reset(
    memory: Transport, autojump_clock: trio.testing.MockClock, trickle: bytes
) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        silent = [await raw(a, peer) for _ in range(limits.STREAMS_IN_PER_PEER_MAX)]
        await until(lambda: b.statistics().open_in == limits.STREAMS_IN_PER_PEER_MAX)

        async def say_little(stream: ByteStream) -> None:
            while trickle:
                await stream.write(trickle)
                await trio.sleep(lanes.NEVER_SPOKE_S - 1)

        async def ends_after_s(stream: ByteStream) -> float:
            began_at_s = trio.current_time()
            with pytest.raises(Disconnected, match="reset"):
                await stream.read(1)
            return trio.current_time() - began_at_s

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused_by_reset, say_little, silent[0])
            took_s = await ends_after_s(silent[0])
            assert took_s <= (lanes.IDLE_S if trickle else lanes.NEVER_SPOKE_S) + 0.1
            for stream in silent[1:]:
                assert await ends_after_s(stream) <= lanes.NEVER_SPOKE_S
            nursery.cancel_scope.cancel()
        await until(lambda: b.statistics().open_in == 0)
        # Their places are others' again, and the connection is as sound as before.
        assert await ask(a, peer) == b"hello"


async def refused_by_reset(
    say: Callable[[ByteStream], Awaitable[None]], stream: ByteStream
) -> None:
    with suppress(Disconnected):
        await say(stream)


async def test_a_refusal_by_reset_reaches_who_asked(kind: Transport) -> None:
    async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        with pytest.raises(Disconnected):
            await ask(a, peer, b"refuse")
        assert b.statistics().failed == 1
        assert await ask(a, peer) == b"hello"


async def test_last_words_arrive_while_the_other_side_still_speaks(kind: Transport) -> None:
    async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        async with a.call(peer, deadline_s=10) as call:
            await call.send(b"ask no more")
            for _ in range(3):
                await call.send(b"and another thing")
            assert [payload async for payload in call] == [b"goodbye"]
            with pytest.raises(Disconnected, match="ended the conversation"):
                await call.receive()
        assert await ask(a, peer) == b"hello"


async def test_a_pooled_stream_that_died_is_replaced_unseen(kind: Transport) -> None:
    async def one_conversation_each(_peer: PeerId, stream: ByteStream) -> None:
        parser, heard = FrameParser(), []
        while Frame(FrameKind.END) not in heard:
            heard += parser.feed(await stream.read(1 << 16))
        await stream.write(b"".join(frame.to_bytes() for frame in heard))
        await stream.read(1)
        await stream.reset()

    async with kind.streams("a", serve) as a, kind.open("b", one_conversation_each) as b:
        peer = await connect(a.endpoint, b)
        for number in range(3):
            assert await ask(a, peer, b"%d" % number) == b"%d" % number
            await until(lambda: a.statistics().idle == 1)
        assert (a.statistics().renewed, a.statistics().opened) == (2, 3)


async def test_what_was_answered_in_part_is_not_asked_again(memory: Transport) -> None:
    asked = []

    async def half(call: Call) -> None:
        asked.append(await call.receive())
        await call.send(b"half")
        if len(asked) > 1:
            await trio.sleep(0.1)
            raise Disconnected("gone")

    async with memory.streams("a", serve) as a, memory.streams("b", half) as b:
        peer = await connect(a.endpoint, b.endpoint)
        await ask(a, peer)
        await until(lambda: a.statistics().idle == 1)
        async with a.call(peer, deadline_s=5) as call:
            await call.send(b"again")
            assert await call.receive() == b"half"
            with pytest.raises(Disconnected):
                await call.receive()
        assert asked == [b"hello", b"again"]


async def test_streams_from_one_peer_are_bounded_and_refused_aloud(memory: Transport) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        held = [await raw(a, peer) for _ in range(limits.STREAMS_IN_PER_PEER_MAX)]
        await until(lambda: b.statistics().open_in == len(held))
        # The reset may overtake the last word of the opening, which then says Unreachable.
        with pytest.raises((Disconnected, Unreachable)):
            await (await raw(a, peer)).read(1)
        await until(lambda: b.statistics().refused == 1)
        await held.pop().close()
        await until(lambda: b.statistics().open_in == len(held))
        assert await ask(a, peer) == b"hello"


async def test_whoever_finds_all_streams_in_use_waits_or_is_TooSlow(
    memory: Transport, autojump_clock: trio.testing.MockClock
) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                async with a.call(peer, deadline_s=1000) as call:
                    await call.send(b"held")
                    await trio.sleep(30)

            for _ in range(limits.STREAMS_PER_PEER_MAX):
                nursery.start_soon(hold)
            await trio.sleep(1)
            with pytest.raises(TooSlow, match="in use"):
                async with a.call(peer, deadline_s=5):
                    pass
            assert await ask_for(a, peer, 60) == b"what is it"


async def test_an_exchange_that_says_nothing_costs_nothing(memory: Transport) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        async with a.call(peer, deadline_s=5):
            pass
        with pytest.raises(KeyError):
            async with a.call(peer, deadline_s=5):
                raise KeyError
        assert a.statistics().idle == 1
        assert b.statistics().served == 0


async def test_without_a_connection_there_is_no_exchange(memory: Transport) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        with pytest.raises(Disconnected, match="connect first"):
            await ask(a, b.endpoint.me)
        assert a._pools == {}


async def test_our_own_mistakes_are_said_at_once(memory: Transport) -> None:
    async with memory.streams("a", serve) as a, memory.streams("b", serve) as b:
        peer = await connect(a.endpoint, b.endpoint)
        async with a.call(peer, deadline_s=5) as call:
            with pytest.raises(LocalProtocolError):
                await call.send(bytes(limits.FRAME_BYTES_MAX + 1))
            call.finish()
            call.finish()
            with pytest.raises(LocalProtocolError):
                await call.send(b"after the end")


async def test_a_bug_in_serve_ends_the_service(memory: Transport) -> None:
    async def buggy(_exchange: Call) -> None:
        raise ZeroDivisionError

    async with memory.streams("a", serve) as a:
        with pytest.raises(ZeroDivisionError):
            await _serve_with(memory, buggy, a)


async def _serve_with(kind: Transport, handler, asker: Streams) -> None:
    async with kind.streams("b", handler) as b:
        peer = await connect(asker.endpoint, b.endpoint)
        async with asker.call(peer, deadline_s=5) as call:
            await call.send(b"x")
            await trio.sleep_forever()


async def test_nothing_outlives_the_block(kind: Transport) -> None:
    async def once() -> None:
        async with kind.streams("a", serve) as a, kind.streams("b", serve) as b:
            peer = await connect(a.endpoint, b.endpoint)
            async with a.call(peer, deadline_s=5) as open_still:
                await open_still.send(b"x")
                await ask(a, peer)

    await once()
    tasks = trio.lowlevel.current_statistics().tasks_living
    await once()
    assert trio.lowlevel.current_statistics().tasks_living <= tasks


async def test_a_peer_can_have_a_conversation_with_itself(kind: Transport) -> None:
    async with kind.streams("a", serve) as a:
        me = a.endpoint.me
        large = bytes(limits.FRAME_BYTES_MAX // 2)
        for payload in (b"hello", large, b"again"):
            assert await ask(a, me, payload) == payload
        with pytest.raises(Disconnected):
            await ask(a, me, b"refuse")
        with pytest.raises(TooSlow):
            await ask(a, me, b"sleep", deadline_s=0.2)
        assert await ask(a, me) == b"hello"
        # Who sleeps over a question is still at it.
        await until(lambda: (a.statistics().open_out, a.statistics().open_in) == (1, 2))
