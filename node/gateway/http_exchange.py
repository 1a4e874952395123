"""One HTTP request and its answer, as the code that answers sees them."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

from node.gateway.connection_limits import ConnectionSlot
from node.gateway.request_parser import IncomingRequest, Refusal

Headers = list[tuple[bytes, bytes]]
_STATUS_LINES = {int(it): f"HTTP/1.1 {it.value} {it.phrase}\r\n".encode() for it in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Answers that never have a body.
_BODYLESS = frozenset({204, 304})


class RequestRefused(Exception):
    """The body of a request broke off in bytes that are no HTTP."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Channel(Protocol):
    """What an exchange needs of its connection. Of a client that is gone the work is cancelled."""

    place: ConnectionSlot
    address: tuple[str, int]
    # Whether the connection ends with the answer that is being given.
    is_last: bool

    @property
    def refusal(self) -> Refusal | None: ...

    @property
    def date(self) -> bytes: ...

    async def send(self, data: bytes) -> None:
        """Write bytes to the client, as fast as it reads; the work is cancelled once it is gone."""

    async def more_arrived(self) -> None: ...

    def made_room(self) -> None: ...


class AnswerGate(Protocol):
    """What an answer goes through before its client sees any of it."""

    async def before_head(
        self, status: int, headers: Headers, data: bytes, *, more: bool
    ) -> tuple[int, Headers, bytes, bool]:
        """The beginning of the answer as it is sent, and whether more of it follows."""
        ...

    async def after_replaced(self) -> None:
        """Cancel whoever goes on with an answer that has ended with what was sent in its place."""


@dataclass(slots=True)
class Exchange:
    """One request; exactly one answer is sent to it, whole or in pieces."""

    request: IncomingRequest
    channel: Channel
    # What every answer to this request says besides.
    extra_headers: Headers = field(default_factory=list)
    gate: AnswerGate | None = None
    is_over: bool = False
    closes: bool = False
    # The head, from when it is given until it is sent together with the first piece.
    _head: tuple[int, Headers] | None = None
    _is_head_sent: bool = False
    _is_chunked: bool = False
    _is_bodyless: bool = False
    # Of a body whose length was said: what is still to come.
    _left_bytes: int | None = None
    _continued: bool = False

    @property
    def is_begun(self) -> bool:
        """Whether an answer was begun."""
        return self._head is not None

    async def body_part(self) -> bytes:
        """The next piece of the body, `b""` at its end; RequestRefused if it breaks off."""
        request = self.request
        while not request.parts:
            if request.is_complete:
                return b""
            if (refusal := self.channel.refusal) is not None:
                raise RequestRefused(refusal)
            if request.head.expects_continue and not self._continued and not request.body_bytes:
                self._continued = True
                await self.channel.send(_CONTINUE)
                continue
            await self.channel.more_arrived()
        part = b"".join(request.parts)
        request.parts.clear()
        request.waiting_bytes = 0
        self.channel.made_room()
        return part

    def hold_connection(self) -> None:
        """From here on the connection does not give way to newcomers, until this is answered."""
        self.channel.place.at_work = True

    async def respond(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """The whole answer at once."""
        self.start(status, headers)
        await self.send(body, more=False)

    def start(self, status: int, headers: Headers) -> None:
        """Begin the answer; its head goes out with the first piece of its body."""
        if self._head is not None or self.is_over:
            raise RuntimeError("this request has an answer already")
        self._head = (status, headers)

    async def send(self, data: bytes, *, more: bool) -> None:
        """A piece of the answer's body. What is sent waits for the client to read, for a while."""
        if self._head is None or self.is_over:
            raise RuntimeError("an answer has one head, and one end")
        gate, self.gate, asked_more = self.gate, None, more
        if gate is not None:
            status, headers, data, more = await gate.before_head(*self._head, data, more=more)
            self._head = (status, headers)
        out = b""
        if not self._is_head_sent:
            self._is_head_sent = True
            out = self._opening(data, more)
        self.is_over = not more
        await self.channel.send(out + self._framed(data, more))
        if gate is not None and asked_more and not more:
            await gate.after_replaced()

    def _opening(self, data: bytes, more: bool) -> bytes:
        """The head's bytes, once it is known how the body is framed."""
        assert self._head is not None
        status, headers = self._head
        asked = self.request.head
        self._is_bodyless = asked.method == "HEAD" or status in _BODYLESS
        said = next((int(value) for name, value in headers if name == b"content-length"), None)
        framing: Headers = []
        if said is not None:
            self._left_bytes = said
        elif not more:
            self._left_bytes = len(data)
            if status not in _BODYLESS:
                framing = [(b"content-length", str(len(data)).encode())]
        elif asked.version == "1.1":
            self._is_chunked = True
            framing = [(b"transfer-encoding", b"chunked")]
        # What was not read of the request cannot be told from another one; and where neither is
        # said, the body ends with the connection.
        self.closes = (
            self.channel.is_last
            or not asked.keep_alive
            or asked.version != "1.1"
            or not self.request.is_complete
        )
        if self.closes:
            framing.append((b"connection", b"close"))
        return head_bytes(status, [*headers, *self.extra_headers, *framing], self.channel.date)

    def _framed(self, data: bytes, more: bool) -> bytes:
        if self._left_bytes is not None:
            self._left_bytes -= len(data)
            if not self._is_bodyless and (
                self._left_bytes < 0 or (self._left_bytes > 0 and not more)
            ):
                raise RuntimeError("the answer's body is not as long as was said")
        if self._is_bodyless:
            return b""
        if not self._is_chunked:
            return data
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return chunk if more else chunk + b"0\r\n\r\n"


def head_bytes(status: int, headers: Headers, date: bytes) -> bytes:
    """The head of an answer; ValueError for a header that would be more than one line."""
    lines = [_STATUS_LINES[status], b"date: ", date, b"\r\n"]
    for name, value in headers:
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise ValueError(f"the header {name!r} has more than one line")
        lines += [name, b": ", value, b"\r\n"]
    lines.append(b"\r\n")
    return b"".join(lines)
