"""Files over one libp2p stream, and nothing else: what fetching a published folder is compared to.

    python -m tests.bench._plain_copy send FOLDER        prints its address, then sends the folder
    python -m tests.bench._plain_copy take ADDRESS DIR   writes what comes, and ends

Each in a process of its own, as two peers would be. Nothing is hashed, stored or resumed; the
connection is the one that peers have: TCP, noise, yamux. Each prints what it took as JSON, from the
opening of the stream to its end: that Python has to start first is not counted.
"""

import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from p2p.over_libp2p import TcpTransport
from p2p.transport import ByteStream
from wire.content import PeerId
from wire.signing import SigningKey

_HEAD = struct.Struct(">HQ")
_READ_BYTES = 64 << 10
_WRITE_BYTES = 256 << 10
LISTEN = "/ip4/127.0.0.1/tcp/0"


async def send(folder: Path) -> None:
    """Send the folder to the first that opens a stream."""
    sent = trio.Event()

    async def accept(_: PeerId, stream: ByteStream) -> None:
        await stream.read(1)
        begun = _now()
        for path in files_of(folder):
            name = path.relative_to(folder).as_posix().encode()
            data = path.read_bytes()
            head = _HEAD.pack(len(name), len(data)) + name
            await stream.write(head + data[:_WRITE_BYTES])
            for at in range(_WRITE_BYTES, len(data), _WRITE_BYTES):
                await stream.write(data[at : at + _WRITE_BYTES])
        await stream.close()
        # The other side ends once it has all.
        await stream.read(1)
        _print_since(begun)
        sent.set()

    async with _transport().open(SigningKey(os.urandom(32)), [LISTEN], accept=accept) as endpoint:
        sys.stdout.write(endpoint.addresses[0] + "\n")
        sys.stdout.flush()
        await sent.wait()


async def take(address: str, folder: Path) -> None:
    """Write what comes of a folder that `send` sends."""

    async def accept(_: PeerId, stream: ByteStream) -> None:
        await stream.reset()

    async with _transport().open(SigningKey(os.urandom(32)), [LISTEN], accept=accept) as endpoint:
        peer = await endpoint.connect(address, deadline_s=30)
        stream = await endpoint.open_stream(peer, deadline_s=30)
        begun = _now()
        await stream.write(b"s")
        buffer = bytearray()
        while data := await stream.read(_READ_BYTES):
            buffer += data
            _write_whole(buffer, folder)
        os.sync()
        _print_since(begun)
        await stream.close()


def files_of(folder: Path) -> Iterator[Path]:
    """Every file below a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _write_whole(buffer: bytearray, folder: Path) -> None:
    """Write the files that are whole in the buffer, and take them out of it."""
    while len(buffer) >= _HEAD.size:
        name_bytes, size_bytes = _HEAD.unpack_from(buffer)
        begin = _HEAD.size + name_bytes
        if len(buffer) < begin + size_bytes:
            return
        path = folder / bytes(buffer[_HEAD.size : begin]).decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(memoryview(buffer)[begin : begin + size_bytes])
        del buffer[: begin + size_bytes]


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


def _print_since(begun: tuple[float, float]) -> None:
    clock_s, used_s = (now - then for now, then in zip(_now(), begun, strict=True))
    sys.stdout.write(json.dumps({"seconds": clock_s, "cpu_s": used_s}) + "\n")
    sys.stdout.flush()


def _transport() -> TcpTransport:
    return TcpTransport(wall_ns=time.time_ns)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", folder]:
            trio.run(send, Path(folder))
        case ["take", address, folder]:
            trio.run(take, address, Path(folder))
        case _:
            sys.exit("send FOLDER, or take ADDRESS DIR")
