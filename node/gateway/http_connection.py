"""One client's connection: one task reads what comes, another answers request after request.

The reader notices that a client is gone, which cancels the request at work. Every wait for the
client has a deadline: for its first byte, for the rest of a head, between requests, and for it to
take what it is sent. For the rest of a body, whoever wants the body sets it.
"""

import json
import math
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from node.gateway.connection_limits import ConnectionSlot
from node.gateway.errors import ErrorDetail
from node.gateway.http_exchange import Exchange, head_bytes
from node.gateway.request_parser import IncomingRequest, Refusal, RequestParser

Handler = Callable[[Exchange], Awaitable[None]]
READ_BYTES = 64 << 10
# A body that nobody has taken yet; more is not read from the client meanwhile.
BODY_WAITING_BYTES_MAX = 256 << 10
# What a client may send of its next requests while one is at work. Reading has to go on to notice
# that it is gone, so a client that sends more is closed.
AHEAD_BYTES_MAX = 64 << 10
# Most clients read an answer only when they have sent everything: so much more is read, and thrown
# away, before a connection is closed.
LINGER_BYTES_MAX = 16 << 20
LINGER_S = 1.0
# Besides its deadline a piece has the time that the slowest of clients needs for its size.
SLOWEST_BYTES_PER_S = 64 << 10
# How what is said before an answer begins.
_INTERIM = b"HTTP/1.1 100 "
# Its server's places are all taken by now, and one may be free at any moment.
_NO_ROOM = ErrorDetail(
    status=503,
    message="as many connections are open here as may be: close some, or try again in a moment",
    code="too_many_connections",
    retry_after_s=2.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """The deadlines of a connection, and how many there may be."""

    connections_max: int = 512
    first_byte_s: float = 10.0
    # For a head, from its first byte; and between two requests.
    idle_s: float = 20.0
    body_s: float = 20.0
    send_s: float = 30.0


@dataclass(slots=True)
class HttpStatistics:
    """Counts since the start."""

    connections: int = 0
    requests: int = 0
    # Requests that were cancelled since their clients went away.
    abandoned: int = 0
    evicted: int = 0
    # By status, of what was no HTTP/1.1; by what was waited for; by the kind of exception.
    refused: dict[str, int] = field(default_factory=dict)
    timed_out: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


def count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


@dataclass(slots=True, eq=False)
class Connection:
    """One connection, until `run` returns; whoever calls it closes the socket."""

    socket: socket.socket
    address: tuple[str, int]
    place: ConnectionSlot
    limits: HttpLimits
    statistics: HttpStatistics
    handler: Handler
    date_now: Callable[[], bytes]
    is_last: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    parser: RequestParser = field(default_factory=RequestParser)
    _patience: trio.CancelScope = field(default_factory=trio.CancelScope)
    _arrived: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    _room: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    _at_work: IncomingRequest | None = None
    _awaited: str = "first byte"
    # Until when the client has to be heard again. What waits for it is told when that comes sooner
    # than it knew, and looks here when its time is up: most deadlines are moved before they come.
    _until_at_s: float = math.inf
    _ahead_bytes: int = 0
    _lingering: bool = False
    # Whether an answer was begun to what is at work, or has ever been.
    _has_begun: bool = False
    _has_answered: bool = False

    async def run(self) -> None:
        """Serve the client until it is gone, is given up, or has had its last answer."""
        self._wait_until(trio.current_time() + self.limits.first_byte_s)
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer_all)
                if await self._ran_out_of_patience() and not self._lingering:
                    await self._give_up()
                if self._at_work is not None:
                    self.statistics.abandoned += 1
                nursery.cancel_scope.cancel()

    def end_with(self, handler: Handler) -> None:
        """Make the next answer the last one, which `handler` gives if it is not being made yet."""
        self.is_last, self.handler = True, handler

    def turn_away(self) -> None:
        """End at once for want of room; who asked for something and heard nothing is told so.

        Nothing is said into an answer that was begun: it would be read as a part of that.
        """
        waits = self.parser.is_in_head or bool(self.parser.requests)
        is_owed = self._at_work is not None or waits or not self._has_answered
        is_amid = self._at_work is not None and self._has_begun
        if not (self._lingering or is_amid):
            turn_away(self.socket, self.date, is_owed=is_owed)
        self.scope.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether a request is at work, or its answer may still be on its way."""
        return self._at_work is not None or bool(self.parser.requests) or self._lingering

    # Reading

    async def _ran_out_of_patience(self) -> bool:
        """Read until there is nothing more to read; whether the client was waited for in vain."""
        while True:
            self._patience = trio.CancelScope(deadline=self._until_at_s)
            with self._patience:
                await self._read_all()
                return False
            if trio.current_time() >= self._until_at_s:
                return True

    def _wait_until(self, at_s: float) -> None:
        self._until_at_s = at_s
        if at_s < self._patience.deadline:
            self._patience.deadline = at_s

    async def _read_all(self) -> None:
        while True:
            if self._is_full():
                await self._room.park()
                continue
            await trio.lowlevel.wait_readable(self.socket.fileno())
            try:
                data = self.socket.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data or not self._take(data):
                return

    def _is_full(self) -> bool:
        """Whether the body that is coming in has to be taken on before more of it is read."""
        receiving = self.parser.receiving
        if receiving is None or self._lingering:
            return False
        return receiving.waiting_bytes > BODY_WAITING_BYTES_MAX

    def _take(self, data: bytes) -> bool:
        """Whether to go on after `data`."""
        self.place.heard_at_s = trio.current_time()
        if self._lingering:
            self._ahead_bytes += len(data)
            return self._ahead_bytes <= LINGER_BYTES_MAX
        if self._at_work is not None and self._at_work.is_complete:
            self._ahead_bytes += len(data)
            if self._ahead_bytes > AHEAD_BYTES_MAX:
                count(self.statistics.refused, "sent too far ahead")
                return False
        self.parser.feed(data)
        if self._at_work is None:
            self._be_patient()
        self._arrived.unpark_all()
        return True

    def _be_patient(self) -> None:
        """Set until when the client has to be heard again, where no request is at work."""
        if self.parser.requests or self.parser.refusal is not None:
            self._awaited = "nothing"
            self._until_at_s = math.inf
        elif self._awaited != "head":
            self._awaited = "head" if self.parser.is_in_head else "next request"
            self._wait_until(trio.current_time() + self.limits.idle_s)

    async def _give_up(self) -> None:
        count(self.statistics.timed_out, self._awaited)
        if self._awaited == "head":
            idle_s = self.limits.idle_s
            words = f"the head of the request did not come within {idle_s:g} s"
            await self._refuse(Refusal(408, words, "head_too_slow"))
            self._linger()
            with trio.move_on_after(LINGER_S):
                await self._read_all()

    # Answering

    async def _answer_all(self) -> None:
        parser = self.parser
        while True:
            while not (parser.requests or parser.refusal is not None):
                await self._arrived.park()
            if not parser.requests:
                assert parser.refusal is not None
                await self._refuse(parser.refusal)
                break
            if not await self._answer(parser.requests.popleft()):
                break
        self._linger()

    async def _answer(self, request: IncomingRequest) -> bool:
        """Whether the connection may go on after it."""
        self._at_work, self._ahead_bytes, self._has_begun = request, 0, False
        self._awaited, self._until_at_s = "nothing", math.inf
        self.statistics.requests += 1
        exchange = Exchange(request, self)
        await self.handler(exchange)
        if not exchange.is_over:
            raise RuntimeError("a request was left without its answer")
        self._at_work, self.place.at_work = None, False
        self.place.heard_at_s = trio.current_time()
        self._be_patient()
        if self.parser.requests:
            # Answers may go out without a wait: others get their turn between two of one client.
            await trio.lowlevel.checkpoint()
        return not (exchange.closes or self.is_last)

    async def _refuse(self, refusal: Refusal) -> None:
        """Say why nothing more is read on this connection."""
        count(self.statistics.refused, str(refusal.status))
        fault = ErrorDetail(status=refusal.status, message=refusal.message, code=refusal.code)
        await self.send(_last_words(fault, self.date))

    def _linger(self) -> None:
        """Close our side, and read on for a while: else what was sent could be lost with it."""
        self._lingering, self._ahead_bytes = True, 0
        receiving = self.parser.receiving is not None or self.parser.refusal is not None
        linger_s = max(LINGER_S, self.limits.body_s) if receiving else LINGER_S
        self._wait_until(trio.current_time() + linger_s)
        self._room.unpark_all()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            # It is gone already.
            self.scope.cancel()

    # What an exchange asks for

    @property
    def refusal(self) -> Refusal | None:
        return self.parser.refusal

    @property
    def date(self) -> bytes:
        return self.date_now()

    def made_room(self) -> None:
        if self._room:
            self._room.unpark_all()

    async def more_arrived(self) -> None:
        await self._arrived.park()

    async def send(self, data: bytes) -> None:
        """Have the client take `data`; one that does not, or is gone, ends the connection."""
        if not data.startswith(_INTERIM):
            self._has_begun = self._has_answered = True
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            await self._end()
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    async def _send_rest(self, data: memoryview) -> None:
        deadline_s = self.limits.send_s + len(data) / SLOWEST_BYTES_PER_S
        with trio.move_on_after(deadline_s) as waiting:
            while data:
                await trio.lowlevel.wait_writable(self.socket.fileno())
                try:
                    data = data[self.socket.send(data) :]
                except BlockingIOError:
                    continue
                except OSError:
                    await self._end()
                self.place.heard_at_s = trio.current_time()
        if waiting.cancelled_caught:
            count(self.statistics.timed_out, "client reads")
            await self._end()

    async def _end(self) -> None:
        """End the connection from within a request: what is at work ends as cancelled."""
        self.scope.cancel()
        await trio.sleep_forever()


def turn_away(connected: socket.socket, date: bytes, *, is_owed: bool = True) -> None:
    """Say to a client that there is no room; nothing, if it is owed no answer and asks nothing.

    What it sent is read first: a connection closed over that takes back what it was told.
    """
    try:
        asks = bool(connected.recv(READ_BYTES))
    except OSError:
        # Nothing came yet, or it is gone.
        asks = False
    if is_owed or asks:
        with suppress(OSError):
            connected.send(_last_words(_NO_ROOM, date))


def _last_words(fault: ErrorDetail, date: bytes) -> bytes:
    """A fault after which the connection ends."""
    body = json.dumps(fault.body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in fault.all_headers.items()),
        (b"connection", b"close"),
    ]
    return head_bytes(fault.status, headers, date) + body
