"""A hostile peer says exactly what ends a stock libp2p host, and ours still answers others.

The attackers are raw libp2p hosts and raw sockets. Every test ends with the same question, asked by
a third and honest peer.
"""

import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from cryptography.exceptions import InvalidTag
from libp2p import create_new_ed25519_key_pair, new_host
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.network.exceptions import SwarmException
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.utils.varint import encode_varint_prefixed
from multiaddr import Multiaddr
from trio.testing import MockClock

from p2p.connection_limiter import ConnectionLimiter, ConnectionLimits
from p2p.ip_address import CIRCUIT
from p2p.over_libp2p import host as hosts
from p2p.over_libp2p import muxer
from p2p.over_libp2p.errors import dialing, shaking_hands
from p2p.token_bucket import TokenBucket
from p2p.transport import Endpoint
from tests.p2p.transports import (
    Kind,
    answers,
    connect,
    echo,
    ignore,
    key_of,
    kind_of,
    until,
    until_sends,
)
from wire.errors import Disconnected, Unreachable

GOSSIP = "/meshsub/1.1.0"
PING = "/ipfs/ping/1.0.0"


@pytest.fixture
def kind() -> Kind:
    return kind_of("tcp")


@pytest.fixture
async def victim(kind: Kind) -> AsyncIterator[Endpoint]:
    async with kind.open("victim") as endpoint:
        await endpoint.subscribe("topic")
        yield endpoint


@pytest.fixture
async def attacker() -> AsyncIterator[BasicHost]:
    async with running_host(noise=True) as host:
        yield host


@asynccontextmanager
async def running_host(*, noise: bool) -> AsyncIterator[BasicHost]:
    pair = create_new_ed25519_key_pair()
    if noise:
        security = {NOISE: Noise(pair, noise_privkey=create_x25519_key_pair().private_key)}
    else:
        security = {PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)}
    host = new_host(pair, sec_opt=security)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True):
                await host.close()


async def attack(attacker: BasicHost, victim: Endpoint) -> Any:
    """Connect; gives the victim's id as libp2p writes it."""
    info = info_from_p2p_addr(Multiaddr(victim.addresses[0]))
    await attacker.connect(info)
    return info.peer_id


async def still_answers(kind: Kind, victim: Endpoint) -> bool:
    async with kind.open("honest") as honest:
        return await answers(honest, await connect(honest, victim))


def place_of(victim: Endpoint) -> tuple[str, int]:
    parts = victim.addresses[0].split("/")
    return parts[2], int(parts[4])


def rpc_with(message: rpc_pb2.Message) -> bytes:
    return encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())


MALFORMED = {
    "no protobuf": encode_varint_prefixed(b"\xff" * 40),
    "an endless length": b"\xff" * 40,
    "a length of a gigabyte": b"\x80\x80\x80\x80\x04" + bytes(1000),
    "nothing at all": b"\x00" * 100,
    "a malformed key": rpc_with(
        rpc_pb2.Message(data=b"x", topicIDs=["topic"], seqno=b"1", key=b"\xff", signature=b"s")
    ),
    "no key and no source": rpc_with(rpc_pb2.Message(data=b"x", topicIDs=["topic"])),
    "a source that is no peer": rpc_with(
        rpc_pb2.Message(data=b"x", topicIDs=["topic"], from_id=b"\x01" * 50, signature=b"s")
    ),
    "two topics": rpc_with(rpc_pb2.Message(data=b"x", topicIDs=["topic", "topic"], key=b"\x08")),
    "ten thousand subscriptions": encode_varint_prefixed(
        rpc_pb2.RPC(
            subscriptions=[
                rpc_pb2.RPC.SubOpts(subscribe=True, topicid=f"{number}") for number in range(10_000)
            ]
        ).SerializeToString()
    ),
    "hostile control": encode_varint_prefixed(
        rpc_pb2.RPC(
            senderRecord=b"\xff" * 50,
            control=rpc_pb2.ControlMessage(
                ihave=[rpc_pb2.ControlIHave(topicID="topic", messageIDs=[b"zz", b"\x00"])],
                iwant=[rpc_pb2.ControlIWant(messageIDs=[b"zz"])],
                graft=[rpc_pb2.ControlGraft(topicID="no such topic")],
                prune=[rpc_pb2.ControlPrune(topicID="no such topic", backoff=2**63)],
            ),
        ).SerializeToString()
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_gossip(
    kind: Kind, victim: Endpoint, attacker: BasicHost, what: str
) -> None:
    stream = await attacker.new_stream(await attack(attacker, victim), [GOSSIP])
    await stream.write(MALFORMED[what])
    await trio.sleep(0.1)
    assert victim.statistics().heard == 0
    assert await still_answers(kind, victim)


async def test_gossip_that_stops_in_the_middle(
    kind: Kind, victim: Endpoint, attacker: BasicHost
) -> None:
    stream = await attacker.new_stream(await attack(attacker, victim), [GOSSIP])
    await stream.write(MALFORMED["hostile control"][:20])
    await stream.reset()
    assert await still_answers(kind, victim)


async def test_honest_gossip_goes_on_after_hostile_gossip(
    kind: Kind, victim: Endpoint, attacker: BasicHost
) -> None:
    stream = await attacker.new_stream(await attack(attacker, victim), [GOSSIP])
    await stream.write(MALFORMED["no protobuf"])
    async with kind.open("honest") as honest:
        inbox = await victim.subscribe("topic")
        await honest.subscribe("topic")
        await connect(honest, victim)
        await until_sends(honest, victim.me)
        await honest.publish("topic", b"news")
        with trio.fail_after(5):
            assert (await anext(inbox)).data == b"news"


async def test_gossip_that_arrives_while_we_close(kind: Kind, attacker: BasicHost) -> None:
    message = MALFORMED["a malformed key"] * 50

    async def shout(stream: Any) -> None:
        with trio.move_on_after(2):
            # The victim goes away, as it should.
            with contextlib.suppress(Exception):
                while True:
                    await stream.write(message)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            async with kind.open(f"victim {number}") as victim:
                await victim.subscribe("topic")
                stream = await attacker.new_stream(await attack(attacker, victim), [GOSSIP])
                nursery.start_soon(shout, stream)
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("protocol", [PING, "/ipfs/id/1.0.0", "/baton/1", "/no/such/protocol"])
async def test_a_stream_that_breaks_inside_libp2ps_own_handlers(
    kind: Kind, victim: Endpoint, attacker: BasicHost, protocol: str
) -> None:
    peer = await attack(attacker, victim)
    for _ in range(5):
        stream = await attacker.get_network().new_stream(peer)
        for line in ("/multistream/1.0.0\n", f"{protocol}\n"):
            await stream.write(bytes((len(line),)) + line.encode())
        await stream.write(b"\x05short")
        await stream.reset()
    assert await still_answers(kind, victim)


async def test_a_peer_that_opens_streams_without_end_gets_so_many(
    kind: Kind, victim: Endpoint, attacker: BasicHost
) -> None:
    peer = await attack(attacker, victim)
    for _ in range(200):
        await attacker.get_network().new_stream(peer)
    await until(lambda: victim.statistics().streams_refused > 0)
    assert await still_answers(kind, victim)


async def test_streams_that_are_reset_without_end_cost_their_peer_its_connection(
    kind: Kind, victim: Endpoint, attacker: BasicHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxer, "STREAMS_REFUSED_MAX", 200)
    monkeypatch.setattr(muxer, "STREAMS_AT_ONCE", 100.0)
    monkeypatch.setattr(muxer, "STREAMS_PER_S", 1.0)
    await attack(attacker, victim)
    (connection,) = attacker.get_network().get_connections()
    words = b"\x13/multistream/1.0.0\n\x09/baton/1\n"
    async with kind.open("honest") as honest:
        peer = await connect(honest, victim)
        with contextlib.suppress(BaseLibp2pError):
            for number in range(600):
                # Of yamux: a stream is opened, something is said on it, and then it is reset.
                opened = struct.pack(">BBHII", 0, 1, 1, 1001 + 2 * number, 0)
                said = struct.pack(">BBHII", 0, 0, 0, 1001 + 2 * number, len(words)) + words
                given_up = struct.pack(">BBHII", 0, 1, 8, 1001 + 2 * number, 0)
                await connection.muxed_conn._write_frame(opened + said + given_up)
                if number % 20 == 0:
                    await trio.sleep(0.01)
        await until(lambda: len(victim.connected()) == 1)
        assert victim.connected() == frozenset({honest.me})
        assert await answers(honest, peer)


@pytest.mark.parametrize("kind_of_frame", [0, 1, 2], ids=["data", "credit", "ping"])
async def test_empty_frames_without_end_are_read_no_faster_than_honest_ones_come(
    kind: Kind,
    victim: Endpoint,
    attacker: BasicHost,
    monkeypatch: pytest.MonkeyPatch,
    kind_of_frame: int,
) -> None:
    paced: list[None] = []
    taken = TokenBucket.take

    def counting(bucket: TokenBucket, now_at_s: float) -> bool:
        found = taken(bucket, now_at_s)
        if bucket.burst == 50.0 and found:
            paced.append(None)
        return found

    monkeypatch.setattr(muxer, "FRAMES_AT_ONCE", 50.0)
    monkeypatch.setattr(muxer, "FRAMES_PER_S", 10.0)
    monkeypatch.setattr(TokenBucket, "take", counting)
    await attack(attacker, victim)
    (connection,) = attacker.get_network().get_connections()
    # Of no stream, with a SYN where it is a ping.
    frame = struct.pack(">BBHII", 0, kind_of_frame, int(kind_of_frame == 2), 0, 1)
    if kind_of_frame == 0:
        frame = struct.pack(">BBHII", 0, 0, 0, 7001, 0)
    for _ in range(40):
        await connection.muxed_conn._write_frame(frame * 100)
    await trio.sleep(1)
    assert len(paced) < 500
    assert await still_answers(kind, victim)


async def test_an_honest_peer_may_open_many_streams_again_and_again(
    kind: Kind, victim: Endpoint
) -> None:
    async with kind.open("honest") as honest:
        peer = await connect(honest, victim)
        for _ in range(90):
            stream = await honest.open_stream(peer, deadline_s=10)
            await stream.reset()
        assert victim.statistics().streams_refused == 0
        assert await answers(honest, peer)


async def test_a_plaintext_peer_is_not_let_in(kind: Kind, victim: Endpoint) -> None:
    async with running_host(noise=False) as plain:
        with pytest.raises(SwarmException):
            await attack(plain, victim)
    assert victim.connected() == frozenset()
    assert await still_answers(kind, victim)


@pytest.mark.parametrize("said", [b"", b"\x00" * 5000, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000])
async def test_a_socket_that_talks_nonsense(kind: Kind, victim: Endpoint, said: bytes) -> None:
    for _ in range(10):
        with socket.create_connection(place_of(victim)) as one:
            one.sendall(said)
    assert await still_answers(kind, victim)


async def silent_sockets(stack: AsyncExitStack, victim: Endpoint, source: str, count: int) -> None:
    """Connections that say nothing, all from one address of this machine."""
    for _ in range(count):
        stack.enter_context(
            socket.create_connection(place_of(victim), source_address=(source, 0), timeout=5)
        )
        await trio.lowlevel.checkpoint()


async def test_handshakes_that_never_end_are_bounded_and_dropped(kind: Kind) -> None:
    async with kind.open("victim") as victim, AsyncExitStack() as stack:
        most = ConnectionLimits().half_open_max
        await silent_sockets(stack, victim, "127.0.0.1", most + 20)
        await until(lambda: victim.statistics().connections_evicted >= 20)
        assert victim.statistics().half_open <= most
        await until(lambda: victim.statistics().half_open == 0)
        assert await still_answers(kind, victim)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
async def test_an_honest_stranger_connects_at_once_beside_300_silent_connections(
    kind: Kind, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No silence is too long: who had to wait for the end of one would wait in vain.
    limits = ConnectionLimits(silence_s=600.0, handshake_s=600.0)
    monkeypatch.setattr(hosts, "ConnectionLimiter", lambda: ConnectionLimiter(limits))
    async with kind.open("victim") as victim, AsyncExitStack() as stack:
        await silent_sockets(stack, victim, source, 300)
        async with kind.open("honest") as honest:
            peer = await connect(honest, victim)
            assert await answers(honest, peer)
        assert victim.statistics().connections_refused == 0


async def test_who_opens_connections_faster_than_its_prefix_may_pays_for_it_alone(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ConnectionLimits(loopback_times=0.1)
    monkeypatch.setattr(hosts, "ConnectionLimiter", lambda: ConnectionLimiter(limits))
    async with kind.open("victim") as victim, AsyncExitStack() as stack:
        await silent_sockets(stack, victim, "127.0.0.2", 60)
        await until(lambda: victim.statistics().connections_refused >= 50)
        assert victim.statistics().half_open <= limits.burst * limits.loopback_times + 2
        assert await still_answers(kind, victim)


async def test_a_handshake_that_trickles_is_cut_in_the_end(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ConnectionLimits(silence_s=0.6, handshake_s=1.5)
    monkeypatch.setattr(hosts, "ConnectionLimiter", lambda: ConnectionLimiter(limits))
    async with kind.open("victim") as victim:
        async with await trio.open_tcp_stream(*place_of(victim)) as stream:
            began_at_s = trio.current_time()

            async def trickle() -> None:
                # Each byte is progress, and all of them together are not enough.
                for byte in b"\x13/multistream/1.0.0\n":
                    await stream.send_all(bytes((byte,)))
                    await trio.sleep(0.2)

            with pytest.raises(trio.BrokenResourceError):
                await trickle()
        assert trio.current_time() - began_at_s > limits.silence_s
        assert await still_answers(kind, victim)


async def test_a_frozen_peer_is_dropped(
    autojump_clock: MockClock, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxer, "_PING_INTERVAL_S", 0.1)
    monkeypatch.setattr(muxer, "_PING_DEADLINE_S", 0.3)
    async with kind.open("victim") as victim, running_host(noise=True) as frozen:
        await attack(frozen, victim)
        await trio.sleep(0.8)
        assert len(victim.connected()) == 1
        (connection,) = frozen.get_network().get_connections()

        thawed = trio.Event()

        async def says_nothing(_data: bytes) -> None:
            await thawed.wait()

        # As a stopped process: the socket stands, and nothing comes through it.
        connection.muxed_conn.secured_conn.write = says_nothing
        await until(lambda: not victim.connected(), 3)
        thawed.set()
        assert await still_answers(kind, victim)


async def test_bytes_beyond_the_window_end_the_connection_not_the_memory(
    kind: Kind, attacker: BasicHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxer, "UNREAD_BYTES_MAX", 4 << 20)
    async with kind.open("victim", accept=ignore) as victim:
        stream = await attacker.new_stream(await attack(attacker, victim), ["/baton/1"])
        stream.muxed_stream.send_window = 1 << 40
        with pytest.raises(BaseLibp2pError), trio.fail_after(10):
            await stream.write(bytes(64 << 20))
        await until(lambda: not victim.connected())
        async with kind.open("honest") as honest:
            peer = await connect(honest, victim)
            await (await honest.open_stream(peer, deadline_s=5)).write(b"fine")


async def test_a_peer_that_makes_us_answer_and_does_not_read(
    kind: Kind, victim: Endpoint, attacker: BasicHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxer, "_QUEUE_BYTES_MAX", 64 << 10)
    await attack(attacker, victim)
    (connection,) = attacker.get_network().get_connections()
    # A ping of yamux is twelve bytes, and so is the answer that nobody takes.
    ping = bytes((0, 2, 0, 1)) + bytes(8)
    connection.muxed_conn._nursery.cancel_scope.cancel()
    with trio.move_on_after(5):
        # The victim hangs up, as it should; what libp2p calls that is of no interest here.
        with contextlib.suppress(Exception):
            while victim.connected():
                await connection.muxed_conn.secured_conn.write(ping * 4000)
    assert not victim.connected()
    assert await still_answers(kind, victim)


async def test_our_own_stream_to_a_hostile_peer_ends_and_says_so(kind: Kind) -> None:
    async def vanish(stream: Any) -> None:
        await stream.muxed_conn.secured_conn.close()

    async with kind.open("a", accept=echo) as a, running_host(noise=True) as hostile:
        hostile.set_stream_handler("/baton/1", vanish)
        peer = await a.connect(str(hostile.get_addrs()[0]), deadline_s=5)

        async def use_a_stream() -> None:
            # The connection may be gone before or after the stream was given.
            await (await a.open_stream(peer, deadline_s=5)).read(1)

        with pytest.raises(Disconnected):
            await use_a_stream()
        assert await still_answers(kind, a)


async def test_whoever_is_called_back_and_answers_garbage_is_not_reached_and_no_worse(
    kind: Kind,
) -> None:
    async def garbage(stream: trio.SocketStream) -> None:
        heard = b""
        await stream.send_all(b"\x13/multistream/1.0.0\n")
        while b"/noise\n" not in heard:
            heard += await stream.receive_some(1000)
        await stream.send_all(b"\x07/noise\n")
        await stream.receive_some(1000)
        # A key, and after it what nobody encrypted.
        await stream.send_all((96).to_bytes(2, "big") + b"\x07" * 96)
        await trio.sleep_forever()

    async with (
        kind.open("caller") as caller,
        trio.open_nursery() as nursery,
    ):
        (listener,) = await nursery.start(partial(trio.serve_tcp, garbage, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{key_of('other').peer}"
        with pytest.raises(Unreachable):
            await caller.knock(address, deadline_s=60.0)
        with pytest.raises(Unreachable):
            await caller.connect(address, deadline_s=60.0)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [KeyError, InvalidTag, RuntimeError])
def test_whatever_a_handshake_raises_means_that_nobody_was_reached(kind: type[Exception]) -> None:
    # Through a relay too, where libp2p wraps nothing.
    with pytest.raises(Unreachable), dialing("there", 1.0), shaking_hands():
        raise kind


@pytest.mark.parametrize("transport", ["tcp", "memory"])
async def test_no_address_of_a_stranger_connects_a_peer_to_itself(transport: str) -> None:
    async with kind_of(transport).open("victim") as victim:
        own, stranger = victim.addresses[0], key_of("stranger").peer
        with pytest.raises(Unreachable):
            await victim.connect_peer(stranger, (f"{own}{CIRCUIT}/p2p/{stranger}",), deadline_s=2)
        with pytest.raises(Unreachable):
            await victim.connect_beside(own, deadline_s=2)
        assert victim.me not in victim.connected()
