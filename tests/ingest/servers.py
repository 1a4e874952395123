"""Servers that tests fetch from: made-up ones on a made-up network, and one on the loopback."""

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpcore
import trio

from node.ingest.guard import Network
from node.ingest.http_fetch import HttpFetcher

TLS = ssl.create_default_context()
PUBLIC = "93.184.216.34"
# A request as it came: its first line and its headers.
Answer = Callable[[str], bytes]


def reply(
    body: bytes = b"", *, status: int = 200, headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole answer of HTTP/1.1."""
    lines = {"content-length": str(len(body)), "connection": "close", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Words\r\n{head}\r\n".encode() + body


def answering(answer: bytes) -> Answer:
    """A server that says one thing, whatever it is asked."""
    return lambda _: answer


def moved(to: str) -> bytes:
    return reply(status=302, headers={"location": to})


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._asked = b""
        self._left: bytes | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._left is None:
            self._left = self._answer(self._asked.decode("latin-1"))
        part, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._asked += buffer

    async def aclose(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        return None


@dataclass
class MadeUpNetwork(httpcore.AsyncNetworkBackend):
    """Names with their addresses, and one server at all of them.

    A name with several lists of addresses has them one after the other, as it is looked up again.
    What is no name is read as the C library reads numbers.
    """

    answer: Answer = field(default_factory=lambda: answering(reply(b"fetched")))
    names: dict[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    looked_up: list[str] = field(default_factory=list)
    connected: list[tuple[str, int]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def seam(self) -> Network:
        return Network(self.resolve, self)

    @property
    def fetcher(self) -> HttpFetcher:
        return HttpFetcher(self.seam, TLS)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.looked_up.append(host)
        if host in self.names:
            rounds = self.names[host]
            return rounds[min(self.looked_up.count(host), len(rounds)) - 1]
        try:
            return [socket.inet_ntoa(socket.inet_aton(host))]
        except OSError:
            return ["127.0.0.1"] if host.endswith("localhost") else [PUBLIC]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))

        def answer(asked: str) -> bytes:
            self.asked.append(asked)
            if asked.startswith("GET /robots.txt "):
                return reply(status=404)
            return self.answer(asked)

        return _Stream(answer)


@asynccontextmanager
async def loopback_server(answer: Answer) -> AsyncIterator[int]:
    """A server on this machine's loopback; the port. It knows no robots.txt."""

    async def serve(stream: trio.SocketStream) -> None:
        asked = b""
        async with stream:
            while b"\r\n\r\n" not in asked:
                part = await stream.receive_some(65_536)
                if not part:
                    return
                asked += part
            text = asked.decode("latin-1")
            robots = text.startswith("GET /robots.txt ")
            await stream.send_all(reply(status=404) if robots else answer(text))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
