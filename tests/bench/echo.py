"""What one round trip between two peers costs: processor time over TCP, noise and yamux.

Two endpoints in this process, so each figure is of both sides. `lane` is a payload that goes to and
fro on one stream that is open; `conversation` is a whole call on a pooled stream, with its END from
both sides; the clients of both are at work at the same time, as in a busy peer.

`python -m tests.bench echo [--clients 1,16]`
"""

import argparse
import time
from typing import Any

import trio

from p2p.over_libp2p import TcpTransport
from p2p.streams import Call, Streams, open_streams
from wire.content import PeerId
from wire.signing import SigningKey

LISTEN = ["/ip4/127.0.0.1/tcp/0"]
PAYLOAD = bytes(100)
SECONDS = 2.0
DEADLINE_S = 120.0


def run(arguments: list[str]) -> dict[str, Any]:
    """Microseconds of processor, and of time, for one round trip."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench echo")
    parser.add_argument("--clients", default="1,16", help="numbers, with commas between them")
    numbers = [int(it) for it in parser.parse_args(arguments).clients.split(",")]
    return trio.run(_measured, numbers)


async def _measured(numbers: list[int]) -> dict[str, Any]:
    transport = TcpTransport(wall_ns=lambda: 1)
    found: dict[str, Any] = {"payload_bytes": len(PAYLOAD)}
    async with (
        open_streams(transport, SigningKey(bytes(32)), LISTEN, serve=_serve) as there,
        open_streams(transport, SigningKey(bytes([1]) * 32), LISTEN, serve=_serve) as here,
    ):
        peer = await here.endpoint.connect(there.endpoint.addresses[0], deadline_s=DEADLINE_S)
        for clients in numbers:
            for name, client in (("lane", _lane), ("conversation", _conversations)):
                found[f"{name}_{clients}"] = await _timed(here, peer, client, clients)
    return found


async def _serve(call: Call) -> None:
    async for payload in call:
        await call.send(payload)


async def _lane(streams: Streams, peer: PeerId, count: list[int]) -> None:
    async with streams.call(peer, deadline_s=DEADLINE_S) as call:
        while True:
            await call.send(PAYLOAD)
            await call.receive()
            count[0] += 1


async def _conversations(streams: Streams, peer: PeerId, count: list[int]) -> None:
    while True:
        async with streams.call(peer, deadline_s=DEADLINE_S) as call:
            await call.send(PAYLOAD)
            await call.receive()
        count[0] += 1


async def _timed(streams: Streams, peer: PeerId, client: Any, clients: int) -> dict[str, float]:
    count = [0]
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(client, streams, peer, count)
        await trio.sleep(0.3)
        before, cpu_s, began_at_s = count[0], time.process_time(), trio.current_time()
        await trio.sleep(SECONDS)
        done = count[0] - before
        spent_s = time.process_time() - cpu_s
        took_s = trio.current_time() - began_at_s
        nursery.cancel_scope.cancel()
    return {
        "cpu_us": round(spent_s / done * 1e6, 1),
        "per_s": round(done / took_s, 1),
    }
