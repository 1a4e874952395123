"""Both ends of a line call each other at once, where their relay sees them and nowhere else."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from p2p.over_libp2p.circuits import exactly
from p2p.over_libp2p.endpoint import LibEndpoint
from p2p.over_libp2p.punches import PORT_MIN, PUNCH, PUNCHED, SeenPlace, is_callable
from p2p.relay_limits import PAIR_S, PUNCHES_BURST, PunchLimits
from p2p.transport import RelayAnswer
from tests.p2p.transports import echo, key_of, kind_of, until
from wire.content import PeerId
from wire.errors import TransportError, Unreachable


@dataclass(slots=True)
class Rules:
    """Everything is allowed, unless a test says otherwise; what is asked is kept."""

    takes_from: Callable[[PeerId], bool] = lambda _relay: True
    punches: Callable[[PeerId], bool] = lambda _peer: True
    lines: int = 0
    asked: list[PeerId] = field(default_factory=list)

    def admit(self, asker: PeerId, kept: PeerId) -> RelayAnswer:
        self.lines += 1
        return RelayAnswer.THROUGH

    def ended(self, asker: PeerId, kept: PeerId, why: object) -> None:
        self.lines -= 1

    def wait_s(self, asker: PeerId, kept: PeerId, size_bytes: int) -> float | None:
        return 0.0

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        return True

    def takes(self, relay: PeerId) -> bool:
        return self.takes_from(relay)

    def left(self, relay: PeerId) -> None:
        return

    def may_punch(self, peer: PeerId) -> bool:
        self.asked.append(peer)
        return self.punches(peer)


@dataclass(slots=True)
class Three:
    """An asker, a relay, and a peer that it keeps, over TCP of this machine."""

    asker: LibEndpoint
    relay: LibEndpoint
    kept: LibEndpoint
    rules: Rules

    async def line(self) -> None:
        """A line from the asker to the kept peer."""
        await self.kept.connect(self.relay.addresses[0], deadline_s=10)
        circuit = f"{self.relay.addresses[0]}/p2p-circuit/p2p/{self.kept.me}"
        await self.asker.connect(circuit, deadline_s=10)
        assert self.asker.is_relayed(self.kept.me)


def port_of(endpoint: LibEndpoint) -> int:
    return int(endpoint.addresses[0].split("/")[4])


def see(relay: LibEndpoint, hosts: dict[PeerId, str]) -> None:
    """Have the relay see each peer at this IP address; all are on this machine in truth."""
    relay._punches._socket_of = lambda it: (hosts[it], 1) if it in hosts else None


@pytest.fixture
async def three() -> AsyncIterator[Three]:
    kind, rules = kind_of("tcp"), Rules()
    async with AsyncExitStack() as stack:
        opened = []
        for name in ("asker", "relay", "kept"):
            endpoint = await stack.enter_async_context(kind.open(name, echo))
            assert isinstance(endpoint, LibEndpoint)
            endpoint.set_relay_rules(rules)
            # All three stand on this machine, where a peer would call nobody.
            endpoint._punches.is_callable = lambda place: place.host.startswith("127.")
            endpoint._punches._own_port = lambda it=endpoint: port_of(it)  # type: ignore[misc]
            opened.append(endpoint)
        asker, relay, kept = opened
        see(relay, {asker.me: "127.0.0.2", kept.me: "127.0.0.1"})
        yield Three(asker, relay, kept, rules)


async def test_a_direct_connection_takes_the_place_of_the_line(three: Three) -> None:
    await three.line()
    before = three.asker.lines()[three.kept.me]
    assert before.relay == three.relay.me
    assert before.moved_bytes > 0
    await three.asker.punch(three.kept.me, deadline_s=10)
    assert three.asker.punched() == {three.kept.me}
    assert not three.asker.is_relayed(three.kept.me)
    # A new stream goes over it, and the line is of no use any more.
    stream = await three.asker.open_stream(three.kept.me, deadline_s=10)
    await three.asker.leave_line(three.kept.me)
    await stream.write(b"still here")
    assert await exactly(stream, 10) == b"still here"
    await until(lambda: not three.asker.lines(), 60)
    await until(lambda: not three.rules.lines, 60)
    assert three.asker.is_connected(three.kept.me)


async def test_two_of_one_home_are_not_introduced(three: Three) -> None:
    await three.line()
    see(three.relay, {three.asker.me: "127.0.0.1", three.kept.me: "127.0.0.1"})
    with pytest.raises(Unreachable, match="not kept"):
        await three.asker.punch(three.kept.me, deadline_s=10)
    assert not three.rules.asked
    assert three.asker.is_relayed(three.kept.me)


async def test_who_called_a_moment_ago_is_not_called(three: Three) -> None:
    await three.line()
    three.rules.punches = lambda _peer: False
    with pytest.raises(Unreachable, match="no room"):
        await three.asker.punch(three.kept.me, deadline_s=10)
    assert three.rules.asked == [three.asker.me]
    await until(lambda: three.rules.lines == 1, 60)


async def test_routers_that_let_nothing_in_leave_the_line_as_it_is(three: Three) -> None:
    await three.line()
    # Nobody listens there, and the kept peer does not call back either.
    three.kept._punches._own_port = lambda: 2
    three.asker._punches._own_port = lambda: 1
    with pytest.raises(TransportError):
        await three.asker.punch(three.kept.me, deadline_s=10)
    assert three.asker.is_relayed(three.kept.me)
    stream = await three.asker.open_stream(three.kept.me, deadline_s=10)
    await stream.write(b"through the relay")
    assert await exactly(stream, 17) == b"through the relay"


async def test_a_peer_calls_nobody_on_the_word_of_strangers(three: Three) -> None:
    """Not for who is no relay of its own, nor where no peer of the internet listens."""
    await three.line()
    calls: list[str] = []

    async def called(_port: int, place: SeenPlace) -> None:
        calls.append(place.host)

    three.kept._punches._called = called  # type: ignore[method-assign, assignment]
    three.kept._punches.is_callable = is_callable
    key = bytes(three.asker.me)
    bad = (
        key + SeenPlace("192.168.1.1", 4747).to_bytes(),
        key + SeenPlace("127.0.0.1", 4747).to_bytes(),
        key + SeenPlace("45.1.0.1", PORT_MIN - 1).to_bytes(),
        key + SeenPlace("45.1.0.1", 22).to_bytes(),
        key + SeenPlace("::1", 4747).to_bytes(),
        key + SeenPlace("fe80::1", 4747).to_bytes(),
    )
    for words in bad:
        stream = await three.relay._open(three.kept.me, PUNCHED, 5.0)
        await stream.write(words)
        assert await exactly(stream, 1) == bytes([RelayAnswer.NOT_KEPT])
    three.rules.takes_from = lambda _relay: False
    stream = await three.relay._open(three.kept.me, PUNCHED, 5.0)
    await stream.write(key + SeenPlace("45.1.0.1", 4747).to_bytes())
    assert await exactly(stream, 1) == bytes([RelayAnswer.NOT_KEPT])
    assert not calls
    three.rules.takes_from = lambda _relay: True
    stream = await three.relay._open(three.kept.me, PUNCHED, 5.0)
    await stream.write(key + SeenPlace("45.1.0.1", 4747).to_bytes())
    assert await exactly(stream, 1) == bytes([RelayAnswer.THROUGH])
    assert await exactly(stream, 2)
    await stream.write(b"go")
    await until(lambda: calls == ["45.1.0.1"], 60)


async def test_bytes_that_are_no_key_cost_their_sender_the_stream(three: Three) -> None:
    await three.line()
    for endpoint, other, protocol in (
        (three.asker, three.relay, PUNCH),
        (three.relay, three.kept, PUNCHED),
    ):
        for junk in (b"\xff" * 60, b"\x00" * 60):
            stream = await endpoint._open(other.me, protocol, 5.0)
            await stream.write(junk)
            try:
                assert await stream.read(1) != bytes([RelayAnswer.THROUGH])
            except TransportError:
                continue
    stream = await three.asker.open_stream(three.kept.me, deadline_s=10)
    await stream.write(b"all is well")
    assert await exactly(stream, 11) == b"all is well"


def test_a_place_is_read_as_it_was_written() -> None:
    for host in ("45.1.0.1", "2a00::1"):
        assert SeenPlace.read(SeenPlace(host, 4747).to_bytes()) == SeenPlace(host, 4747)
        assert is_callable(SeenPlace(host, 4747))


def test_each_is_called_once_an_hour_and_all_together_a_few() -> None:
    limits, ann = PunchLimits(), key_of("ann").peer
    assert limits.may(ann, 0.0)
    assert not limits.may(ann, PAIR_S - 1)
    assert limits.may(ann, PAIR_S)
    flood = [limits.may(PeerId(it.to_bytes(32, "big")), PAIR_S + 60) for it in range(1000)]
    assert sum(flood) == PUNCHES_BURST
