"""Whole noise messages into yamux: libp2p's insides are as we take them, and nothing is lost."""

from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession
from libp2p.tools.anyio_service.trio_tasks import FunctionTask

from p2p.over_libp2p.endpoint import LibEndpoint
from p2p.over_libp2p.host import UNHEARD
from p2p.over_libp2p.muxer import SoundYamux
from p2p.over_libp2p.noise_messages import NoiseMessages
from p2p.over_libp2p.services import ServiceTasks
from tests.p2p.transports import connect, kind_of, read_all

TAG = b"tag!"


class Cipher:
    """In place of noise: the bytes with a tag behind them."""

    def encrypt(self, data: bytes) -> bytes:
        return data + TAG

    def decrypt(self, data: bytes) -> bytes:
        if not data.endswith(TAG):
            raise ValueError("a wrong tag")
        return data[: -len(TAG)]


@dataclass
class Socket:
    """In place of a socket: what is written can be read, in pieces of these sizes."""

    incoming: bytes = b""
    sizes: list[int] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)

    async def read(self, n: int | None = None) -> bytes:
        size = min(self.sizes.pop(0) if self.sizes else 1 << 20, n or 1 << 20)
        data, self.incoming = self.incoming[:size], self.incoming[size:]
        return data

    async def write(self, data: bytes) -> None:
        self.written.append(data)


def messages_over(socket: Socket, before: bytes = b"") -> NoiseMessages:
    raw = RawConnection(cast("Any", socket), initiator=True)
    unused = cast("Any", None)
    session = SecureSession(
        local_peer=unused,
        local_private_key=unused,
        remote_peer=unused,
        remote_permanent_pubkey=unused,
        is_initiator=True,
        conn=NoiseTransportReadWriter(raw, cast("Any", Cipher())),
    )
    if before:
        session._fill(before)
    return NoiseMessages(session, lambda: True, trio.lowlevel.checkpoint)


async def test_messages_cut_anywhere_are_the_same_bytes() -> None:
    random = Random(5)
    data = random.randbytes(300_000)
    sender = Socket()
    await messages_over(sender).write(data)
    assert len(sender.written) == 1
    assert len(sender.written[0]) == len(data) + 5 * (2 + len(TAG))
    for _ in range(20):
        sizes = [random.choice((1, 2, 3, 700, 65_536)) for _ in range(200)]
        receiver = messages_over(Socket(sender.written[0], sizes), before=b"before")
        assert await receiver.take(6) == b"before"
        found, left = b"", len(data)
        while left:
            size = min(left, random.choice((12, 1, 5000, 70_000)))
            found += await (receiver.read if size == 12 else receiver.take)(size)
            left -= size
        assert found == data


async def test_a_message_that_does_not_open_is_an_error_each_time_and_so_is_the_end() -> None:
    whole = b"\x00\x09hello" + TAG
    receiver = messages_over(Socket(whole + b"\x00\x09hellotug!"))
    assert await receiver.take(5) == b"hello"
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong tag"):
            await receiver.take(1)
    empty = messages_over(Socket(b"\x00\x04" + TAG))
    with pytest.raises(ConnectionClosedError):
        await empty.take(1)
    for left in (b"", whole[:4]):
        ended = messages_over(Socket(left))
        with pytest.raises(IncompleteReadError) as caught:
            await ended.take(1)
        assert caught.value.is_clean_close is not bool(left)


async def test_another_kind_of_connection_is_refused_at_once() -> None:
    class Other(RawConnection):  # type: ignore[misc]
        """What a later libp2p may have there."""

    session = cast("Any", messages_over(Socket())._session)
    session.conn.read_writer.read_write_closer = Other(cast("Any", Socket()), initiator=True)
    with pytest.raises(TypeError, match="Other where RawConnection was expected"):
        NoiseMessages(session, lambda: True, trio.lowlevel.checkpoint)


def muxed(endpoint: LibEndpoint) -> SoundYamux:
    (connection,) = endpoint._swarm.get_connections()
    assert isinstance(connection.muxed_conn, SoundYamux)
    return connection.muxed_conn


async def test_data_goes_straight_into_its_stream_and_in_few_writes() -> None:
    kind = kind_of("tcp")
    async with kind.open("a") as a, kind.open("b") as b:
        assert isinstance(a, LibEndpoint)
        assert isinstance(b, LibEndpoint)
        peer = await connect(a, b)
        streams = [await a.open_stream(peer, deadline_s=20) for _ in range(8)]
        ours, theirs = muxed(a), muxed(b)
        writes = 0
        write = ours._messages._raw.write

        async def counted(data: bytes) -> None:
            nonlocal writes
            writes += 1
            await write(data)

        ours._messages._raw.write = counted
        before = ours.delivered, theirs.delivered
        # All at once: one message of noise has them all, and each reader gets its own.
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.write, b"ping!")
        for stream in streams:
            assert await read_all(stream, 5) == b"ping!"
        # If libp2p no longer asks us for headers, or has its buffers elsewhere, these stay behind.
        assert ours.delivered - before[0] == theirs.delivered - before[1] == len(streams)
        assert writes == 1
        large = bytes(range(256)) * 4 * (MAX_PLAINTEXT_LENGTH // 256)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streams[0].write, large)
            assert await read_all(streams[0], len(large)) == large


async def test_nobody_listens_for_streams_so_libp2p_need_not_tell() -> None:
    async with kind_of("memory").open("a") as endpoint:
        swarm = cast("LibEndpoint", endpoint)._swarm
        assert len(swarm.notifees) == 4
        for notifee in swarm.notifees:
            for method in UNHEARD:
                # Whoever does something with the stream would fail, for there is none.
                assert await getattr(notifee, method)(None, None) is None
        told: list[str] = []

        class Hearing:
            """Hears whatever libp2p notifies of."""

            def __getattr__(self, method: str) -> Any:
                async def hear(*_: object) -> None:
                    told.append(method)

                return hear

        swarm.register_notifee(cast("Any", Hearing()))
        await swarm.notify_opened_stream(cast("Any", None))
        assert not told
        await swarm.notify_listen_close(cast("Any", None))
        assert told == ["listen_close"]


async def test_a_service_finds_who_started_a_task_as_libp2p_does() -> None:
    kind = kind_of("memory")
    async with kind.open("a") as a, kind.open("b") as b:
        await connect(a, b)
        await trio.testing.wait_all_tasks_blocked()
        for service in (cast("LibEndpoint", a)._swarm, cast("LibEndpoint", a)._pubsub):
            manager = service.manager
            assert isinstance(manager, ServiceTasks)
            tasks = list(FunctionTask.iterate_tasks(*manager._root_tasks))
            assert len(tasks) > 2
            assert [manager._find_parent_task(it.trio_task) for it in tasks] == tasks
            assert set(manager._running.values()) == set(tasks)
            assert manager._find_parent_task(trio.lowlevel.current_task()) is None


class Passes(trio.abc.Instrument):
    """How often the loop went round."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_a_tcp_stream_is_read_and_written_without_its_locks() -> None:
    class Line:
        """In place of trio's stream: it is always ready."""

        async def send_all(self, data: bytes) -> None:
            assert data

        async def receive_some(self, _: int | None = None) -> bytes:
            return b"\x00\x09hello" + TAG

    tcp = TrioTCPStream(cast("Any", Line()))
    assert type(tcp.read_lock) is type(tcp.write_lock) is trio.Lock
    messages = messages_over(cast("Any", tcp))
    passes = Passes()
    trio.lowlevel.add_instrument(passes)
    for _ in range(50):
        await messages.write(b"word")
        assert await messages.take(5) == b"hello"
    trio.lowlevel.remove_instrument(passes)
    # A lock would cost one for each use.
    assert passes.count <= 2
