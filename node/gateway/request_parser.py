"""HTTP/1.1 requests out of bytes as they come, within bounds; what is none is refused. A pure core.

httptools (llhttp) reads the bytes. This file decides what it leaves open: how long a head may be,
that everything which two readers could understand differently is refused, and that no other
protocol is ever spoken on a connection. Offers to change it (`Upgrade`) are not taken: the request
is answered as it stands, as HTTP allows, except for WebSocket, whose clients can do nothing with
such an answer.
"""

import re
from collections import deque
from dataclasses import dataclass, field

import httptools

HEAD_BYTES_MAX = 16 << 10
HEADERS_MAX = 100
# Requests that a client may send before the one at work is answered.
REQUESTS_AHEAD_MAX = 64
# What the frames of a chunked body, their extensions and trailers may take besides the body.
FRAMING_BYTES_FREE = 256 << 10
FRAMING_TIMES_BODY = 8
PREFACE_OF_HTTP_2 = b"PRI * HTTP/2"
_VERSIONS = frozenset({"1.0", "1.1"})
# Of these, two would leave it open which of them counts.
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
# The headers that speak of the offer to change protocols, and of nothing else.
_UPGRADE = frozenset({b"upgrade", b"http2-settings", b"connection"})
_TARGET = re.compile(rb"[!-\"$-~]+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing more is read on a connection: a status, words, and a code for programs."""

    status: int
    message: str
    code: str = "invalid_http"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of one request. Header names are in lower case, values without outer blanks."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    version: str
    keep_alive: bool
    expects_continue: bool
    # None where the body has chunks.
    length_bytes: int | None


@dataclass(slots=True)
class IncomingRequest:
    """A request whose head is complete; its body is added as it comes."""

    head: RequestHead
    parts: list[bytes] = field(default_factory=list)
    # Of `parts`, which whoever takes them sets back.
    waiting_bytes: int = 0
    body_bytes: int = 0
    is_complete: bool = False


class RequestParser:
    """Bytes go into `feed`; `requests` has the heads that nobody took yet, in their order.

    Once there is a `refusal`, nothing more is read. Requests before it are to be answered first.
    """

    def __init__(self) -> None:
        self.requests: deque[IncomingRequest] = deque()
        self.refusal: Refusal | None = None
        # The first bytes of the connection, until they can be no HTTP/2.
        self._beginning: bytes | None = b""
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._request: IncomingRequest | None = None
        self._upgrading = False
        # Of what came since the last request was complete, in whole pieces.
        self._raw_bytes = 0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._once: dict[bytes, bytes] = {}
        self._head_bytes = 0

    @property
    def receiving(self) -> IncomingRequest | None:
        """The request whose body is still to come, if there is one."""
        return self._request

    @property
    def is_in_head(self) -> bool:
        return self._request is None and self._raw_bytes > 0

    def feed(self, data: bytes) -> None:
        """Read what came from the client, of any size and cut anywhere."""
        if self.refusal is not None:
            return
        if self._beginning is not None and self._is_http_2(data):
            self._refuse(505, "only HTTP/1.1 is spoken here", "http_version")
        rest = memoryview(data)
        while rest and self.refusal is None:
            self._raw_bytes += len(rest)
            try:
                self._parser.feed_data(rest)
                rest = rest[:0]
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                self._go_on_without_upgrade()
            except httptools.HttpParserError as error:
                self._refuse_error(error)
        self._check_framing()

    def _is_http_2(self, data: bytes) -> bool:
        length = len(PREFACE_OF_HTTP_2)
        begun = (self._beginning or b"") + data[:length]
        self._beginning = begun if len(begun) < length else None
        return begun.startswith(PREFACE_OF_HTTP_2)

    def _check_framing(self) -> None:
        request = self._request
        if request is None:
            if self._raw_bytes > HEAD_BYTES_MAX:
                self._refuse_long_head()
        elif request.head.length_bytes is None:
            most = FRAMING_BYTES_FREE + FRAMING_TIMES_BODY * request.body_bytes
            if self._raw_bytes - request.body_bytes > most:
                self._refuse(400, "the body's chunks are mostly framing")

    def _go_on_without_upgrade(self) -> None:
        """Read a head again without its offer to change protocols."""
        if self.refusal is not None:
            return
        version = self._parser.get_http_version().encode()
        head = b"%b %b HTTP/%b\r\n" % (self._parser.get_method(), self._target, version)
        for name, value in self._headers:
            if name not in _UPGRADE:
                head += b"%b: %b\r\n" % (name, value)
        if not self._parser.should_keep_alive():
            head += b"connection: close\r\n"
        self._begin()
        try:
            self._parser.feed_data(head + b"\r\n")
        except httptools.HttpParserError as error:
            self._refuse_error(error)

    def _refuse(self, status: int, message: str, code: str = "invalid_http") -> None:
        if self.refusal is None:
            self.refusal = Refusal(status, message, code)

    def _refuse_long_head(self) -> None:
        self._refuse(
            431,
            f"the head of a request has at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} fields",
            "head_too_large",
        )

    def _refuse_error(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            self._refuse(400, "this is no HTTP/1.1 request: no method that is known")
        elif "HTTP version" in str(error):
            self._refuse(505, "only HTTP/1.1 is spoken here", "http_version")
        else:
            self._refuse(400, f"this is no HTTP/1.1 request: {error}")

    # What httptools calls

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._request is not None:
            # A trailer: nothing here reads those, and they are bounded together with the head.
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse_long_head()
            return
        name, value = name.lower(), value.strip(b" \t")
        if name in _ONCE:
            if name in self._once:
                self._refuse(400, f"there are two {name.decode()} headers")
            self._once[name] = value
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.refusal is not None:
            return
        self._head_bytes += len(self._target)
        if self._head_bytes > HEAD_BYTES_MAX or len(self._headers) > HEADERS_MAX:
            self._refuse_long_head()
            return
        version, method = self._parser.get_http_version(), self._parser.get_method().decode()
        if version not in _VERSIONS:
            self._refuse(505, "only HTTP/1.1 is spoken here", "http_version")
        elif method == "CONNECT":
            self._refuse(405, "this is no proxy", "method_not_allowed")
        elif self._parser.should_upgrade():
            self._upgrading = True
            if any(
                name == b"upgrade" and b"websocket" in value.lower()
                for name, value in self._headers
            ):
                self._refuse(403, "no WebSocket is spoken here", "no_websocket")
        elif _TARGET.fullmatch(self._target) is None:
            self._refuse(400, "the target of a request is a path in ASCII")
        else:
            self._open_request(method, version)

    def _open_request(self, method: str, version: str) -> None:
        coding, length = self._once.get(b"transfer-encoding"), self._once.get(b"content-length")
        expects = self._once.get(b"expect")
        if coding is not None and (
            length is not None or version != "1.1" or coding.lower() != b"chunked"
        ):
            self._refuse(400, "a body has a content-length, or is chunked and nothing else")
        elif expects is not None and expects.lower() != b"100-continue":
            self._refuse(417, "nothing else can be expected here than 100-continue", "expectation")
        elif len(self.requests) >= REQUESTS_AHEAD_MAX:
            self._refuse(400, f"at most {REQUESTS_AHEAD_MAX} requests may be sent ahead")
        if self.refusal is not None:
            return
        size_bytes = None if coding is not None else int(length or 0)
        head = RequestHead(
            method,
            self._target,
            self._headers,
            version,
            self._parser.should_keep_alive(),
            expects is not None and version == "1.1",
            size_bytes,
        )
        self._request = IncomingRequest(head)
        self.requests.append(self._request)

    def on_body(self, part: bytes) -> None:
        if self._request is not None and self.refusal is None:
            self._request.parts.append(part)
            self._request.waiting_bytes += len(part)
            self._request.body_bytes += len(part)

    def on_message_complete(self) -> None:
        if self._upgrading or self.refusal is not None:
            return
        if self._request is not None:
            self._request.is_complete = True
        self._request = None
        self._raw_bytes = self._head_bytes = 0
        self._target = b""
        # The head of the request before has the list that was.
        self._headers, self._once = [], {}
