"""Bytes become requests or a refusal, whichever way a network cuts them."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.gateway.request_parser import (
    FRAMING_BYTES_FREE,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    REQUESTS_AHEAD_MAX,
    RequestParser,
)
from tests.bench._http_fuzz import mutated

HOST = b"Host: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def parsed(data: bytes, cuts: int | list[int] = 1 << 20) -> RequestParser:
    parser = RequestParser()
    if isinstance(cuts, int):
        cuts = list(range(cuts, len(data), cuts))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        parser.feed(data[begin:end])
    return parser


def told(parser: RequestParser) -> tuple[object, ...]:
    requests = [
        (it.head, b"".join(it.parts), it.is_complete, it.body_bytes) for it in parser.requests
    ]
    refusal = parser.refusal
    return requests, None if refusal is None else refusal.status


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/%b\r\n" % version + HOST + b"".join(fields) + b"\r\n" + body


# What two readers of the same bytes could take for different requests, or for none.
REFUSED = {
    "length and chunks": (400, post(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n")),
    "chunks and length": (400, post(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n")),
    "two lengths": (400, post(b"Content-Length: 3\r\n", b"Content-Length: 3\r\n", body=b"abc")),
    "a list of lengths": (400, post(b"Content-Length: 3, 3\r\n", body=b"abc")),
    "a signed length": (400, post(b"Content-Length: +3\r\n", body=b"abc")),
    "a length of 20 digits": (400, post(b"Content-Length: 99999999999999999999\r\n")),
    "an empty length": (400, post(b"Content-Length: \r\n")),
    "identity": (400, post(b"Transfer-Encoding: identity\r\n", body=b"abc")),
    "chunked, then identity": (400, post(b"Transfer-Encoding: chunked, identity\r\n")),
    "gzip, then chunked": (400, post(b"Transfer-Encoding: gzip, chunked\r\n", body=b"0\r\n\r\n")),
    "xchunked": (400, post(b"Transfer-Encoding: xchunked\r\n")),
    "a vertical tab": (400, post(b"Transfer-Encoding: \x0bchunked\r\n")),
    "chunked twice": (400, post(b"Transfer-Encoding: chunked\r\n" * 2)),
    "chunks in HTTP/1.0": (400, post(b"Transfer-Encoding: chunked\r\n", version=b"1.0")),
    "two hosts": (400, post(HOST)),
    "a blank after a chunk's size": (400, CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    "a chunk's size with 0x": (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a negative chunk": (400, CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"),
    "a chunk longer than it says": (400, CHUNKED + b"3\r\nabcXX0\r\n\r\n"),
    "a chunk of 2^76 bytes": (400, CHUNKED + b"fffffffffffffffffff\r\nabc"),
    "chunks by line feeds": (400, CHUNKED + b"3\nabc\n0\n\n"),
    "an extension with a line feed": (400, CHUNKED + b"3;a\nabc\r\n0\r\n\r\n"),
    "lines by line feeds": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "a folded header": (400, post(b"A: b\r\n c\r\n")),
    "a blank before the colon": (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    "a zero byte": (400, post(b"A: b\x00c\r\n")),
    "a bare carriage return": (400, post(b"A: b\rc\r\n")),
    "a header without a name": (400, post(b": b\r\n")),
    "a name in 8 bits": (400, post(b"\xe4: b\r\n")),
    "a path in 8 bits": (400, b"GET /\xe4 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a fragment": (400, b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an unknown method": (400, b"FLY / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an answer": (400, b"HTTP/1.1 200 OK\r\n\r\n"),
    "connect": (405, b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "connect without a target": (505, b"CONNECT HTTP/1.1\r\n" + HOST + b"\r\n"),
    "prior knowledge of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    "HTTP/2.0 in words": (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\n" + HOST + b"\r\n"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "another expectation": (417, post(b"Expect: 200-ok\r\n")),
    "WebSocket": (403, post(b"Connection: Upgrade\r\n", b"Upgrade: WebSocket\r\n")),
    "WebSocket in 8 bits": (
        403,
        post(b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n", b"Sec-WebSocket-Key: \xff\r\n"),
    ),
    "a long path": (431, b"GET /" + b"a" * HEAD_BYTES_MAX + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a long header": (431, post(b"A: " + b"b" * HEAD_BYTES_MAX + b"\r\n")),
    "a header without an end": (431, post(b"A: " + b"b" * 3 * HEAD_BYTES_MAX)),
    "many headers": (431, post(b"A: b\r\n" * HEADERS_MAX)),
    "long trailers": (431, CHUNKED + b"0\r\n" + b"T: x\r\n" * HEAD_BYTES_MAX + b"\r\n"),
    "mostly framing": (400, CHUNKED + b"1;" + b"e" * (FRAMING_BYTES_FREE + 100)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(name: str) -> None:
    status, data = REFUSED[name]
    for cut in (1, 7, 4096) if len(data) < 4096 else (4096, 50_000):
        parser = parsed(data, cut)
        assert parser.refusal is not None
        assert parser.refusal.status == status, parser.refusal
        assert parser.refusal.message
        assert not [it for it in parser.requests if it.is_complete]
        # What comes after is not read.
        parser.feed(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert not [it for it in parser.requests if it.is_complete]


def test_requests_come_in_their_order_with_their_bodies() -> None:
    data = (
        b"GET /1?q HTTP/1.1\r\n" + HOST + b"X-Empty:\r\nX-Blank: \t v \r\n\r\n"
        + post(b"Content-Length: 5\r\n", body=b"12345")
        + CHUNKED + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
        + b"\r\nGET /4 HTTP/1.0\r\n\r\n"
    )  # fmt: skip
    first, second, third, fourth = parsed(data).requests
    assert (first.head.method, first.head.target) == ("GET", b"/1?q")
    assert first.head.headers == [(b"host", b"a"), (b"x-empty", b""), (b"x-blank", b"v")]
    assert b"".join(second.parts) == b"12345"
    assert (b"".join(third.parts), third.head.length_bytes) == (b"abcde", None)
    # Trailers are nobody's headers.
    assert b"t" not in dict(third.head.headers)
    assert (fourth.head.version, fourth.head.keep_alive) == ("1.0", False)
    assert all(it.is_complete for it in (first, second, third, fourth))


@pytest.mark.parametrize("settings_", [b"AAMAAABk", b"!", b"A", b"AAAAAAAA////", b"\xff\xfe"])
def test_an_offer_to_change_protocols_is_not_taken(settings_: bytes) -> None:
    offer = (
        b"Connection: Upgrade, HTTP2-Settings\r\n",
        b"Upgrade: h2c\r\n",
        b"HTTP2-Settings: %b\r\n" % settings_,
    )
    data = post(*offer, b"Content-Length: 3\r\n", body=b"abc") * 3
    parser = parsed(data)
    assert parser.refusal is None
    assert [b"".join(it.parts) for it in parser.requests] == [b"abc"] * 3
    assert [it.is_complete for it in parser.requests] == [True] * 3
    assert all(b"upgrade" not in dict(it.head.headers) for it in parser.requests)
    closing = post(b"Connection: close, Upgrade\r\n", b"Upgrade: h2c\r\n")
    assert [it.head.keep_alive for it in parsed(closing).requests] == [False]


def test_many_offers_in_one_piece_are_read_one_after_another() -> None:
    one = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    many = parsed(one * 900)
    assert len(many.requests) == REQUESTS_AHEAD_MAX
    # More at once would only fill memory.
    assert many.refusal is not None
    assert (many.refusal.status, str(REQUESTS_AHEAD_MAX) in many.refusal.message) == (400, True)


@settings(max_examples=300, deadline=None, database=None)
@given(st.integers(0, 1 << 32), st.data())
def test_where_the_bytes_are_cut_changes_nothing(seed: int, data: st.DataObject) -> None:
    sent = mutated(Random(seed))
    if len(sent) > HEAD_BYTES_MAX // 2:
        # How much is read of a head that is too long depends on how it comes.
        return
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    assert told(parsed(sent, cuts)) == told(parsed(sent))
