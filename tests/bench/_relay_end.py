"""One end of what `_relay_cost` measures, as a process of its own.

`serve NAME [RELAY]` stands at a place, through a relay if one is named, and serves streams;
`ask DIRECT KEPT RELAY_PID SERVER_PID` measures both ways and prints them as JSON. No bound of a
relay is applied: the copying is measured, and not what an owner lets others have.
"""

import json
import statistics
import sys
import time
from typing import Any

import trio

from p2p.over_libp2p import TcpTransport
from p2p.transport import ByteStream, Endpoint, RelayAnswer
from tests.bench._process_figures import used_cpu_s
from wire.content import PeerId
from wire.signing import SigningKey

PART = bytes(64 << 10)
DOWNLOAD_BYTES, DOWNLOADS = 32 << 20, 3
ECHO, TOKENS = b"e", b"t"
WORDS, WORD_BYTES = 200, 64
WORD_EVERY_S = 0.005
CONNECTS = 5
PATIENCE_S = 30.0


class _AllIsWell:
    """As `p2p.transport.RelayRules`: everything is allowed, but no punching."""

    def admit(self, asker: PeerId, kept: PeerId) -> RelayAnswer:
        return RelayAnswer.THROUGH

    def ended(self, asker: PeerId, kept: PeerId) -> None:
        return

    def wait_s(self, asker: PeerId, kept: PeerId, size_bytes: int) -> float | None:
        return 0.0

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        return True

    def takes(self, relay: PeerId) -> bool:
        return True

    def left(self, relay: PeerId) -> None:
        return

    def may_punch(self, peer: PeerId) -> bool:
        return False


async def _served(_peer: PeerId, stream: ByteStream) -> None:
    """Echo, send words at a steady pace, or send so many bytes at once."""
    what = await stream.read(1)
    if what == ECHO:
        while data := await stream.read(1 << 16):
            await stream.write(data)
    elif what == TOKENS:
        for _ in range(WORDS):
            await trio.sleep(WORD_EVERY_S)
            # Both processes read one clock: it is of one machine.
            await stream.write(time.monotonic_ns().to_bytes(8).ljust(WORD_BYTES, b"."))
    else:
        for _ in range(DOWNLOAD_BYTES // len(PART)):
            await stream.write(PART)
    await stream.close()


async def _exactly(stream: ByteStream, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        piece = await stream.read(size_bytes - len(data))
        assert piece, "the stream ended"
        data += piece
    return bytes(data)


async def _first_ms(endpoint: Endpoint, address: str) -> float:
    """From nothing to the first answer."""
    peer = PeerId.parse(address.rpartition("/p2p/")[2])
    took_s = []
    for _ in range(CONNECTS):
        await endpoint.disconnect(peer)
        began_s = time.perf_counter()
        await endpoint.connect(address, deadline_s=PATIENCE_S)
        stream = await endpoint.open_stream(peer, deadline_s=PATIENCE_S)
        await stream.write(ECHO + b"x")
        await _exactly(stream, 1)
        took_s.append(time.perf_counter() - began_s)
        await stream.close()
    return statistics.median(took_s) * 1e3


async def _round_trip_ms(stream: ByteStream) -> float:
    await stream.write(ECHO)
    took_s = []
    for _ in range(WORDS):
        began_s = time.perf_counter()
        await stream.write(bytes(WORD_BYTES))
        await _exactly(stream, WORD_BYTES)
        took_s.append(time.perf_counter() - began_s)
    return statistics.median(took_s) * 1e3


async def _token_ms(stream: ByteStream) -> float:
    """From a word's being sent to its being here."""
    await stream.write(TOKENS)
    took_ms = []
    for _ in range(WORDS):
        word = await _exactly(stream, WORD_BYTES)
        took_ms.append((time.monotonic_ns() - int.from_bytes(word[:8])) / 1e6)
    return statistics.median(took_ms)


async def _way(endpoint: Endpoint, address: str, processes: dict[str, int]) -> dict[str, Any]:
    first_ms = await _first_ms(endpoint, address)
    peer = PeerId.parse(address.rpartition("/p2p/")[2])
    found: dict[str, Any] = {"relayed": endpoint.is_relayed(peer), "first_ms": round(first_ms, 2)}

    async def stream() -> ByteStream:
        return await endpoint.open_stream(peer, deadline_s=PATIENCE_S)

    found["round_trip_ms"] = round(await _round_trip_ms(await stream()), 2)
    found["token_ms"] = round(await _token_ms(await stream()), 2)
    rates, megabytes = [], DOWNLOAD_BYTES / 1e6
    before = {name: used_cpu_s(it) for name, it in processes.items()}
    own_s = time.process_time()
    for _ in range(DOWNLOADS):
        download = await stream()
        began_s = time.perf_counter()
        await download.write(b"d")
        left = DOWNLOAD_BYTES
        while left:
            left -= len(await download.read(1 << 20))
        rates.append(megabytes / (time.perf_counter() - began_s))
    used = {name: used_cpu_s(it) - before[name] for name, it in processes.items()}
    used["asker"] = time.process_time() - own_s
    found["mb_per_s"] = [round(it, 1) for it in rates]
    found["cpu_ms_per_mb"] = {
        name: round(it * 1e3 / megabytes / DOWNLOADS, 2) for name, it in used.items()
    }
    return found


def _opened(name: str) -> Any:
    key = SigningKey(name.encode().ljust(32, b"."))
    transport = TcpTransport(wall_ns=time.time_ns)
    return transport.open(key, ["/ip4/0.0.0.0/tcp/0"], accept=_served)


async def _serve(name: str, relay: str | None) -> None:
    async with _opened(name) as endpoint:
        endpoint.set_relay_rules(_AllIsWell())
        if relay is not None:
            await endpoint.connect(relay, deadline_s=PATIENCE_S)
        print(json.dumps(endpoint.addresses[0]), flush=True)
        await trio.sleep_forever()


async def _ask(direct: str, kept: str, relay: int, server: int) -> None:
    async with _opened("asker") as endpoint:
        relay_address = kept.partition("/p2p-circuit")[0]
        ways = {"direct": await _way(endpoint, direct, {})}
        await endpoint.connect(relay_address, deadline_s=PATIENCE_S)
        processes = {"relay": relay, "server": server}
        ways["kept"] = await _way(endpoint, kept, processes)
        print(json.dumps(ways), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(_serve, sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
    else:
        trio.run(_ask, sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
