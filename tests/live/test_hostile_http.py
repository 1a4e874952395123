"""Raw bytes that mean ill, sent to a gateway that a person started: it counts them, and goes on."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.bench._http_fuzz import PREFACE, PRIORITY, SETTINGS
from tests.live.command_line import Peer, joined

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
COMPLETION = {"model": "hash", "prompt": "hello", "max_tokens": 2}
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: %b\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


# `:method: POST` and others by the tables of HPACK, `:path` and `:method` as literals where odd.
HEADERS = frame(1, 4, 1, b"\x83\x86\x84\x41\x01a")
DATA = frame(0, 0, 1, b"x" * 100) * 50
ODD_PATH = frame(1, 5, 1, b"\x82\x86\x04\x02\xe4\xff\x41\x01a")
ODD_METHOD = frame(1, 5, 1, b"\x02\x02\xe4\xff\x86\x84\x41\x01a")
CONNECT = frame(1, 5, 1, b"\x02\x07CONNECT\x41\x01a")
WINDOW_0 = frame(4, 0, 0, b"\x00\x04\x00\x00\x00\x00")
HEALTH = b"\x82\x86\x04\x08/healthz\x41\x09localhost"

# What is sent, and with which statuses it may be answered.
ATTACKS = {
    "DATA over HTTP/2 after a refusal": (PREFACE + SETTINGS + HEADERS + DATA, {505}),
    "a :path in 8 bits": (PREFACE + SETTINGS + ODD_PATH, {505}),
    "a :method in 8 bits": (PREFACE + SETTINGS + ODD_METHOD, {505}),
    "CONNECT over HTTP/2 without a path": (PREFACE + SETTINGS + CONNECT, {505}),
    "2,000 PRIORITY frames": (PREFACE + SETTINGS + PRIORITY * 2000, {505}),
    "192 health checks with window 0": (
        PREFACE + WINDOW_0 + b"".join(frame(1, 5, 2 * it + 1, HEALTH) for it in range(192)),
        {505},
    ),
    "CONNECT without a path": (b"CONNECT HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405, 505}),
    "CONNECT to somewhere": (b"CONNECT a.example:25 HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    "a method in 8 bits": (b"G\xe4T / HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "a path in 8 bits": (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "h2c with settings that are no base64": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + UPGRADE % b"!\xff" + b"\r\n",
        {200},
    ),
    "h2c with settings of odd length": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + UPGRADE % b"AAMAAABkA" + b"\r\n",
        {200},
    ),
    "h2c with settings out of range": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + UPGRADE % b"AAT_____AAX_____" + b"\r\n",
        {200},
    ),
    "WebSocket with a key in 8 bits": (
        b"GET /v1/models HTTP/1.1\r\n" + HOST + WEBSOCKET + b"Sec-WebSocket-Key: \xe4\xff\r\n\r\n",
        {403},
    ),
    "WebSocket with extensions in 8 bits": (
        b"GET /v1/models HTTP/1.1\r\n" + HOST + WEBSOCKET
        + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: \xff\r\n"
        + b"Sec-WebSocket-Protocol: \xe4\r\n\r\n",
        {403},
    ),
    "a length and chunks": (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    "two lengths": (POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}", {400}),
    "a chunk that is none": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {400}),
    "a head of a megabyte": (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * (1 << 20), {431}),
    "a thousand headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n", {431}),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + bytes(190), {400}),
    "zeros": (bytes(4096), {400}),
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway(network: dict[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    where = ("--role", "gateway", "--http", "127.0.0.1:0")
    state = tmp_path_factory.mktemp("hostile") / "state"
    with joined(state, network["asker"].address, *where) as found:
        until_answered(found)
        yield found


def connect(gateway: Peer, timeout_s: float = 10.0) -> socket.socket:
    port = int(gateway.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def answer_of(found: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionResetError):
        while b"\r\n\r\n" not in data and (part := found.recv(1 << 16)):
            data += part
    return data


def answered(gateway: Peer) -> float:
    """How long an honest task took, in seconds; it has to be answered."""
    began_at_s = time.monotonic()
    found = httpx.post(f"{gateway.url}/v1/completions", json=COMPLETION, timeout=30)
    assert found.status_code == 200, found.text
    return time.monotonic() - began_at_s


def until_answered(gateway: Peer) -> None:
    """Once the peers have found each other."""
    end_s = time.monotonic() + 60
    while httpx.post(f"{gateway.url}/v1/completions", json=COMPLETION, timeout=30).is_error:
        assert time.monotonic() < end_s
        time.sleep(0.2)


@pytest.mark.parametrize("name", ATTACKS)
def test_one_request_that_means_ill_costs_its_connection_alone(gateway: Peer, name: str) -> None:
    data, statuses = ATTACKS[name]
    with connect(gateway) as honest, connect(gateway) as found:
        with suppress(ConnectionResetError, BrokenPipeError):
            found.sendall(data)
        answer = answer_of(found)
        assert int(answer.split(b" ", 2)[1]) in statuses, answer
        honest.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert answer_of(honest).startswith(b"HTTP/1.1 200")
    assert gateway.process.poll() is None


def test_after_each_and_all_of_them_tasks_are_answered_and_status_tells(gateway: Peer) -> None:
    for _ in range(5):
        for data, _ in ATTACKS.values():
            with connect(gateway) as found, suppress(ConnectionResetError, BrokenPipeError):
                found.sendall(data)
    answered(gateway)
    http = gateway.ask("status", "--json").document["http"]
    assert http["refused"]["505"] >= 25
    assert http["refused"]["400"] >= 25
    # Nothing of it was an exception that nobody had thought of.
    assert http["errors"] == {}
    assert "http: " in gateway.ask("status", "--all").out


def test_crowds_that_send_little_and_read_nothing_crowd_nobody_out(gateway: Peer) -> None:
    """More connections than there is room for, of every kind that keeps a server waiting."""
    kinds = (
        b"",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nX: y\r\n",
        POST + b"Content-Length: 500\r\n\r\n{",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        (b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n") * 500,
        PREFACE + WINDOW_0,
    )
    with ExitStack() as stack:
        for number in range(700):
            one = stack.enter_context(connect(gateway))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.settimeout(0.02)
            with suppress(OSError):
                one.sendall(kinds[number % len(kinds)])
            if number % 100 == 99:
                answered(gateway)
        for _ in range(5):
            assert answered(gateway) < 10
    with ExitStack() as stack:
        # At once, and with nothing between: a crowd that comes slowly goes by its own limits.
        for _ in range(700):
            stack.enter_context(connect(gateway)).sendall(kinds[3])
        answered(gateway)
        http = gateway.ask("status", "--json").document["http"]
        assert http["open"] <= 512
        assert http["evicted"] > 0
        assert http["errors"] == {}
    assert gateway.process.poll() is None


def test_clients_that_leave_their_streams_cost_nothing(gateway: Peer) -> None:
    body = b'{"model": "hash", "prompt": "x", "max_tokens": 4000, "stream": true}'
    ask = (
        b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
        + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )  # fmt: skip
    for _ in range(30):
        with connect(gateway) as found:
            found.sendall(ask)
    end_s = time.monotonic() + 60
    while (http := gateway.ask("status", "--json").document["http"])["at_work"]:
        assert time.monotonic() < end_s, http
        time.sleep(0.2)
    answered(gateway)
