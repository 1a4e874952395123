"""The attacks of `python -m tests.bench siege`: one small function each, and the table of them.

A function strikes once and returns; it is called again after a pause, for as long as the siege
lasts. What the target does about it is not looked at here. To add an attack, write its function
and give it one line in `ATTACKS`. Run as a program this file strikes with one group of them.
"""

import base64
import json
import os
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import trio

from node.engines.hash_engine import hash_manifest
from node.local.control import call, unheard
from p2p.adverts import Capacity, Environment
from p2p.frames import Frame, FrameKind
from p2p.over_libp2p import TcpTransport
from p2p.over_libp2p.muxer import SoundYamux
from p2p.peers import Peers, PeersConfig, open_peers
from p2p.typed_call import TypedCall
from wire.advert import ModelOffer
from wire.errors import BatonError
from wire.kinds import Role
from wire.message import Accept, Message, Offer, Quote, Quoted
from wire.signing import SigningKey

STRIKE_DEADLINE_S = 20.0
HOLD_S = 8.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS = 0, 1, 2, 3, 4
END_STREAM, END_HEADERS = 1, 4
# Of yamux: kinds of frames and their flags.
STREAM_DATA, WINDOW, PING = 0, 1, 2
SYN, STREAM_RST = 1, 8


@dataclass(frozen=True, slots=True)
class Target:
    """The victims' addresses, folders and processes: the gateway's HTTP and both peers' ports."""

    host: str
    http_port: int
    gateway_address: str
    peer_address: str
    gateway_pid: int
    peer_pid: int
    peer_state: str
    crash_model: str


@dataclass(frozen=True, slots=True)
class Attack:
    """`strike` once, then again after `every_s`."""

    name: str
    group: str
    every_s: float
    strike: Callable[[Target, Random], Awaitable[None]]


# HTTP, as bytes on the wire


async def send_http(target: Target, *parts: bytes, hold_s: float = 0.5) -> bytes:
    """Send this to the gateway, hold the connection for so long, and return what it says."""
    heard = bytearray()
    stream = await trio.open_tcp_stream(target.host, target.http_port)
    async with stream:
        for part in parts:
            await stream.send_all(part)
        with trio.move_on_after(hold_s):
            while data := await stream.receive_some(65_536):
                heard += data
    return bytes(heard)


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """One HTTP/2 frame."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + body


def headers(*pairs: tuple[bytes, bytes]) -> bytes:
    """A header block of literals that are not indexed; each is shorter than 127 bytes."""
    return b"".join(
        b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in pairs
    )


def request(method: bytes, path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    return headers(
        (b":method", method),
        (b":path", path),
        (b":scheme", b"http"),
        (b":authority", b"localhost"),
        *more,
    )


def http2(*frames: bytes, settings: bytes = b"") -> bytes:
    return PREFACE + frame(SETTINGS, 0, 0, settings) + b"".join(frames)


async def data_after_refusal(target: Target, random: Random) -> None:
    """The body of a request that was refused at its head."""
    head = request(b"POST", b"/v1/chat/completions", (b"content-length", b"999999999"))
    await send_http(target, http2(frame(HEADERS, END_HEADERS, 1, head)))
    body = frame(DATA, 0, 1, random.randbytes(8000))
    await send_http(target, http2(frame(HEADERS, END_HEADERS, 1, head), *[body] * 8))


async def strange_method(target: Target, random: Random) -> None:
    block = request(b"G\xc3\x84T", b"/healthz")
    await send_http(target, http2(frame(HEADERS, END_HEADERS | END_STREAM, 1, block)))


async def strange_path(target: Target, random: Random) -> None:
    block = request(b"GET", b"/\xff\xfe\x80")
    await send_http(target, http2(frame(HEADERS, END_HEADERS | END_STREAM, 1, block)))


async def connect_without_path(target: Target, random: Random) -> None:
    block = headers((b":method", b"CONNECT"), (b":authority", b"localhost:1"))
    await send_http(target, http2(frame(HEADERS, END_HEADERS, 1, block)))


async def many_priorities(target: Target, random: Random) -> None:
    frames = [
        frame(PRIORITY, 0, number * 2 + 1, struct.pack(">IB", 0, 7)) for number in range(2000)
    ]
    await send_http(target, http2(*frames))


async def window_of_nothing(target: Target, random: Random) -> None:
    """Requests whose answers have no flow-control window, from a client that then goes away."""
    no_window = struct.pack(">HI", 4, 0)
    block = request(b"GET", b"/healthz")
    asked = [
        frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, block) for number in range(192)
    ]
    await send_http(target, http2(*asked, settings=no_window), hold_s=1.0)


async def rapid_reset(target: Target, random: Random) -> None:
    block = request(b"GET", b"/healthz")
    frames = [
        frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
        + frame(RST, 0, stream, struct.pack(">I", 8))
        for stream in range(1, 2000, 2)
    ]
    await send_http(target, http2(*frames))


async def header_bomb(target: Target, random: Random) -> None:
    """One large header that is indexed once, and then referred to ten thousand times."""
    name, value = b"x-bomb", b"b" * 120
    first = b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value
    block = request(b"GET", b"/healthz") + first + b"\xbe" * 10_000
    await send_http(target, http2(frame(HEADERS, END_HEADERS | END_STREAM, 1, block)))


async def upgrade_settings(target: Target, random: Random) -> None:
    """h2c upgrades whose settings are not base64, of odd length, out of range."""
    for settings in (
        b"\xff\xfe!!",
        base64.urlsafe_b64encode(b"\0\4\0"),
        base64.urlsafe_b64encode(struct.pack(">HI", 4, 0xFFFFFFFF)),
        base64.urlsafe_b64encode(struct.pack(">HI", 5, 1)),
    ):
        head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nupgrade: h2c\r\n"
        head += b"connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: " + settings
        await send_http(target, head + b"\r\n\r\n")


async def websocket_in_8_bits(target: Target, random: Random) -> None:
    head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\n"
    head += b"connection: Upgrade\r\nsec-websocket-version: 13\r\n"
    for more in (b"sec-websocket-key: \xff\xfe\xfd", b"sec-websocket-protocol: \xe4\xf6\xfc"):
        await send_http(target, head + more + b"\r\n\r\n")


async def header_by_header(target: Target, random: Random) -> None:
    """Connections that never finish their request."""

    async def dribble() -> None:
        async with await trio.open_tcp_stream(target.host, target.http_port) as stream:
            await stream.send_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            for number in range(16):
                await trio.sleep(HOLD_S / 16)
                await stream.send_all(b"x-%d: 1\r\n" % number)

    await together(dribble, 20)


async def silent_http(target: Target, random: Random) -> None:
    async def hold() -> None:
        async with await trio.open_tcp_stream(target.host, target.http_port):
            await trio.sleep(HOLD_S)

    await together(hold, 40)


async def body_that_never_ends(target: Target, random: Random) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    await send_http(target, head + b"content-length: 100000\r\n\r\n{", hold_s=HOLD_S)


async def chunks_of_nonsense(target: Target, random: Random) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    await send_http(target, head + b"ffffffffffffffffff\r\n" + random.randbytes(64))


async def random_bytes_at_http(target: Target, random: Random) -> None:
    await send_http(target, random.randbytes(random.randrange(1, 4096)))


async def stream_nobody_reads(target: Target, random: Random) -> None:
    """A client asks for a long answer and does not read it."""
    body = json.dumps(
        {"model": "hash", "prompt": str(random.random()), "max_tokens": 256, "stream": True}
    ).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    async with await trio.open_tcp_stream(target.host, target.http_port) as stream:
        await stream.send_all(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await trio.sleep(HOLD_S)


# The peer port


async def silent_connections(target: Target, random: Random) -> None:
    """Sixty connections a second at each port, which never send a byte."""

    async def hold() -> None:
        address = random.choice((target.gateway_address, target.peer_address))
        await trio.sleep(random.random() * HOLD_S / 2)
        async with await trio.open_tcp_stream(*place_of(address)):
            await trio.sleep(HOLD_S / 2)

    await together(hold, round(2 * 60 * HOLD_S / 2))


async def random_bytes_at_port(target: Target, random: Random) -> None:
    for address in (target.gateway_address, target.peer_address):
        async with await trio.open_tcp_stream(*place_of(address)) as stream:
            await stream.send_all(random.randbytes(32))
            with trio.move_on_after(0.5):
                await stream.receive_some(4096)


async def half_a_handshake(target: Target, random: Random) -> None:
    """The first bytes of the protocol, then a key that is not a key."""
    words = b"\x13/multistream/1.0.0\n\x07/noise\n"
    for address in (target.gateway_address, target.peer_address):
        async with await trio.open_tcp_stream(*place_of(address)) as stream:
            await stream.send_all(words + b"\x00\x20" + random.randbytes(32))
            with trio.move_on_after(1.0):
                await stream.receive_some(4096)


async def silent_keys(target: Target, random: Random) -> None:
    """Keys that connect, open streams, and say nothing on them."""
    transport = TcpTransport(wall_ns=time.time_ns)

    async def nobody(*_: object) -> None:
        """Give no answer."""

    async with transport.open(fresh_key(random), (), accept=nobody) as endpoint:
        for address in (target.gateway_address, target.peer_address):
            peer = await endpoint.connect(address, deadline_s=5.0)
            for _ in range(16):
                await endpoint.open_stream(peer, deadline_s=2.0)
        await trio.sleep(HOLD_S)


async def stream_resets(target: Target, random: Random) -> None:
    """Streams that are opened for Baton's protocol and reset at once, 600 on each connection."""
    words = b"\x13/multistream/1.0.0\n\x09/baton/1\n"

    async def strike(muxer: SoundYamux) -> None:
        for number in range(600):
            stream = 1001 + 2 * number
            frames = yamux_frame(WINDOW, SYN, stream) + yamux_frame(STREAM_DATA, 0, stream, words)
            await muxer._write_frame(frames + yamux_frame(WINDOW, STREAM_RST, stream))

    await on_raw_connections(target, random, strike)


async def empty_frames(target: Target, random: Random) -> None:
    """Pings, data of no bytes, credit for no stream: twelve bytes each, and all want an answer."""

    async def strike(muxer: SoundYamux) -> None:
        await muxer._write_frame(yamux_frame(WINDOW, SYN, 1001))
        for number in range(200):
            frames = yamux_frame(STREAM_DATA, 0, 1001) + yamux_frame(WINDOW, 0, 2 * number)
            await muxer._write_frame(frames * 4 + yamux_ping(number) * 4)

    await on_raw_connections(target, random, strike)


async def costly_values(target: Target, random: Random) -> None:
    """Fresh keys whose messages are a megabyte of empty lists, deep ones, and maps without end."""
    costly = (b"\xdc\x3f\xff" + b"\x90" * 0x3FFF, b"\x91" * 0x10000, b"\xdf" + b"\xff" * 0x4000)
    transport = TcpTransport(wall_ns=time.time_ns)

    async def nobody(*_: object) -> None:
        """Give no answer."""

    async with transport.open(fresh_key(random), (), accept=nobody) as endpoint:
        for address in (target.gateway_address, target.peer_address):
            peer = await endpoint.connect(address, deadline_s=5.0)
            for values in costly * 4:
                stream = await endpoint.open_stream(peer, deadline_s=2.0)
                message = b"\x92" + bytes((random.randrange(1, 30),)) + values
                await stream.write(Frame(FrameKind.DATA, message).to_bytes())
        await trio.sleep(0.5)


async def on_raw_connections(
    target: Target, random: Random, strike: Callable[[SoundYamux], Awaitable[None]]
) -> None:
    """Strike over a connection to each victim whose frames are ours to write."""
    transport = TcpTransport(wall_ns=time.time_ns)

    async def nobody(*_: object) -> None:
        """Give no answer."""

    async with transport.open(fresh_key(random), (), accept=nobody) as endpoint:
        for address in (target.gateway_address, target.peer_address):
            peer = await endpoint.connect(address, deadline_s=5.0)
            await strike(endpoint._connections(peer)[0].muxed_conn)
        await trio.sleep(2.0)


def yamux_frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBHII", 0, kind, flags, stream, len(body)) + body


def yamux_ping(number: int) -> bytes:
    return struct.pack(">BBHII", 0, PING, SYN, 0, number)


async def peers_that_sit(target: Target, random: Random) -> None:
    """A peer that claims to be the fastest, accepts every leg, and never finishes one."""
    async with boasting(target, random) as peers:

        async def sit(talk: TypedCall, message: Message) -> None:
            assert isinstance(message, Offer)
            await talk.send(Accept(expected_ms=1))
            await trio.sleep(message.deadline_ms / 1000)

        async def boast(talk: TypedCall, message: Message) -> None:
            await talk.send(Quoted(expected_ms=1))

        peers.handlers |= {Offer: sit, Quote: boast}
        await peers.join()
        await trio.sleep(STRIKE_DEADLINE_S - 2)


@asynccontextmanager
async def boasting(target: Target, random: Random) -> AsyncIterator[Peers]:
    manifest = hash_manifest()
    offer = ModelOffer(model=manifest.id, name=manifest.name, units_per_s=10_000.0)
    config = PeersConfig(bootstraps=(target.gateway_address,), listen=("/ip4/127.0.0.1/tcp/0",))
    environment = Environment(wall_s=time.time, random=random, entropy=os.urandom)
    transport = TcpTransport(wall_ns=time.time_ns)

    def capacity() -> Capacity:
        return Capacity(roles=1 << Role.INFER, models=(offer,), free_slots=100)

    async with open_peers(transport, fresh_key(random), config, environment, capacity) as peers:
        yield peers


def fresh_key(random: Random) -> SigningKey:
    return SigningKey(random.randbytes(32))


def place_of(address: str) -> tuple[str, int]:
    """Host and port of a TCP multiaddr."""
    parts = address.split("/")
    return parts[2], int(parts[4])


# The machine


async def hang_up(target: Target, random: Random) -> None:
    for pid in (target.gateway_pid, target.peer_pid):
        os.kill(pid, signal.SIGHUP)


async def crashing_model(target: Target, random: Random) -> None:
    """A division of a whole number by zero, in a model that this peer also serves."""
    if not target.crash_model:
        return
    body = json.dumps(
        {
            "model": target.crash_model,
            "inputs": [
                {"name": "a", "dtype": "int64", "shape": [2], "data": [1, random.randrange(99)]},
                {"name": "b", "dtype": "int64", "shape": [2], "data": [0, 0]},
            ],
        }
    ).encode()
    head = "POST /v1/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    await send_http(
        target, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body, hold_s=HOLD_S
    )


async def nonsense_commands(target: Target, random: Random) -> None:
    """Arguments that no command has."""
    for command in ("ask", "put", "get", "models-add", random.choice(("x", "status"))):
        arguments = {"text": "x" * 100, "path": "/nowhere/at/all", "what": "/dev/zero"}
        await call(
            Path(target.peer_state) / "control.sock", command, arguments, unheard, deadline_s=5.0
        )


async def together(strike: Callable[[], Awaitable[None]], count: int) -> None:
    """Run many strikes at once; a refused one stops none of the others."""

    async def one() -> None:
        try:
            await strike()
        except (OSError, trio.BrokenResourceError):
            return

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


ATTACKS = (
    Attack("HTTP/2 data after a refusal", "http", 1.0, data_after_refusal),
    Attack("HTTP/2 method that is not ASCII", "http", 1.0, strange_method),
    Attack("HTTP/2 path that is not ASCII", "http", 1.0, strange_path),
    Attack("HTTP/2 CONNECT without a path", "http", 1.0, connect_without_path),
    Attack("2,000 HTTP/2 PRIORITY frames", "http", 2.0, many_priorities),
    Attack("192 HTTP/2 requests with no window", "http", 3.0, window_of_nothing),
    Attack("HTTP/2 rapid reset", "http", 2.0, rapid_reset),
    Attack("HTTP/2 compressed header bomb", "http", 2.0, header_bomb),
    Attack("h2c upgrade with bad settings", "http", 2.0, upgrade_settings),
    Attack("WebSocket headers in 8 bits", "http", 2.0, websocket_in_8_bits),
    Attack("HTTP headers a line at a time", "http", 1.0, header_by_header),
    Attack("HTTP connections that say nothing", "http", 1.0, silent_http),
    Attack("HTTP body that never ends", "http", 1.0, body_that_never_ends),
    Attack("HTTP chunks of nonsense", "http", 1.0, chunks_of_nonsense),
    Attack("random bytes at the gateway", "http", 0.5, random_bytes_at_http),
    Attack("HTTP stream that nobody reads", "http", 2.0, stream_nobody_reads),
    Attack("silent connections at the peer port", "port", 0.1, silent_connections),
    Attack("32 random bytes at the peer port", "port", 0.1, random_bytes_at_port),
    Attack("half a noise handshake", "port", 0.5, half_a_handshake),
    Attack("keys that say nothing", "port", 1.0, silent_keys),
    Attack("600 streams that are reset at once", "port", 2.0, stream_resets),
    Attack("muxer frames with nothing in them", "port", 2.0, empty_frames),
    Attack("messages of costly values", "port", 1.0, costly_values),
    Attack("peers that accept and sit", "port", 1.0, peers_that_sit),
    Attack("SIGHUP", "machine", 5.0, hang_up),
    Attack("a model that crashes", "machine", 5.0, crashing_model),
    Attack("commands that make no sense", "machine", 2.0, nonsense_commands),
)


async def _strike_forever(
    attack: Attack, target: Target, random: Random, counts: Counter[str]
) -> None:
    while True:
        with trio.move_on_after(STRIKE_DEADLINE_S):
            try:
                await attack.strike(target, random)
            except* (OSError, trio.BrokenResourceError, BatonError) as errors:
                # A refusal is what an attacker should expect.
                counts[f"{attack.name}: {type(errors.exceptions[0]).__name__}"] += 1
        counts[attack.name] += 1
        await trio.sleep(attack.every_s * random.uniform(0.5, 1.5))


async def _strike_group(group: str, only: str, target: Target, told: Path) -> None:
    counts: Counter[str] = Counter()
    mine = [it for it in ATTACKS if it.group == group and chosen(only, it)]
    async with trio.open_nursery() as nursery:
        for place, attack in enumerate(mine):
            nursery.start_soon(_strike_forever, attack, target, Random(place), counts)
        while True:
            await trio.sleep(1.0)
            told.write_text(json.dumps(counts))


def chosen(only: str, attack: Attack) -> bool:
    """Whether `only`, a group or a word of a name, means this attack; empty means all."""
    return not only or only == attack.group or only.lower() in attack.name.lower()


def groups(only: str) -> list[tuple[str, str]]:
    """The groups that have such attacks, each with `only`."""
    return [
        (group, only) for group in dict.fromkeys(it.group for it in ATTACKS if chosen(only, it))
    ]


def command(group: str, only: str, target: Target, told: Path) -> list[str]:
    """The command that runs one group of attacks as a process; it counts strikes in `told`."""
    words = [group, only, json.dumps(asdict(target)), str(told)]
    return [sys.executable, "-m", "tests.bench._attacks", *words]


if __name__ == "__main__":
    whom = Target(**json.loads(sys.argv[3]))
    trio.run(_strike_group, sys.argv[1], sys.argv[2], whom, Path(sys.argv[4]))
