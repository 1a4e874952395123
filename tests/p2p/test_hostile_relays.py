"""Relays that flood, dribble, replay or call for others: who is kept loses a line at most."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
import trio
from trio.testing import MockClock

from node.devnet.relay_faults import BadRules
from p2p.over_libp2p import Site
from p2p.over_libp2p.circuits import RELAYED, exactly
from p2p.over_libp2p.endpoint import LibEndpoint
from p2p.over_libp2p.stream import LibStream
from p2p.peers import Peers
from p2p.relay_checks import AGAIN_S, SOON_S, RelayRecord
from p2p.relay_limits import RelayCounts
from p2p.relaying import TAKEN_MAX
from p2p.score import Standing
from p2p.transport import RelayAnswer
from p2p.typed_call import TypedCall
from tests.p2p.internet import (
    Internet,
    alone,
    asks,
    hears,
    home,
    keepers_of,
    kept,
    open_internet,
    server,
    servers,
)
from tests.p2p.transports import key_of, until
from wire.content import PeerId
from wire.errors import Refused, TransportError
from wire.kinds import RefusalCode
from wire.message import Message
from wire.reach import DialBack, DialedBack, Reserve


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with open_internet() as opened:
        yield opened


def endpoint_of(peers: Peers) -> LibEndpoint:
    assert isinstance(peers.endpoint, LibEndpoint)
    return peers.endpoint


def knows(asker: Peers, other: Peers) -> int:
    """At how many addresses the asker would call the other."""
    advert = asker.view.advert_of(other.me)
    return 0 if advert is None else len(advert.record.addresses)


async def asks_to_be_called_back(asker: Peers, other: Peers) -> None:
    async with asker.call(other.me, deadline_s=8.0) as call:
        await call.send(DialBack(port=8080))
        await call.expect(DialedBack)


async def copy_by(
    relay: Peers, pass_on: Callable[[LibStream, bytes, LibStream], object]
) -> list[bytes]:
    """Have a relay hand each piece of an asker's line to `pass_on`; returns what it saw."""
    seen: list[bytes] = []
    circuits = endpoint_of(relay)._circuits

    async def copy_both(one: LibStream, other: LibStream, _rules: object) -> None:
        async def copy(source: LibStream, target: LibStream) -> None:
            while data := await source.read(64 << 10):
                if source is one:
                    seen.append(data)
                    await pass_on(source, data, target)  # type: ignore[misc]
                else:
                    await target.write(data)

        async def guarded(source: LibStream, target: LibStream) -> None:
            with suppress(TransportError):
                await copy(source, target)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded, one, other)
            await guarded(other, one)

    circuits._copy_both = copy_both  # type: ignore[method-assign]
    return seen


async def test_a_relay_that_opens_ten_thousand_lines_has_few_of_them(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 3)
    target = await kept(internet, "target", home(1), 3)
    relay = internet.peers["server 1"]
    said: list[int] = []
    open_now, most = 0, 0

    async def line(number: int) -> None:
        nonlocal open_now, most
        try:
            stream = await endpoint_of(relay)._open(target.me, RELAYED, 5.0)
            await stream.write(number.to_bytes(32, "big"))
            code = await exactly(stream, 1)
            said.append(code[0])
            if code[0] == RelayAnswer.THROUGH:
                open_now += 1
                most = max(most, open_now)
                await trio.sleep(1)
                open_now -= 1
            await stream.reset()
        except TransportError:
            said.append(-1)

    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    relayed = [it for it in target.relaying.addresses() if str(relay.me) not in it]
    await endpoint_of(asker).connect(relayed[0], deadline_s=8.0)
    async with trio.open_nursery() as nursery:
        for number in range(600):
            nursery.start_soon(line, number)
            if not number % 100:
                # It serves others all the while.
                assert await asks(asker, target.me) == b"here"
    assert len(said) == 600
    assert 0 < most <= TAKEN_MAX
    await until(lambda: not target.relaying._taken.get(relay.me), 60)
    assert await asks(asker, target.me) == b"here"


async def test_a_relay_that_sends_a_byte_an_hour_is_gone_round(
    autojump_clock: MockClock, internet: Internet
) -> None:
    """Before it says whom it reached, and in the middle of a line."""
    await servers(internet, 3)
    target = await kept(internet, "target", home(1), 3)
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await until(lambda: knows(asker, target) == 3, 120)
    await alone(asker, target)
    slow = [internet.peers[f"server {it}"] for it in (1, 2)]

    async def say_nothing(stream: LibStream) -> None:
        await trio.sleep(1000)
        await stream.write(bytes([RelayAnswer.THROUGH]))

    for relay in slow:
        endpoint_of(relay)._circuits.pass_on = say_nothing  # type: ignore[method-assign]
    began_at_s = trio.current_time()
    assert await asks(asker, target.me, deadline_s=20.0) == b"here"
    assert trio.current_time() < began_at_s + 20.0

    # The third one passes on, and stops doing so.
    class Slow(RelayCounts):
        __slots__ = ()

        def wait_s(self, *_line: object) -> float:
            return 3600.0

    internet.peers["server 3"].relaying.counts.__class__ = Slow
    await until(lambda: not asker.endpoint.is_connected(target.me), 15)


async def test_what_a_relay_recorded_is_of_no_use_to_it(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 1)
    target = await kept(internet, "target", home(1), 1)
    relay = internet.peers["server 1"]

    async def on(_source: LibStream, data: bytes, other: LibStream) -> None:
        await other.write(data)

    seen = await copy_by(relay, on)
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    served = target.served
    await alone(asker, target)
    # The whole of it once more, on a line of its own, in the asker's name.
    stream = await endpoint_of(relay)._open(target.me, RELAYED, 5.0)
    await stream.write(asker.me)
    assert await exactly(stream, 1) == bytes([RelayAnswer.THROUGH])
    with trio.fail_after(30), suppress(TransportError):
        for data in seen:
            await stream.write(data)
        while await stream.read(1 << 16):
            pass
    assert not target.endpoint.is_connected(asker.me)
    assert target.served == served
    assert target.standing(asker.me) is Standing.GOOD


async def test_what_a_relay_sends_twice_or_alters_ends_the_line_and_blames_nobody(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 1)
    target = await kept(internet, "target", home(1), 1)
    relay = internet.peers["server 1"]
    spoilt = False

    async def on(_source: LibStream, data: bytes, other: LibStream) -> None:
        await other.write(data)
        if spoilt:
            await other.write(data)

    await copy_by(relay, on)
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    spoilt = True
    with trio.fail_after(30), suppress(TransportError):
        while True:
            await asks(asker, target.me, deadline_s=3.0)
    spoilt = False
    await until(lambda: not target.endpoint.is_connected(asker.me), 30)
    assert await asks(asker, target.me, deadline_s=20.0) == b"here"
    assert target.standing(asker.me) is asker.standing(target.me) is Standing.GOOD
    assert keepers_of(target) == [relay.me]


async def test_who_comes_through_a_relay_is_called_back_nowhere(
    autojump_clock: MockClock, internet: Internet
) -> None:
    """The address seen would be the relay's: a third party's."""
    await servers(internet, 3)
    target = await kept(internet, "target", home(1), 3)
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    assert await asks(asker, target.me) == b"here"
    assert asker.endpoint.is_relayed(target.me)
    before = target.dialing_back.dialed
    with pytest.raises(Refused) as refusal:
        await asks_to_be_called_back(asker, target)
    assert refusal.value.code is RefusalCode.NOT_WILLING
    assert target.dialing_back.dialed == before


async def test_many_keys_of_one_home_have_its_address_called_a_few_times_a_minute(
    autojump_clock: MockClock, internet: Internet
) -> None:
    """Behind a carrier's router one address is of many homes: the others are third parties."""
    stranger = await internet.add("stranger", server(1))
    router = home(1)
    before = stranger.dialing_back.dialed
    for number in range(12):
        name = f"key {number}"
        peers = await internet.add(name, Site(f"192.168.1.{number + 2}", router))
        with suppress(Refused):
            await asks_to_be_called_back(peers, stranger)
    assert trio.current_time() - internet.started_at_s < 120
    assert stranger.dialing_back.dialed - before <= 8


async def through(asker: Peers, stranger: Peers, relay: PeerId) -> DialedBack:
    async with asker.call(stranger.me, deadline_s=8.0) as call:
        await call.send(DialBack(port=1, relay=(relay,)))
        return await call.expect(DialedBack)


def pass_nothing(internet: Internet, count: int) -> list[Peers]:
    """So many of the servers give leases and pass no calls on."""
    found = [internet.peers[f"server {it}"] for it in range(1, count + 1)]
    for relay in found:
        relay.endpoint.set_relay_rules(BadRules(relay.relaying, "relay_lies", Random(1)))
    return found


async def test_a_home_leaves_relays_that_pass_nothing_on(
    autojump_clock: MockClock, internet: Internet
) -> None:
    """Three of them are all that it wants: it would say that it is kept, and nobody reach it."""
    await servers(internet, 3)
    bad = pass_nothing(internet, 3)
    target = await kept(internet, "target", home(1), 3)
    assert set(keepers_of(target)) == {it.me for it in bad}
    for number in range(4, 7):
        await internet.add(f"server {number}", server(number))
    good = {internet.peers[f"server {it}"].me for it in range(4, 7)}
    await until(lambda: set(keepers_of(target)) == good, 900)
    assert target.relay_checks.left == 3
    asker = await internet.add("asker", Site("192.168.1.2", home(2)))
    await hears(asker, target)
    await alone(asker, target)
    assert await asks(asker, target.me) == b"here"


def test_who_lies_about_a_relay_has_it_left_only_with_another_and_in_the_majority() -> None:
    def is_bad(*said: tuple[str, bool]) -> bool:
        record = RelayRecord(0.0)
        for answer in said:
            record.take(*answer, 0.0)
        return record.is_bad()

    # One network is one stranger, however often it says so.
    assert not is_bad(*[("1", False)] * 9)
    assert not is_bad(("1", False), ("2", True), ("1", False))
    assert is_bad(("1", False), ("2", False))
    # It was honest once.
    assert is_bad(*[("2", True)] * 9, ("1", False), ("3", False))


def test_a_relay_is_asked_about_seldom_once_it_is_known_to_pass_calls_on() -> None:
    record = RelayRecord(5.0)
    due = []
    for network, reached in (("1", True), ("2", True), ("3", False), ("2", True)):
        record.take(network, reached, 0.0)
        due.append(record.due_at_s)
    assert due == [SOON_S, AGAIN_S, SOON_S, AGAIN_S]


async def test_whoever_asks_to_be_called_through_a_relay_aims_no_call(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 2)
    one, two = internet.peers["server 1"], internet.peers["server 2"]
    asker = await internet.add("asker", Site("192.168.1.2", home(1)))
    with pytest.raises(Refused) as refused:
        await through(asker, one, key_of("nobody knows it").peer)
    assert refused.value.code is RefusalCode.NOT_FOUND
    with suppress(Refused):
        await through(asker, one, two.me)
    # It is called once a minute.
    with pytest.raises(Refused) as refused:
        await through(asker, one, two.me)
    assert refused.value.code is RefusalCode.BUSY


async def test_a_relay_that_goes_while_another_gives_its_lease_ends_nobody(
    autojump_clock: MockClock, internet: Internet
) -> None:
    await servers(internet, 2)
    target = await kept(internet, "target", home(1), 2)
    leases = target.relaying._relays
    first, second = (internet.peers[f"server {number}"] for number in (1, 2))
    if next(iter(leases)) != first.me:
        first, second = second, first
    renew = first.handlers[Reserve]

    async def renew_slowly(call: TypedCall, message: Message) -> None:
        await second.endpoint.disconnect(target.me)
        await until(lambda: second.me not in leases, 5)
        await renew(call, message)

    first.handlers[Reserve] = renew_slowly
    now_at_s = trio.current_time()
    leases[first.me] = replace(leases[first.me], renew_at_s=now_at_s)
    leases[second.me] = replace(leases[second.me], until_at_s=now_at_s)
    await trio.sleep(60)
    assert set(keepers_of(target)) == {first.me, second.me}
