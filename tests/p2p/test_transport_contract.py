"""What every transport promises. A new one is done when it passes this file."""

import itertools
import socket
import threading
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from p2p.over_libp2p import MemoryNetwork, MemoryTransport
from p2p.over_libp2p.endpoint import LibEndpoint
from p2p.transport import GOSSIP_BYTES_MAX, ConnectionDown, ConnectionUp, Endpoint
from tests.p2p.transports import (
    Kind,
    answers,
    connect,
    echo,
    ignore,
    key_of,
    kind_of,
    read_all,
    rising,
    until,
    until_sends,
)
from wire.content import PeerId
from wire.errors import (
    Disconnected,
    InputError,
    LocalProtocolError,
    TooSlow,
    TransportError,
    Unreachable,
)


@pytest.fixture(params=["tcp", "memory"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return kind_of(request.param)


async def test_a_peer_is_who_its_key_says_and_its_addresses_end_with_that(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        assert a.me == key_of("a").peer
        assert a.addresses
        assert all(one.endswith(f"/p2p/{a.me}") for one in a.addresses)
        assert await connect(b, a) == a.me
        await until(lambda: b.me in a.connected())
        assert b.connected() == {a.me}
        assert b.remote_address(a.me) == a.addresses[0].partition("/p2p/")[0]


async def test_what_one_side_writes_the_other_reads_and_then_the_end(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        peer = await connect(a, b)
        stream = await a.open_stream(peer, deadline_s=5)
        assert stream.peer == b.me
        await stream.write(b"one")
        await stream.write(b"two")
        assert await read_all(stream, 6) == b"onetwo"
        await stream.close()
        await stream.close()
        assert await stream.read(10) == b""
        with pytest.raises(Disconnected):
            await stream.write(b"after the end")


async def test_megabytes_arrive_whole_and_in_order_both_ways_at_once(kind: Kind) -> None:
    sent = bytes(range(256)) * (16 << 10)
    async with kind.open("a") as a, kind.open("b") as b:
        stream = await a.open_stream(await connect(a, b), deadline_s=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, sent)
            assert await read_all(stream, len(sent)) == sent


async def test_a_writer_waits_for_a_reader_that_does_not_read(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b", accept=ignore) as b:
        stream = await a.open_stream(await connect(a, b), deadline_s=5)
        with trio.move_on_after(0.5) as scope:
            await stream.write(bytes(8 << 20))
        assert scope.cancelled_caught


async def test_connecting_twice_is_one_connection(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(connect, a, b)
        assert a.statistics().connections == 1


async def test_a_coming_and_a_going_are_told_once_each(kind: Kind) -> None:
    async with kind.open("a") as a:
        told = []
        a.watch(told.append)
        async with kind.open("b") as b:
            peer = await connect(a, b)
            await until(lambda: told == [ConnectionUp(peer)])
        await until(lambda: told == [ConnectionUp(peer), ConnectionDown(peer)])
        assert a.connected() == frozenset()


async def test_a_peer_can_be_sent_away_and_come_back(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        peer = await connect(a, b)
        await a.disconnect(peer)
        await until(lambda: not a.connected() and not b.connected())
        with pytest.raises(Disconnected, match="connect first"):
            await a.open_stream(peer, deadline_s=5)
        await a.disconnect(peer)
        assert await answers(a, await connect(a, b))


async def test_nobody_at_the_address_is_Unreachable_and_may_be_tried_again(kind: Kind) -> None:
    async with kind.open("a") as a:
        async with kind.open("b") as b:
            address = b.addresses[0]
        # A failed attempt must not stand in the way of the next.
        for _ in range(2):
            with pytest.raises(Unreachable, match="check the address"):
                await a.connect(address, deadline_s=5)
        listen = address.partition("/p2p/")[0]
        async with kind.open("b", listen=listen):
            assert await answers(a, await a.connect(address, deadline_s=5))


async def test_somebody_else_at_the_address_is_Unreachable_and_says_so(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        wrong = b.addresses[0].partition("/p2p/")[0] + f"/p2p/{key_of('c').peer}"
        with pytest.raises(Unreachable, match="another peer answers"):
            await a.connect(wrong, deadline_s=5)
        assert await answers(a, await connect(a, b))


async def test_the_next_address_is_tried_when_the_first_is_dead(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        async with kind.open("c") as c:
            dead = c.addresses[0].partition("/p2p/")[0] + f"/p2p/{b.me}"
        await a.connect_peer(b.me, (dead, b.addresses[0]), deadline_s=5)
        assert await answers(a, b.me)
        with pytest.raises(Unreachable, match="no address"):
            await a.connect_peer(key_of("d").peer, (), deadline_s=5)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "hello",
        "/ip4/127.0.0.1/tcp/99999",
        "/ip4/127.0.0.1/tcp/4710",
        "/ip4/1.2.3.4/udp/1/p2p/",
        "/ip4/127.0.0.1/tcp/1/p2p/nobody",
        "/ip4/1.2.3.4/tcp/1" * 50,
        f"/unix/tmp/p2p/{PeerId(bytes(32))}",
        f"/ip4/1.2.3.4/udp/1/p2p/{PeerId(bytes(32))}",
    ],
)
async def test_a_bad_address_is_an_InputError_that_shows_a_good_one(
    kind: Kind, address: str
) -> None:
    async with kind.open("a") as a:
        with pytest.raises(InputError) as caught:
            await a.connect(address, deadline_s=5)
        assert "/tcp/" in str(caught.value) or "id" in str(caught.value)


async def test_a_place_that_is_taken_is_an_InputError_with_a_way_out(kind: Kind) -> None:
    async with kind.open("a") as a:
        taken = a.addresses[0].partition("/p2p/")[0]
        with pytest.raises(InputError, match="cannot listen") as caught:
            async with kind.open("b", listen=taken):
                pass
        assert caught.value.todo


async def test_an_address_that_cannot_be_listened_on_is_an_InputError(kind: Kind) -> None:
    with pytest.raises(InputError, match="an address to listen on looks like"):
        async with kind.open("a", listen="/dns/example.org/tcp/1"):
            pass


async def test_a_reset_ends_one_stream_and_no_other(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        peer = await connect(a, b)
        lost, kept = [await a.open_stream(peer, deadline_s=5) for _ in range(2)]
        await lost.reset()
        await lost.reset()
        with pytest.raises(Disconnected):
            await lost.read(1)
        with pytest.raises(Disconnected):
            await lost.write(b"x")
        await kept.write(b"still here")
        assert await read_all(kept, 10) == b"still here"


async def test_the_other_side_sees_a_reset(kind: Kind) -> None:
    heard, seen = trio.Event(), trio.Event()

    async def expect_reset(_peer: PeerId, stream) -> None:
        assert await stream.read(100) == b"hello"
        heard.set()
        with pytest.raises(Disconnected):
            await stream.read(100)
        seen.set()

    async with kind.open("a") as a, kind.open("b", accept=expect_reset) as b:
        stream = await a.open_stream(await connect(a, b), deadline_s=5)
        await stream.write(b"hello")
        # A reset overtakes what is unread; here it shall find the other side reading.
        with trio.fail_after(30):
            await heard.wait()
            await stream.reset()
            await seen.wait()


async def test_a_peer_that_leaves_ends_the_streams_to_it(kind: Kind) -> None:
    async with kind.open("a") as a:
        async with kind.open("b", accept=ignore) as b:
            stream = await a.open_stream(await connect(a, b), deadline_s=5)
        with pytest.raises(Disconnected), trio.fail_after(5):
            await stream.read(1)


@pytest.mark.parametrize("trial", range(12))
async def test_a_cancelled_write_leaves_the_connection_sound(kind: Kind, trial: int) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        peer = await connect(a, b)
        kept = await a.open_stream(peer, deadline_s=5)
        cut = await a.open_stream(peer, deadline_s=5)
        with trio.move_on_after(0.0005 * (trial + 1)):
            while True:
                await cut.write(bytes(200_000))
        await cut.reset()
        await kept.write(b"sound")
        assert await read_all(kept, 5) == b"sound"
        assert await answers(a, peer)


async def test_gossip_reaches_all_of_eight_and_each_once(kind: Kind) -> None:
    async with trio.open_nursery() as nursery:
        endpoints, inboxes = [], []
        for number in range(8):
            endpoint = await nursery.start(_keep_open, kind, f"peer {number}")
            endpoints.append(endpoint)
            inboxes.append(await endpoint.subscribe("topic"))
        # A line, so that most messages are passed on several times.
        for one, next_one in itertools.pairwise(endpoints):
            await connect(one, next_one)
        for one, next_one in itertools.pairwise(endpoints):
            await until_sends(one, next_one.me)
        await endpoints[0].publish("topic", b"news")
        with trio.fail_after(10):
            for inbox in inboxes[1:]:
                heard = await anext(inbox)
                assert (heard.source, heard.data) == (endpoints[0].me, b"news")
        with trio.move_on_after(1.2) as scope:
            await anext(inboxes[7])
        assert scope.cancelled_caught
        assert endpoints[0].statistics().heard == 0
        nursery.cancel_scope.cancel()


async def _keep_open(kind: Kind, name: str, task_status) -> None:
    async with kind.open(name) as endpoint:
        task_status.started(endpoint)
        await trio.sleep_forever()


async def test_a_peer_that_restarts_with_its_key_is_heard_at_once(kind: Kind) -> None:
    async with kind.open("a") as a:
        inbox = await a.subscribe("topic")
        for word in (b"before", b"after"):
            async with kind.open("b") as b:
                await b.subscribe("topic")
                await connect(b, a)
                await until_sends(b, a.me)
                await b.publish("topic", word)
                with trio.fail_after(5):
                    assert (await anext(inbox)).data == word
            await until(lambda: not a.connected())


async def test_a_full_inbox_drops_the_newest_and_counts_it(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        inbox = await a.subscribe("topic")
        await b.subscribe("topic")
        await connect(b, a)
        await until_sends(b, a.me)
        for number in range(600):
            await b.publish("topic", b"%d" % number)
            # Gossip drops what its queue cannot hold; this is about our own bound.
            await trio.sleep(0.001)
        await until(lambda: inbox.dropped > 0)
        assert a.statistics().heard_dropped == inbox.dropped
        assert (await anext(inbox)).data == b"0"


async def test_gossip_that_was_passed_on_leaves_nothing_behind(kind: Kind) -> None:
    async with kind.open("a") as a, kind.open("b") as b:
        inbox = await a.subscribe("topic")
        await b.subscribe("topic")
        await connect(b, a)
        await trio.sleep(1.3)
        for number in range(100):
            await b.publish("topic", b"%d" % number)
            assert (await anext(inbox)).data == b"%d" % number
        for it in (a, b):
            assert isinstance(it, LibEndpoint)
            kept = it._pubsub.router.recent_message_deliveries
            assert {topic: len(times) for topic, times in kept.items()} == {"topic": 0}


async def test_gossip_keeps_nothing_of_a_peer_that_left(kind: Kind) -> None:
    async with kind.open("a") as a:
        assert isinstance(a, LibEndpoint)
        pauses = a._pubsub.router.back_off
        await a.subscribe("topic")
        async with kind.open("b") as b:
            inbox = await b.subscribe("topic")
            await connect(b, a)
            await trio.sleep(1.3)
            # Whoever leaves a mesh is not asked back into it for a while.
            await inbox.unsubscribe()
            await until(lambda: any(pauses.values()))
        await until(lambda: not a.connected())
        await until(lambda: not any(pauses.values()))


async def test_after_unsubscribing_the_iteration_ends_and_nothing_comes(kind: Kind) -> None:
    async with kind.open("a") as a:
        inbox = await a.subscribe("topic")
        await inbox.unsubscribe()
        await inbox.unsubscribe()
        assert [heard async for heard in inbox] == []
        again = await a.subscribe("topic")
        assert again.topic == "topic"


async def test_gossip_that_is_too_large_is_our_own_mistake(kind: Kind) -> None:
    async with kind.open("a") as a:
        with pytest.raises(LocalProtocolError):
            await a.publish("topic", bytes(GOSSIP_BYTES_MAX + 1))
        with pytest.raises(LocalProtocolError):
            await a.subscribe("t" * 1000)


async def test_a_bug_in_accept_is_not_swallowed(kind: Kind) -> None:
    async def buggy(_peer: PeerId, _stream: object) -> None:
        raise ZeroDivisionError("our own mistake")

    async def meet(a: Endpoint) -> None:
        async with kind.open("b", accept=buggy) as b:
            await a.open_stream(await connect(a, b), deadline_s=5)
            await trio.sleep_forever()

    async with kind.open("a") as a:
        with pytest.raises(ZeroDivisionError):
            await meet(a)


async def test_what_the_block_raises_comes_out_as_it_is(kind: Kind) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with kind.open("a"):
            raise KeyError("mine")


async def test_nothing_outlives_the_block(kind: Kind) -> None:
    async def once() -> None:
        async with kind.open("a") as a, kind.open("b") as b:
            await a.subscribe("topic")
            await b.subscribe("topic")
            assert await answers(a, await connect(a, b))

    # Name resolution keeps threads for a while, and imports happen once.
    await once()
    tasks, threads = trio.lowlevel.current_statistics().tasks_living, threading.active_count()
    for _ in range(3):
        await once()
    assert trio.lowlevel.current_statistics().tasks_living <= tasks
    assert threading.active_count() <= threads


async def test_many_coming_and_going_leave_no_place_taken(kind: Kind) -> None:
    async with kind.open("hub") as hub:
        for number in range(20):
            async with kind.open(f"guest {number}") as guest:
                assert await answers(guest, await connect(guest, hub))
        await until(lambda: not hub.connected())
        assert hub.statistics().half_open == 0
        assert hub.statistics().connections == 0


# A busy machine waits for longer than libp2p would by itself.
@pytest.mark.parametrize("deadline_s", [0.3, 90])
async def test_a_place_that_accepts_and_says_nothing_is_TooSlow(
    autojump_clock: MockClock, deadline_s: float
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{key_of('b').peer}"
        async with kind_of("tcp").open("a") as a:
            with pytest.raises(TooSlow, match=rf"within {deadline_s:g} s"):
                await a.connect(address, deadline_s=deadline_s)
            assert a.connected() == frozenset()


async def test_a_wildcard_is_told_as_addresses_one_can_dial() -> None:
    kind = kind_of("tcp")
    async with kind.open("a", listen="/ip4/0.0.0.0/tcp/0") as a, kind.open("b") as b:
        assert not any("0.0.0.0" in address for address in a.addresses)
        assert "/ip4/127.0.0.1/" in a.addresses[-1]
        assert await b.connect(a.addresses[-1], deadline_s=5) == a.me


async def test_two_that_dial_each_other_at_once_are_connected() -> None:
    for _ in range(5):
        kind = kind_of("tcp")
        async with kind.open("a", accept=echo) as a, kind.open("b") as b:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect, a, b)
                nursery.start_soon(connect, b, a)
            assert await answers(a, b.me)
            assert await answers(b, a.me)


def test_the_test_clock_rises() -> None:
    assert rising() < rising()
    assert issubclass(Unreachable, TransportError)


async def test_a_connection_that_says_nothing_is_kept_and_one_that_answers_nothing_is_dropped(
    autojump_clock: MockClock,
) -> None:
    network = Cut()
    transport = MemoryTransport(network, wall_ns=rising)
    kind = Kind(transport, "/memory/0")
    async with kind.open("a") as a, kind.open("b") as b:
        peer = await connect(a, b)
        await trio.sleep(60)
        assert a.connected() == {peer}
        network.cut = True
        cut_s = trio.current_time()
        await until(lambda: not a.connected() and not b.connected(), 60)
        assert 3 < trio.current_time() - cut_s <= 11
        with pytest.raises(TooSlow):
            await a.connect(b.addresses[0], deadline_s=3)


class Cut(MemoryNetwork):
    """A network whose wire may be cut: what is sent then never arrives."""

    cut = False

    def carry(self, source: str, target: str, size_bytes: int, deliver: Callable[[], None]) -> None:
        if not self.cut:
            deliver()
