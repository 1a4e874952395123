"""Who moved to another network calls anew: what waits on its dead connection is let go at once."""

import pytest
import trio
from trio.testing import MockClock

from p2p.over_libp2p import muxer
from tests.p2p.transports import answers, connect, kind_of, until


async def test_an_older_connection_of_who_calls_anew_proves_itself_or_ends(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(muxer, "_PROVE_DEADLINE_S", 0.3)
    kind, thawed = kind_of("tcp"), trio.Event()

    async def says_nothing(_data: bytes) -> None:
        await thawed.wait()

    async with kind.open("stays") as stays, kind.open("moves") as before:
        peer = await connect(before, stays)
        waiting = await stays.open_stream(before.me, deadline_s=5)
        (connection,) = before._swarm.get_connections()
        # As from an address that is gone: the socket stands, and nothing comes through it.
        connection.muxed_conn.secured_conn.write = says_nothing
        await waiting.write(b"is anybody there?")
        async with kind.open("moves") as after:
            assert await connect(after, stays) == peer
            # The older one has more streams, and is asked for none.
            with trio.fail_after(2):
                assert await answers(stays, after.me)
            # Far sooner than by its turn to be pinged.
            await until(lambda: stays.statistics().connections == 1, 2)
            assert await answers(stays, after.me)
            thawed.set()


async def test_an_older_connection_that_lives_is_kept(autojump_clock: MockClock) -> None:
    kind = kind_of("tcp")
    async with kind.open("stays") as stays, kind.open("moves") as before:
        await connect(before, stays)
        async with kind.open("moves") as after:
            await connect(after, stays)
            doubted = [it.muxed_conn.in_doubt for it in stays._swarm.get_connections()]
            await until(
                lambda: not any(it.muxed_conn.in_doubt for it in stays._swarm.get_connections()), 2
            )
            assert doubted.count(True) <= 1
            assert stays.statistics().connections == 2
