"""A crowd at the console: each hears at once that there is no room, and the peer works on."""

import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from node.console import server, site
from node.console.live import WATCHERS_MAX
from node.console_config import ConsoleConfig
from node.gateway.keys import add_key, keys_file
from node.health.finding import Finding, State
from tests.console.served import Console, serving
from tests.node.asking import asked, request
from wire.kinds import Level
from wire.payload import Texts

CROWD = 1000
# Both ends of each connection are in this process.
DESCRIPTORS = 4 * CROWD
# Those of its clients, which this process is too, are most of it.
MEMORY_BYTES_MAX = 64 << 20
# On a machine that does nothing else it takes two.
ANSWERED_S = 10.0
UNCHECKED: dict[str, Any] = {"needed": 0, "verifiers": 0, "level": Level.SIGNED}


async def who_reads_nothing(console: Console) -> trio.socket.SocketType:
    """A browser that asks for changes and takes none: what it may be sent fits into little."""
    host, _, port = console.host.rpartition(":")
    slow = trio.socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    await slow.connect((host, int(port)))
    head = f"GET /events HTTP/1.1\r\nHost: {console.host}\r\nCookie: {console.cookie}\r\n\r\n"
    await slow.send(head.encode())
    return slow


def watchers(console: Console) -> int:
    found = console.node.status_sources["console"]()["watchers"]
    assert isinstance(found, int)
    return found


async def until_full(console: Console) -> list[trio.socket.SocketType]:
    """All places taken by those who read nothing."""
    slow = [await who_reads_nothing(console) for _ in range(WATCHERS_MAX)]
    with trio.fail_after(60):
        while watchers(console) < WATCHERS_MAX:
            await trio.sleep(0.01)
    return slow


async def test_who_reads_nothing_loses_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SEND_BUFFER_BYTES", 4096)
    monkeypatch.setattr(server, "LIMITS", replace(server.LIMITS, send_s=0.2))
    async with serving(tmp_path) as console:
        # More than the kernels on both sides hold, so that it is noticed with the first message.
        console.findings = [
            Finding(f"disk-{it}", "full", State.BAD, "x" * 20_000, "") for it in range(16)
        ]
        await console.enter()
        slow = [await who_reads_nothing(console) for _ in range(WATCHERS_MAX)]
        with trio.fail_after(60):
            while not watchers(console):
                await trio.sleep(0.01)
            await asked(console.node, request(**UNCHECKED))
            while watchers(console):
                await trio.sleep(0.01)
        async with console.events() as events:
            assert await events.begin() == 200
        for one in slow:
            one.close()


async def test_a_form_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "FORM_S", 0.2)
    keys = keys_file(tmp_path / "0")
    add_key(keys, "phone", 600, lambda size: b"k" * size, 0.0)
    async with serving(tmp_path, ConsoleConfig(host="0.0.0.0", port=0)) as console:
        console.url = console.url.replace("0.0.0.0", "127.0.0.1")
        head = f"POST /enter HTTP/1.1\r\nHost: {console.host}\r\nOrigin: http://{console.host}"
        async with await console.connect() as stream:
            # Anybody who reaches the port may send this, and hold a place with it.
            await stream.send_all(f"{head}\r\nContent-Length: 50\r\n\r\nkey=".encode())
            data = b""
            with trio.fail_after(20):
                while part := await stream.receive_some():
                    data += part
        assert data.startswith(b"HTTP/1.1 408")
        assert b"did not come within" in data


class Crowd:
    """Clients that all come at once, hear what they are told, and stay."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.heard: Counter[bytes] = Counter()
        self.slowest_s = 0.0

    async def one(self) -> None:
        began_s, data = time.monotonic(), b""
        async with self.console.events() as events:
            while b"\r\n\r\n" not in data and (part := await events.stream.receive_some()):
                data += part
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            self.heard[data[:12]] += b"retry-after: " in data
            await trio.sleep_forever()


def memory_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as a crowd within this process needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(DESCRIPTORS, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.soak
@pytest.mark.usefixtures("descriptors")
async def test_a_thousand_are_told_at_once_and_the_peer_works_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as console, trio.open_nursery() as nursery:
        await console.enter()
        slow = await until_full(console)
        crowd, before_bytes, done = Crowd(console), memory_bytes(), 0
        for _ in range(CROWD):
            nursery.start_soon(crowd.one)
        with trio.fail_after(60):
            while crowd.heard.total() < CROWD:
                data = Texts(texts=(f"text {done}",)).to_bytes()
                await asked(console.node, request(data=data, **UNCHECKED))
                done += 1
        assert crowd.heard == {b"HTTP/1.1 503": CROWD}
        assert crowd.slowest_s < ANSWERED_S
        assert done > 0
        assert memory_bytes() - before_bytes < MEMORY_BYTES_MAX
        # The page itself can be loaded, and those who watch still have their places.
        assert '"full": true' in (await console.ask("GET", "/state")).text
        assert watchers(console) == WATCHERS_MAX
        nursery.cancel_scope.cancel()
        for one in slow:
            one.close()
