"""A console as a browser meets it: a peer of a network in memory, HTTP over this machine's own."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from node.console.server import LINK, open_console
from node.console_config import ConsoleConfig
from node.health.finding import Finding, State
from node.local.commands import LocalCommands
from node.local.control import Command, unheard
from node.peer import Node
from tests.node.network import I, Network, S, open_network

DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Answered:
    """One whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])


@dataclass(slots=True)
class Console:
    """A console that is up; `cookie` and `token` are those of a browser that came in by a link."""

    node: Node
    network: Network
    url: str
    commands: dict[str, Command]
    examined: int = 0
    cookie: str = ""
    token: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://").rstrip("/")

    async def examine(self) -> Sequence[Finding]:
        self.examined += 1
        return self.findings

    async def connect(self) -> trio.SocketStream:
        host, _, port = self.host.rpartition(":")
        return await trio.open_tcp_stream(host, int(port))

    async def ask(
        self,
        method: str,
        target: str,
        changed: dict[str, str | None] | None = None,
        body: bytes = b"",
    ) -> Answered:
        """One request as the page's own browser sends it, with some headers changed or left out."""
        headers: dict[str, str | None] = {
            "Host": self.host,
            "Cookie": self.cookie,
            "Connection": "close",
        }
        if method == "POST":
            headers |= {"Origin": f"http://{self.host}", "X-Baton-Token": self.token}
            headers["Content-Length"] = str(len(body))
        headers |= changed or {}
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        async with await self.connect() as stream:
            await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)
            data = b""
            with trio.fail_after(DEADLINE_S):
                while part := await stream.receive_some():
                    data += part
        return answered(data)

    async def enter(self) -> None:
        """Come in by a link, as a browser does."""
        link = (await self.commands[LINK]({}, unheard))["url"]
        found = await self.ask("GET", link.removeprefix(self.url.rstrip("/")))
        assert found.status == 303, found
        self.cookie = found.headers["set-cookie"].partition(";")[0]
        page = await self.ask("GET", "/")
        self.token = page.text.partition('name="token" content="')[2].partition('"')[0]
        assert len(self.token) == 64

    @asynccontextmanager
    async def events(self, since: int = 0) -> AsyncIterator["Events"]:
        """The stream of changes, as a page hears it."""
        async with await self.connect() as stream:
            head = f"GET /events?since={since} HTTP/1.1\r\nHost: {self.host}\r\n"
            await stream.send_all(f"{head}Cookie: {self.cookie}\r\n\r\n".encode())
            yield Events(stream)


@dataclass(slots=True)
class Events:
    """What comes on one stream of changes."""

    stream: trio.SocketStream
    head: bytes = b""
    _data: bytes = b""

    async def begin(self) -> int:
        """The status of the answer."""
        while b"\r\n\r\n" not in self._data:
            self._data += await self.stream.receive_some()
        self.head, _, self._data = self._data.partition(b"\r\n\r\n")
        return int(self.head.split()[1])

    async def next(self) -> dict[str, Any]:
        """The next message."""
        with trio.fail_after(DEADLINE_S):
            while True:
                found, mark, rest = self._data.partition(b"\n\n")
                if mark and b"data: " in found:
                    self._data = rest
                    return dict(json.loads(found.partition(b"data: ")[2]))
                if mark:
                    self._data = rest
                    continue
                part = await self.stream.receive_some()
                assert part, "the stream ended"
                self._data += part


def answered(data: bytes) -> Answered:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(it.split(": ", 1) for it in lines[1:])
    return Answered(int(lines[0].split()[1]), headers, body)


@asynccontextmanager
async def serving(folder: Path, config: ConsoleConfig | None = None) -> AsyncIterator[Console]:
    """A console of a peer that knows one other, which runs a model."""
    async with open_network(folder) as network:
        node = await network.add(S)
        await network.add(I, S)
        await network.settled()
        commands = LocalCommands(node).commands()
        console = Console(node, network, "", commands)
        console.findings = [
            Finding("disk", "the disk is full", State.BAD, "0 bytes are free", "make <b>room</b>"),
            Finding("clock", "the clock is wrong", State.OK, "it agrees", ""),
        ]
        async with open_console(
            node, config or ConsoleConfig(port=0), commands, console.examine
        ) as url:
            console.url = url
            yield console
