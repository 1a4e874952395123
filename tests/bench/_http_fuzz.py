"""Mutated HTTP conversations with a gateway: raw bytes on its connections, from one seed.

Each conversation is one of the corpus, with changed bytes, cut anywhere, sent by a client that may
read, stop reading, wait, close one side, or leave. On the clock of `trio.testing` waits are free.
"""

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.gateway.access import AccessMiddleware
from node.gateway.app import gateway_app
from node.gateway.http_connection import HttpLimits
from node.gateway.http_server import HttpServer
from node.gateway_config import GatewayConfig
from tests.bench._direct_gateway import direct_node

HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
ORIGIN = "https://app.example"
AT_ONCE = 24
HONEST_EVERY = 200
TURNS_MAX = 6


def _post(path: bytes, body: bytes, *fields: bytes) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST %b HTTP/1.1\r\n" % path + HOST + JSON + b"".join(fields) + length + b"\r\n" + body


def _chunked(path: bytes, body: bytes) -> bytes:
    half = len(body) // 2
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(it), it) for it in (body[:half], body[half:]))
    head = b"POST %b HTTP/1.1\r\n" % path + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\nX-Trailer: 1\r\n\r\n"


def _get(path: bytes, *fields: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"%b %b HTTP/%b\r\n" % (method, path, version) + HOST + b"".join(fields) + b"\r\n"


COMPLETION = b'{"model": "hash", "prompt": "hello", "max_tokens": 2}'
STREAMED = b'{"model": "hash", "prompt": "hello", "max_tokens": 2, "stream": true}'
CHAT = b'{"model": "hash", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}'
EMBED = b'{"model": "hash", "input": ["a", "b"]}'
TASK = b'{"model": "hash", "operation": "embed", "texts": ["one"]}'
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
PRIORITY = b"\x00\x00\x05\x02\x00\x00\x00\x00\x03\x00\x00\x00\x00\x10"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
PREFLIGHT = (
    b"Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n"
    b"Access-Control-Request-Headers: content-type\r\n"
)
ID = b"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
CORPUS = (
    _get(b"/healthz"),
    _get(b"/healthz", method=b"HEAD"),
    _get(b"/healthz", version=b"1.0"),
    _get(b"/v1/models"),
    _get(b"/v1/models/hash", b"Connection: close\r\n"),
    _get(b"/openapi.json"),
    _get(b"/v1/tasks/" + ID),
    _get(b"/v1/tasks/" + ID + b"/events"),
    _get(b"/v1/receipts/" + ID, b"Accept: application/octet-stream\r\n"),
    _get(b"/v1/tasks/" + ID, method=b"DELETE"),
    _get(b"*", method=b"OPTIONS"),
    _get(b"/v1/completions", PREFLIGHT, method=b"OPTIONS"),
    _get(b"example.org:443", method=b"CONNECT"),
    _get(b"http://127.0.0.1/v1/models"),
    _post(b"/v1/completions", COMPLETION),
    _post(b"/v1/completions", STREAMED),
    _post(b"/v1/completions", COMPLETION, b"Expect: 100-continue\r\n"),
    _post(b"/v1/chat/completions", CHAT, b"Authorization: Bearer sk-baton-1\r\n"),
    _post(b"/v1/embeddings", EMBED, b"x-baton-deadline: 5\r\n"),
    _post(b"/v1/embeddings", EMBED, b"x-baton-verdicts: 1/1\r\n"),
    _post(b"/v1/tasks", TASK),
    _post(b"/v1/completions", COMPLETION, UPGRADE),
    _post(b"/v1/completions", COMPLETION, b"Transfer-Encoding: chunked\r\n"),
    _post(b"/v1/infer?model=hash", b"\x93NUMPY\x01\x00").replace(
        b"application/json", b"application/x-npy"
    ),
    _chunked(b"/v1/completions", COMPLETION),
    _chunked(b"/v1/completions", STREAMED),
    _get(b"/v1/models", WEBSOCKET),
    _get(b"/v1/models", b"Origin: https://evil.example\r\n"),
    PREFACE + SETTINGS + PRIORITY * 20,
    _get(b"/healthz") * 4,
    _post(b"/v1/completions", COMPLETION) * 3,
)
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b";", b"%00", b"%", b"\xff", b"\xe4"),
    *(b"0\r\n\r\n", b"chunked", b"HTTP/1.0", b"HTTP/2.0", b"HEAD", b'"stream": true', PREFACE),
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999\r\n",
    b"Expect: 100-continue\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Upgrade: h2c\r\n",
    b"ffffffffffffffff\r\n",
    b"Host: evil.example\r\n",
    b"X: " + b"y" * 300,
    b"A: b\r\n" * 120,
    b"/" * 5000,
    b"[" * 200,
)


@dataclass(slots=True)
class Outcome:
    """How the conversations ended."""

    conversations: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    # Honest requests between the mutated conversations.
    honest_answered: int = 0
    broken: list[str] = field(default_factory=list)


def mutated(random: Random) -> bytes:
    """The bytes of one conversation of the corpus, with a few changes or with none."""
    data = bytearray(random.choice(CORPUS))
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 6))):
        at = random.randrange(len(data) + 1)
        to = min(len(data), at + random.choice((1, 1, 2, 8, 40)))
        match random.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1:
                del data[at:to]
            case 2:
                data[at:at] = random.choice(TOKENS)
            case 3:
                data[at:to] = random.randbytes(to - at)
            case 4:
                data[at:at] = data[at:to] * random.choice((1, 2, 30))
            case 5:
                other = random.choice(CORPUS)
                data[at:] = other[random.randrange(len(other)) :]
            case _:
                del data[at:]
    if random.random() < 0.2:
        data += random.choice(CORPUS)
    return bytes(data)


def turns_of(data: bytes, random: Random) -> Iterator[bytes]:
    """The bytes in pieces, as a network may deliver them."""
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(TURNS_MAX)))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        yield data[begin:end]


@dataclass(slots=True)
class HttpFuzz:
    """A gateway without a network, and hostile clients."""

    access: AccessMiddleware
    server: HttpServer
    nursery: trio.Nursery
    outcome: Outcome = field(default_factory=Outcome)

    def connect(self, number: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        address = (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 1)
        self.nursery.start_soon(self.server.serve, theirs, address)
        return ours

    async def converse(self, number: int, random: Random) -> None:
        """Run one conversation to its end."""
        self.outcome.conversations += 1
        with self.connect(number) as ours:
            heard = b""
            for piece in turns_of(mutated(random), random):
                if not await _sent(ours, piece):
                    break
                match random.randrange(8):
                    case 0:
                        await trio.sleep(random.choice((0.5, 15.0, 40.0)))
                    case 1 | 2:
                        heard += _heard_now(ours)
                    case 3 | 4:
                        await trio.lowlevel.checkpoint()
                    case _:
                        pass
            heard += await self._end(ours, random)
        self._check(heard, number)

    async def _end(self, ours: socket.socket, random: Random) -> bytes:
        """Let a client leave: after reading all, closing its sending side, or by a reset."""
        match random.randrange(5):
            case 0:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            case 1:
                ours.shutdown(socket.SHUT_WR)
            case 2:
                # The client never reads, so the server gives it up.
                await trio.sleep(120.0)
                return b""
            case _:
                pass
        return await _heard_all(ours)

    def _check(self, heard: bytes, number: int) -> None:
        if not heard:
            return
        status = heard[9:12]
        if not heard.startswith(b"HTTP/1.1 ") or not status.isdigit() or status == b"500":
            self.outcome.broken.append(f"conversation {number} was answered {heard[:60]!r}")
            return
        self.outcome.statuses[int(status)] += 1

    async def honest(self, number: int) -> None:
        """Check that an honest client between the others gets its usual answer."""
        with self.connect(number) as ours:
            await _sent(ours, _post(b"/v1/completions", COMPLETION, b"Connection: close\r\n"))
            heard = await _heard_all(ours)
        if heard.startswith(b"HTTP/1.1 200 "):
            self.outcome.honest_answered += 1
        else:
            self.outcome.broken.append(f"an honest client got {heard[:60]!r} at {number}")

    def leaks(self) -> list[str]:
        """Resources that are still in use after all clients have left."""
        held = {
            "connections": len(self.server.table),
            "requests at work": self.access.places.used,
            "bytes of bodies": self.access.bodies.used,
        }
        return [f"{count} {what} left" for what, count in held.items() if count]


async def _sent(ours: socket.socket, data: bytes) -> bool:
    """Whether the server still took the bytes."""
    view = memoryview(data)
    with trio.move_on_after(60.0):
        while view:
            try:
                view = view[ours.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(ours)
            except OSError:
                return False
    return not view


def _heard_now(ours: socket.socket) -> bytes:
    try:
        return ours.recv(1 << 16)
    except OSError:
        return b""


async def _heard_all(ours: socket.socket) -> bytes:
    """All bytes up to the end of the connection, which the server closes in any case."""
    heard = b""
    with trio.move_on_after(200.0):
        while True:
            await trio.lowlevel.wait_readable(ours)
            try:
                part = ours.recv(1 << 16)
            except OSError:
                break
            if not part:
                break
            heard += part
    return heard


async def fuzzed(count: int, seed: int, state: Path) -> dict[str, Any]:
    """`count` conversations with one gateway; `held`: nothing broke, and nothing leaked."""
    config = GatewayConfig(origins=frozenset({ORIGIN}))
    node = await direct_node(state)
    access, _ = gateway_app(node, config)
    server = HttpServer(access.handle, HttpLimits(), trio.current_time, node.note)
    random, next_number = Random(seed), iter(range(1, count + 1))
    async with trio.open_nursery() as nursery:
        fuzz = HttpFuzz(access, server, nursery)

        async def client() -> None:
            for number in next_number:
                await fuzz.converse(number, Random(random.getrandbits(64)))
                if number % HONEST_EVERY == 0:
                    await fuzz.honest(number)

        async with trio.open_nursery() as clients:
            for _ in range(AT_ONCE):
                clients.start_soon(client)
        await trio.sleep(300.0)
        broken = [*fuzz.outcome.broken, *fuzz.leaks()]
        nursery.cancel_scope.cancel()
    # An exception that ended only one connection is a bug all the same.
    broken += [f"{number} x {kind}" for kind, number in server.statistics.errors.items()]
    return {
        "conversations": fuzz.outcome.conversations,
        "seed": seed,
        "answered": {str(it): n for it, n in sorted(fuzz.outcome.statuses.items())},
        "honest_answered": fuzz.outcome.honest_answered,
        "server": server.status(),
        "broken": broken[:20],
        "notes": [it.line for it in node.notes][:5],
        "held": not broken,
    }
