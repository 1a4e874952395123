"""What others send and nobody reads is bounded for all of them together."""

from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock

from p2p.streams import Call
from tests.p2p.transports import connect, kind_of, until
from wire import limits
from wire.errors import Disconnected

LARGE = bytes(limits.FRAME_BYTES_MAX - 64)
HELD = 4


async def serve(call: Call) -> None:
    """Answer the first word; read no further if that is "wait"."""
    word = await call.receive()
    await call.send(word)
    if word == b"wait":
        await trio.sleep(30)


async def test_unread_frames_of_many_conversations_share_one_bound_and_small_ones_go_on(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNREAD_BYTES_MAX", HELD * limits.FRAME_BYTES_MAX)
    kind = kind_of("memory")
    cut: list[Call] = []

    async def hear_out(flood: Call) -> None:
        """Until the victim ends the conversation, or the stream is cut."""
        try:
            async for _ in flood:
                raise AssertionError
        except Disconnected:
            cut.append(flood)

    async with kind.streams("victim", serve) as victim, AsyncExitStack() as stack:
        floods: list[Call] = []
        for name in ("a", "b", "c"):
            streams = await stack.enter_async_context(kind.streams(name, serve))
            peer = await connect(streams.endpoint, victim.endpoint)
            for _ in range(4):
                flood = await stack.enter_async_context(streams.call(peer, deadline_s=60))
                await flood.send(b"wait")
                assert await flood.receive() == b"wait"
                floods.append(flood)
        for flood in floods:
            await flood.send(LARGE)
        honest = await stack.enter_async_context(kind.streams("honest", serve))
        peer = await connect(honest.endpoint, victim.endpoint)
        async with trio.open_nursery() as nursery:
            for flood in floods:
                nursery.start_soon(hear_out, flood)
            await until(lambda: len(cut) == len(floods) - HELD)
            assert victim.statistics().unread_bytes == HELD * limits.FRAME_BYTES_MAX
            async with honest.call(peer, deadline_s=5) as call:
                offer = bytes(limits.INLINE_BYTES_MAX)
                await call.send(offer)
                assert await call.receive() == offer
        assert len(cut) == len(floods) - HELD
        await until(lambda: victim.statistics().unread_bytes == 0)
