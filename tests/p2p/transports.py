"""Endpoints for the tests: over TCP on this machine, and over memory."""

import hashlib
import itertools
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import cast

import trio

from p2p.over_libp2p import MemoryNetwork, MemoryTransport, TcpTransport
from p2p.over_libp2p.endpoint import LibEndpoint
from p2p.over_libp2p.host import libp2p_id
from p2p.streams import Serve, Streams, open_streams
from p2p.transport import Accept, ByteStream, Endpoint, Transport
from wire.content import PeerId
from wire.signing import SigningKey

_numbers = itertools.count(1_700_000_000_000_000_000)


def rising() -> int:
    """A wall clock for tests: it only ever goes forward."""
    return next(_numbers)


def key_of(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


async def echo(_peer: PeerId, stream: ByteStream) -> None:
    while data := await stream.read(1 << 16):
        await stream.write(data)
    await stream.close()


async def ignore(_peer: PeerId, _stream: ByteStream) -> None:
    """Accept a stream and never read it."""
    await trio.sleep_forever()


@dataclass(frozen=True)
class Kind:
    """One transport, and where to listen with it."""

    transport: Transport
    listen: str

    def open(
        self, name: str, accept: Accept = echo, listen: str = ""
    ) -> AbstractAsyncContextManager[Endpoint]:
        return self.transport.open(key_of(name), [listen or self.listen], accept=accept)

    def streams(self, name: str, serve: Serve) -> AbstractAsyncContextManager[Streams]:
        return open_streams(self.transport, key_of(name), [self.listen], serve=serve)


def kind_of(name: str) -> Kind:
    if name == "tcp":
        return Kind(TcpTransport(wall_ns=rising), "/ip4/127.0.0.1/tcp/0")
    return Kind(MemoryTransport(MemoryNetwork(), wall_ns=rising), "/memory/0")


async def connect(source: Endpoint, target: Endpoint) -> PeerId:
    return await source.connect(target.addresses[0], deadline_s=10)


async def until(ready, deadline_s: float = 10) -> None:
    """Wait for what the network brings about; there is nothing else to wait for."""
    with trio.fail_after(deadline_s):
        while not ready():
            await trio.sleep(0.01)


async def until_sends(source: Endpoint, target: PeerId, topic: str = "topic") -> None:
    """Until `source` sends `target` what it has of a topic: heartbeats of gossip bring it about."""
    mesh = cast("LibEndpoint", source)._pubsub.router.mesh[topic]
    await until(lambda: libp2p_id(target) in mesh, 60)


async def read_all(stream: ByteStream, size_bytes: int) -> bytes:
    data = bytearray()
    with trio.fail_after(20):
        while len(data) < size_bytes:
            data += await stream.read(size_bytes - len(data))
    return bytes(data)


async def answers(source: Endpoint, target: PeerId) -> bool:
    """Whether an echo comes back over a new stream."""
    stream = await source.open_stream(target, deadline_s=10)
    await stream.write(b"are you there")
    answer = await read_all(stream, 13)
    await stream.close()
    return answer == b"are you there"
