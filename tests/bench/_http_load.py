"""Clients that ask one HTTP server without a pause, and what the servers' processes spent on it.

Processor time is that of whole processes, their threads and their children that have ended, as the
kernel counts it. A 500 is a bug and ends the bench: nothing that it would measure is worth knowing.
"""

import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

WARM_UP_S = 3.0
START_S = 90.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Path and body of the request with this number.
Request = Callable[[int], tuple[str, bytes]]


@dataclass(slots=True)
class _Load:
    """The clients, and how long each answer took."""

    host: str
    port: int
    request: Request
    took_s: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    counting: bool = False
    _asked: int = 0

    async def client(self) -> None:
        """Ask, read the answer, ask again, on one connection for as long as it lives."""
        while True:
            async with await trio.open_tcp_stream(self.host, self.port) as stream:
                while True:
                    began_at_s = trio.current_time()
                    status, stays = await self.ask(stream)
                    if self.counting and status == 200:
                        self.took_s.append(trio.current_time() - began_at_s)
                    elif self.counting:
                        self.refused[str(status)] = self.refused.get(str(status), 0) + 1
                    if not stays:
                        break

    async def first_answer(self) -> None:
        """Wait until the peers have found each other."""
        while True:
            async with await trio.open_tcp_stream(self.host, self.port) as stream:
                if (await self.ask(stream))[0] == 200:
                    return
            await trio.sleep(0.2)

    async def ask(self, stream: trio.SocketStream) -> tuple[int, bool]:
        """The status of one answer, and whether the connection can be used again."""
        self._asked += 1
        path, body = self.request(self._asked)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        await stream.send_all(head.encode() + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await _some(stream)
        said, _, rest = data.partition(b"\r\n\r\n")
        lines = said.lower().split(b"\r\n")
        told = dict(line.split(b": ", 1) for line in lines[1:])
        while len(rest) < int(told[b"content-length"]):
            rest += await _some(stream)
        status = int(lines[0].split()[1])
        if status == 500:
            raise RuntimeError(f"the server answers with a 500: {rest.decode(errors='replace')}")
        return status, told.get(b"connection") != b"close"


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(65_536)
    if not data:
        raise RuntimeError("the server went away")
    return bytes(data)


async def load(
    url: str,
    request: Request,
    clients: int,
    seconds: float,
    processes: Mapping[str, int],
    on_start: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Answers a second, latencies in ms, and microseconds of processor per answer by process.

    `processes` are process ids by name. `on_start` is called when the warm-up is over.
    """
    host, port = url.removeprefix("http://").split(":")
    clients_load = _Load(host, int(port), request)
    with trio.fail_after(START_S):
        await clients_load.first_answer()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(clients_load.client)
        await trio.sleep(WARM_UP_S)
        clients_load.counting = True
        on_start()
        before_s = {name: cpu_s(process) for name, process in processes.items()}
        began_at_s = trio.current_time()
        await trio.sleep(seconds)
        measured_s = trio.current_time() - began_at_s
        spent_s = {name: cpu_s(process) - before_s[name] for name, process in processes.items()}
        nursery.cancel_scope.cancel()
    took_s = clients_load.took_s
    cuts = statistics.quantiles(took_s, n=100) if len(took_s) > 1 else [0.0] * 99
    return {
        "clients": clients,
        "per_s": round(len(took_s) / measured_s, 1),
        "p50_ms": round(cuts[49] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "cpu_us_per_answer": {
            name: round(it * 1e6 / max(1, len(took_s))) for name, it in spent_s.items()
        },
        "answered": len(took_s),
        "refused": clients_load.refused,
    }


def cpu_s(process: int) -> float:
    """Seconds of processor that a process used so far, with its children that have ended."""
    text = Path(f"/proc/{process}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S
