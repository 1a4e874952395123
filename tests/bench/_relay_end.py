"""One end of what `_relay_cost` measures, as a process of its own.

`serve NAME [RELAY …]` stands at a place, connected to the relays that are named, and serves
streams; at the place PRICED it charges whoever asks it for a line. `ask DIRECT HOME SERVER_PID
RELAY RELAY_PID PRICED PRICED_PID` measures all ways and prints them as JSON. No bound of a relay is
applied: the copying is measured, and not what an owner lets others have.
"""

import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import trio

from node.paying.channels import EarningChannel
from node.paying.earning_channels import EarningChannels
from node.paying.relay_till import RelayTill
from p2p.over_libp2p import TcpTransport
from p2p.transport import ByteStream, Endpoint, RelayAnswer
from store import open_memory_store
from tests.bench._process_figures import used_cpu_s
from wire.content import ContentId, PeerId
from wire.signed import sign
from wire.signing import SigningKey
from wire.tariff import RELAYED, ModelPrice, Tariff

# The place of a relay that charges, and what for a million KiB; the name of its asker.
PRICED, PRICE = "third", 10_000
ASKER = "asker"
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

    def ended(self, asker: PeerId, kept: PeerId, why: object) -> None:
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


class _Charges(_AllIsWell):
    """Charges the asker for each piece, out of a channel in which enough is promised."""

    def __init__(self, channels: EarningChannels) -> None:
        self.till = RelayTill(channels)

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        assert self.till.charge(asker, size_bytes)
        return True


@asynccontextmanager
async def _charging() -> AsyncIterator[_Charges]:
    price = ModelPrice(model=RELAYED, base=0, given=PRICE, made=0)
    network = ContentId.of(b"bench")
    tariff = Tariff(network=network, models=(price,), verdict=0, increment=PRICE)
    own: Any = SimpleNamespace(now=sign(tariff, _key(PRICED)))
    nothing: Any = None
    async with open_memory_store(quota_bytes=1 << 20) as store, trio.open_nursery() as nursery:
        channels = EarningChannels(nothing, store, nothing, own)
        channel = EarningChannel(_key(ASKER).peer, bytes(32), 1 << 40, 9, highest=1 << 40)
        channel.tariff, channel.relays = own.now.id, True
        channels.by_name[channel.name] = channels._latest[channel.payer] = channel
        nursery.start_soon(channels.keep_forever)
        yield _Charges(channels)
        nursery.cancel_scope.cancel()


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


def _key(name: str) -> SigningKey:
    return SigningKey(name.encode().ljust(32, b"."))


def _opened(name: str) -> Any:
    key = _key(name)
    transport = TcpTransport(wall_ns=time.time_ns)
    return transport.open(key, ["/ip4/0.0.0.0/tcp/0"], accept=_served)


async def _serve(name: str, relays: list[str]) -> None:
    async with _opened(name) as endpoint, _charging() as charges:
        endpoint.set_relay_rules(charges if name == PRICED else _AllIsWell())
        for relay in relays:
            await endpoint.connect(relay, deadline_s=PATIENCE_S)
        print(json.dumps(endpoint.addresses[0]), flush=True)
        await trio.sleep_forever()


async def _ask(direct: str, home: str, server: int, relays: list[str]) -> None:
    async with _opened(ASKER) as endpoint:
        ways = {"direct": await _way(endpoint, direct, {})}
        server_id = home.rpartition("/p2p/")[2]
        for name, relay, process in zip(("kept", "priced"), relays[::2], relays[1::2], strict=True):
            await endpoint.connect(relay, deadline_s=PATIENCE_S)
            processes = {"relay": int(process), "server": server}
            behind = f"{relay}/p2p-circuit/p2p/{server_id}"
            ways[name] = await _way(endpoint, behind, processes)
            await endpoint.disconnect(PeerId.parse(server_id))
        print(json.dumps(ways), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(_serve, sys.argv[2], sys.argv[3:])
    else:
        trio.run(_ask, sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:])
