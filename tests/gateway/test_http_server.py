"""Connections: deadlines, order, framing, and that whatever goes wrong in one is its own alone."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock

from node.gateway.availability import say_leaving
from node.gateway.http_connection import AHEAD_BYTES_MAX, HttpLimits, turn_away
from node.gateway.http_exchange import Exchange
from node.gateway.http_server import HttpServer

LIMITS = HttpLimits(connections_max=8, first_byte_s=10, idle_s=20, body_s=20, send_s=30)
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
Handler = Callable[[Exchange], Awaitable[None]]


async def echo(exchange: Exchange) -> None:
    """Says what was asked, with the body."""
    body = exchange.request.head.target
    while part := await exchange.body_part():
        body += b" " + part
    await exchange.respond(200, [], body)


class Served:
    """A server, and clients that are the other ends of socket pairs."""

    def __init__(self, nursery: trio.Nursery, handler: Handler, limits: HttpLimits) -> None:
        self.noted: list[str] = []
        self.server = HttpServer(handler, limits, lambda: 1e9, self.noted.append)
        self.nursery = nursery

    def connect(self, address: str = "192.0.2.1") -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.nursery.start_soon(self.server.serve, theirs, (address, 1))
        return ours

    async def answers(self, data: bytes, address: str = "192.0.2.1") -> bytes:
        """All that comes back until the server closes."""
        with self.connect(address) as ours:
            ours.send(data)
            return await heard(ours)


@asynccontextmanager
async def serving(handler: Handler = echo, limits: HttpLimits = LIMITS) -> AsyncIterator[Served]:
    async with trio.open_nursery() as nursery:
        yield Served(nursery, handler, limits)
        nursery.cancel_scope.cancel()


async def heard(ours: socket.socket, until: Callable[[bytes], bool] = lambda _: False) -> bytes:
    data = b""
    with trio.fail_after(1000):
        while not until(data):
            await trio.lowlevel.wait_readable(ours)
            try:
                part = ours.recv(1 << 16)
            except ConnectionResetError:
                # Something that was sent was never read; what came before is still there.
                continue
            if not part:
                break
            data += part
    return data


async def gone(ours: socket.socket) -> float:
    """When the server closed, by the clock."""
    await heard(ours)
    return trio.current_time()


# Answers


async def test_one_answer_for_each_request_in_their_order(autojump_clock: MockClock) -> None:
    last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with serving() as served:
        began_at_s = trio.current_time()
        data = await served.answers(b"".join(GET % b"%d" % it for it in range(50)) + last)
        # Closed as it was asked to be, and not because nothing more came.
        assert trio.current_time() - began_at_s < LIMITS.idle_s
    assert data.count(b"HTTP/1.1 200 OK\r\n") == 51
    places = [data.index(b"\r\n\r\n/%d" % it) for it in range(50)]
    assert places == sorted(places)
    assert data.endswith(b"connection: close\r\n\r\n/last")


async def test_an_answer_says_how_long_it_is(autojump_clock: MockClock) -> None:
    async def pieces(exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"text/plain")])
        await exchange.send(b"ab", more=True)
        await exchange.send(b"", more=True)
        await exchange.send(b"c", more=False)

    async with serving(pieces) as served:
        with served.connect() as ours:
            ours.send(GET % b"")
            data = await heard(ours, lambda it: it.endswith(b"0\r\n\r\n"))
            assert b"transfer-encoding: chunked" in data
            assert b"date: Sun, 09 Sep 2001 01:46:40 GMT\r\n" in data
            assert data.endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        old = await served.answers(b"GET / HTTP/1.0\r\n\r\n")
        assert b"chunked" not in old
        assert b"connection: close" in old
        assert old.endswith(b"\r\n\r\nabc")


async def test_head_has_the_head_alone(autojump_clock: MockClock) -> None:
    async with serving() as served:
        asked = b"HEAD /xyz HTTP/1.1\r\nHost: a\r\n\r\n" + GET % b"next"
        with served.connect() as ours:
            ours.send(asked)
            data = await heard(ours, lambda it: it.endswith(b"/next"))
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"content-length: 4" in head
    assert rest.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("cut", [1, 3, 1000])
async def test_a_body_comes_in_chunks_or_by_its_length(autojump_clock: MockClock, cut: int) -> None:
    chunked = (
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
    )
    sized = b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde"
    async with serving() as served:
        with served.connect() as ours:
            for begin in range(0, len(chunked + sized), cut):
                ours.send((chunked + sized)[begin : begin + cut])
                await trio.sleep(0.01)
            data = await heard(ours)
    bodies = [it.partition(b"\r\n\r\n")[2] for it in data.split(b"HTTP/1.1 200 OK")[1:]]
    assert [it.replace(b" ", b"") for it in bodies] == [b"/cabcde", b"/sabcde"]


async def test_a_client_that_waits_for_100_is_told_to_go_on(autojump_clock: MockClock) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    async with serving() as served:
        with served.connect() as ours:
            ours.send(head)
            data = await heard(ours, lambda it: it.endswith(b"\r\n\r\n"))
            assert data == b"HTTP/1.1 100 Continue\r\n\r\n"
            ours.send(b"ab")
            assert (await heard(ours, lambda it: it.endswith(b"ab"))).startswith(b"HTTP/1.1 200")

    async def refusing(exchange: Exchange) -> None:
        await exchange.respond(401, [], b"no")

    async with serving(refusing) as served:
        with served.connect() as ours:
            ours.send(head)
            data = await heard(ours)
            # What was not read of it could be taken for the next request.
            assert data.startswith(b"HTTP/1.1 401")
            assert b"connection: close" in data


async def test_what_an_answer_says_of_itself_is_true_or_the_connection_ends(
    autojump_clock: MockClock,
) -> None:
    async def short(exchange: Exchange) -> None:
        await exchange.respond(200, [(b"content-length", b"9")], b"x")

    async def split(exchange: Exchange) -> None:
        await exchange.respond(200, [(b"x-a", b"b\r\nset-cookie: c")], b"x")

    async def none(exchange: Exchange) -> None:
        return

    for handler in (short, split, none):
        async with serving(handler) as served:
            assert b"set-cookie" not in await served.answers(GET % b"")
            assert sum(served.server.statistics.errors.values()) == 1


async def test_who_is_refused_amid_a_body_can_send_it_all_and_is_told(
    autojump_clock: MockClock,
) -> None:
    async def refusing(exchange: Exchange) -> None:
        await trio.sleep(1)
        await exchange.respond(413, [], b"too large")

    async with serving(refusing) as served:
        with served.connect() as ours:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (4 << 20)
            body = memoryview(head + bytes(4 << 20))
            with trio.fail_after(10):
                while body:
                    await trio.lowlevel.wait_writable(ours)
                    body = body[ours.send(body) :]
            data = await heard(ours)
            assert data.startswith(b"HTTP/1.1 413")
            assert data.endswith(b"too large")


# Whatever goes wrong


async def test_an_exception_ends_its_own_connection_alone_and_is_counted(
    autojump_clock: MockClock,
) -> None:
    async def odd(exchange: Exchange) -> None:
        if exchange.request.head.target == b"/bad":
            raise KeyError("nobody expected it")
        if exchange.request.head.target == b"/group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(_raising)
        await trio.sleep(5)
        await echo(exchange)

    async with serving(odd) as served:
        with served.connect() as other:
            other.send(GET % b"good")
            assert await served.answers(GET % b"bad") == b""
            assert await served.answers(GET % b"group") == b""
            assert (await heard(other, lambda it: it.endswith(b"/good"))).startswith(b"HTTP/1.1 2")
        assert served.server.statistics.errors == {"KeyError": 1, "ZeroDivisionError": 1}
        assert "http: KeyError: 'nobody expected it'" in served.noted
        assert served.server.status()["errors"]["KeyError"] == 1


async def _raising() -> None:
    await trio.sleep(1)
    raise ZeroDivisionError


async def test_a_client_that_goes_away_has_its_request_cancelled(
    autojump_clock: MockClock,
) -> None:
    ended: list[float] = []

    async def long(exchange: Exchange) -> None:
        try:
            await trio.sleep(1000)
        finally:
            ended.append(trio.current_time())

    async with serving(long) as served:
        began_at_s = trio.current_time()
        with served.connect() as ours:
            ours.send(GET % b"")
            await trio.sleep(3)
        await trio.sleep(1)
        assert ended == [began_at_s + 3]
        assert served.server.statistics.abandoned == 1
        # Reading has to go on to notice that: who sends on and on meanwhile is closed.
        with served.connect() as ours:
            ours.send(GET % b"")
            await trio.sleep(1)
            ours.send(b"x" * (AHEAD_BYTES_MAX + 1))
            await heard(ours)
        assert len(ended) == 2
        assert served.server.statistics.refused == {"sent too far ahead": 1}


# Deadlines


async def test_each_wait_for_a_client_has_its_deadline(autojump_clock: MockClock) -> None:
    async with serving() as served:
        began_at_s = trio.current_time()
        with served.connect() as silent:
            assert await gone(silent) - began_at_s == LIMITS.first_byte_s
        began_at_s = trio.current_time()
        with served.connect() as slow:
            for _ in range(100):
                try:
                    slow.send(b"GET / HTTP/1.1\r\nX: y" if _ == 0 else b"z")
                except BrokenPipeError:
                    break
                await trio.sleep(1)
            assert (await heard(slow)).startswith(b"HTTP/1.1 408")
        assert trio.current_time() - began_at_s < LIMITS.idle_s + 3
        with served.connect() as idle:
            idle.send(GET % b"")
            began_at_s = trio.current_time()
            assert await gone(idle) - began_at_s == LIMITS.idle_s
        assert served.server.statistics.timed_out == {
            "first byte": 1,
            "head": 1,
            "next request": 1,
        }


async def test_a_client_that_does_not_read_is_cut_off(autojump_clock: MockClock) -> None:
    began: list[float] = []
    ended: list[float] = []

    async def large(exchange: Exchange) -> None:
        began.append(trio.current_time())
        try:
            exchange.start(200, [])
            while True:
                await exchange.send(bytes(1 << 20), more=True)
        finally:
            ended.append(trio.current_time())

    async with serving(large) as served:
        with served.connect() as ours:
            ours.send(GET % b"")
            await trio.sleep(200)
        assert ended[0] - began[0] <= LIMITS.send_s + 16 + 1
        assert served.server.statistics.timed_out == {"client reads": 1}
        assert len(served.server.table) == 0


async def test_at_the_end_answers_are_finished_and_whoever_asks_is_sent_away(
    autojump_clock: MockClock,
) -> None:
    async def slow(exchange: Exchange) -> None:
        await trio.sleep(5)
        await echo(exchange)

    async with serving(slow) as served:
        began_at_s = trio.current_time()
        with served.connect() as idle, served.connect() as kept, served.connect() as busy:
            busy.send(GET % b"x")
            await trio.sleep(1)
            served.nursery.start_soon(served.server.close, 30, say_leaving)
            await trio.sleep(0.5)
            kept.send(GET % b"kept")
            for data in (await heard(kept), await served.answers(GET % b"new")):
                assert data.startswith(b"HTTP/1.1 503 ")
                assert b"retry-after: 10\r\n" in data
                assert b"connection: close\r\n" in data
                assert b'"leaving"' in data
            data = await heard(busy)
            assert data.endswith(b"/x")
            assert b"connection: close" in data
            # Nothing was asked on it, so nothing is lost.
            assert await heard(idle) == b""
            assert trio.current_time() - began_at_s < 8


async def test_at_the_end_who_asks_nothing_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with serving() as served:
        with served.connect() as idle:
            await trio.sleep(1)
            await served.server.close(30, say_leaving)
            assert trio.current_time() <= 2.1
            assert await heard(idle) == b""


async def test_at_the_end_a_request_that_takes_too_long_is_cut(autojump_clock: MockClock) -> None:
    async def stuck(_: Exchange) -> None:
        await trio.sleep_forever()

    async with serving(stuck) as served:
        with served.connect() as busy:
            busy.send(GET % b"x")
            await trio.sleep(1)
            await served.server.close(30, say_leaving)
            assert 30 <= trio.current_time() <= 31.1
            assert await heard(busy) == b""


# Places


async def test_newcomers_take_the_places_of_the_quietest(autojump_clock: MockClock) -> None:
    async def slow(exchange: Exchange) -> None:
        exchange.hold_connection()
        if exchange.request.head.target == b"/slow":
            await trio.sleep(3)
        await echo(exchange)

    async with serving(slow) as served:
        with served.connect("198.51.100.1") as working:
            working.send(GET % b"slow")
            await trio.sleep(0.1)
            crowd = [served.connect("192.0.2.7") for _ in range(300)]
            assert len(served.server.table) <= LIMITS.connections_max
            await trio.sleep(0.1)
            assert len(served.server.table) == LIMITS.connections_max
            began_at_s = trio.current_time()
            for address in ("203.0.113.5", "192.0.2.8"):
                with served.connect(address) as honest:
                    honest.send(GET % b"hello")
                    data = await heard(honest, lambda it: it.endswith(b"/hello"))
                    assert data.startswith(b"HTTP/1.1 200")
            assert trio.current_time() == began_at_s
            data = await heard(working, lambda it: it.endswith(b"/slow"))
            assert data.startswith(b"HTTP/1.1 200")
            for ours in crowd:
                ours.close()
        assert served.server.statistics.evicted >= 293


async def test_who_has_to_go_is_told_why_unless_it_was_answered(autojump_clock: MockClock) -> None:
    async def slow(exchange: Exchange) -> None:
        if exchange.request.head.target == b"/begun":
            exchange.start(200, [])
            await exchange.send(b"a part", more=True)
        if exchange.request.head.target != b"/quick":
            await trio.sleep_forever()
        await echo(exchange)

    async with serving(slow) as served, AsyncExitStack() as stack:
        first = [stack.enter_context(served.connect()) for _ in range(LIMITS.connections_max)]
        sent = (b"", (GET % b"")[:9], GET % b"waits", GET % b"begun", GET % b"quick")
        for ours, data in zip(first, sent, strict=False):
            ours.send(data)
            await trio.sleep(0.1)
        answer = await heard(first[4], lambda data: data.endswith(b"quick"))
        assert answer.startswith(b"HTTP/1.1 200")
        for _ in range(LIMITS.connections_max):
            stack.enter_context(served.connect())
        heard_of = [await heard(it) for it in first]
        for place in (0, 1, 2, 5):
            assert heard_of[place].startswith(b"HTTP/1.1 503"), place
            assert b'"code": "too_many_connections"' in heard_of[place]
            assert b"retry-after: 2\r\n" in heard_of[place]
        assert heard_of[3].endswith(b"a part\r\n")
        assert b"503" not in heard_of[3]
        assert heard_of[4] == b""


@pytest.mark.parametrize("asks", [False, True])
async def test_what_nobody_read_yet_is_answered_too(asks: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        if asks:
            ours.send(GET % b"")
        turn_away(theirs, b"now", is_owed=False)
        theirs.shutdown(socket.SHUT_RDWR)
        assert ours.recv(4096)[:12] == (b"HTTP/1.1 503" if asks else b"")
        # Nobody reads it, and nothing waits for that.
        theirs.close()
        turn_away(theirs, b"now")


async def test_nothing_is_said_into_an_answer_that_was_begun(autojump_clock: MockClock) -> None:
    async def begins(exchange: Exchange) -> None:
        exchange.start(200, [(b"content-length", b"200")])
        await exchange.send(b"a part", more=True)
        await trio.sleep_forever()

    async with serving(begins) as served, AsyncExitStack() as stack:
        slow = stack.enter_context(served.connect("192.0.2.9"))
        # Of what it sends not all is read.
        slow.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        for _ in range(40):
            await trio.sleep(0.01)
            with suppress(BlockingIOError):
                slow.send(bytes(32 << 10))
        for _ in range(LIMITS.connections_max):
            stack.enter_context(served.connect("192.0.2.9"))
        await trio.sleep(0.1)
        assert (await heard(slow)).endswith(b"a part")


async def test_where_all_are_at_work_a_newcomer_is_told_so(autojump_clock: MockClock) -> None:
    async def held(exchange: Exchange) -> None:
        exchange.hold_connection()
        await trio.sleep_forever()

    async with serving(held) as served, AsyncExitStack() as stack:
        for _ in range(LIMITS.connections_max):
            stack.enter_context(served.connect()).send(GET % b"")
        await trio.sleep(0.1)
        found = await served.answers(GET % b"")
        assert found.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in found
