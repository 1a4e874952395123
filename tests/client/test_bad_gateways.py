"""Gateways that refuse, break off, or are none: what the client says, and how often it asks."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

import node
from node.client.blocking import BlockingNet
from node.client.http import within
from node.client.reading import EVENT_BYTES_MAX, EventReader
from node.gateway.keys import add_key, keys_file
from node.peer import Node
from tests.gateway.conftest import serving
from wire.errors import (
    Disconnected,
    InputError,
    Malformed,
    Oversize,
    Refused,
    RemoteProtocolError,
    TaskFailed,
    TooSlow,
)

Answers = Callable[..., "Scripted"]
BROKEN_OFF = b""
OK = b'{"data": []}'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
PIECE = b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n'


def http(status: int, body: bytes = OK, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def fault(status: int, code: str, *headers: str) -> bytes:
    return http(
        status, b'{"error": {"message": "so it is", "code": "%s"}}' % code.encode(), *headers
    )


@dataclass(slots=True)
class Scripted:
    """A server that gives each connection the next of its answers, as raw bytes."""

    answers: list[bytes]
    listener: socket.socket
    heard: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while self.answers:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self.heard.append(connection.recv(65_536))
                connection.sendall(self.answers.pop(0))


@pytest.fixture
def scripted() -> Iterator[Answers]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threads = []

        def start(*answers: bytes) -> Scripted:
            server = Scripted(list(answers), listener)
            threads.append(threading.Thread(target=server.serve))
            threads[-1].start()
            return server

        yield start
        listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)


@contextmanager
def connected(server: Scripted, **options: object) -> Iterator[BlockingNet]:
    with node.connect_blocking(server.url, **{"deadline_s": 10, **options}) as net:
        yield net


def test_what_is_refused_for_now_is_asked_again_when_it_may_be(scripted: Answers) -> None:
    server = scripted(fault(429, "rate_limit_exceeded", "retry-after: 1"), http(200))
    with connected(server) as net:
        began_at_s = anyio.run(_now)
        assert net.models() == []
        assert anyio.run(_now) - began_at_s >= 1
    assert len(server.heard) == 2


async def _now() -> float:
    return anyio.current_time()


@pytest.mark.parametrize("code", [b"deadline_passed", b"deadline_too_short"])
def test_a_stream_that_the_gateway_ends_for_its_deadline_was_too_slow(
    scripted: Answers, code: bytes
) -> None:
    late = b'data: {"error": {"message": "so it is", "code": "%s"}}\n\n' % code
    with connected(scripted(STREAM + PIECE + late)) as net, pytest.raises(TooSlow, match="so it"):
        net.chat("hash", "hello").whole()


def test_whoever_says_first_that_the_time_is_over_it_is_the_same_error() -> None:
    async def failing(left_s: float) -> None:
        with within(anyio.current_time() + left_s, "the answer"):
            raise TaskFailed("nobody did it")

    with pytest.raises(TooSlow, match=r"took too long: nobody did it.*deadline_s"):
        anyio.run(failing, 0.0)
    with pytest.raises(TaskFailed, match="nobody did it"):
        anyio.run(failing, 60.0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_beyond_the_deadline_is_not_waited_for(scripted: Answers, status: int) -> None:
    server = scripted(fault(status, "busy", "retry-after: 60"))
    with connected(server) as net, pytest.raises(Refused, match="so it is") as refused:
        net.models()
    assert refused.value.retry_after_s == 60
    assert len(server.heard) == 1


def test_it_is_asked_so_often_and_no_more(scripted: Answers) -> None:
    server = scripted(*[BROKEN_OFF] * 3)
    with connected(server) as net, pytest.raises(Disconnected, match="broke off"):
        net.models()
    assert len(server.heard) == 3


def test_an_answer_that_broke_off_before_its_first_piece_is_asked_for_again(
    scripted: Answers,
) -> None:
    end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    server = scripted(BROKEN_OFF, STREAM + PIECE + end + b"data: [DONE]\n\n")
    with connected(server) as net:
        assert net.chat("m", "hello").whole().text == "half"
    assert server.heard[0].splitlines()[0] == server.heard[1].splitlines()[0]


@pytest.mark.parametrize("rest", [b"", b"data: "], ids=repr)
def test_an_answer_that_ends_in_the_middle_is_no_answer(scripted: Answers, rest: bytes) -> None:
    server = scripted(STREAM + PIECE + rest)
    with connected(server) as net:
        pieces = net.chat("m", "hello")
        assert next(pieces).text == "half"
        with pytest.raises((Malformed, Disconnected)):
            next(pieces)
        assert list(pieces) == []
    assert len(server.heard) == 1


def test_an_answer_that_does_not_say_how_it_ended_is_no_answer(scripted: Answers) -> None:
    server = scripted(STREAM + PIECE + b"data: [DONE]\n\n")
    with connected(server) as net, pytest.raises(Malformed, match="how it ended"):
        net.chat("m", "hello").whole()


def test_what_fails_in_the_middle_of_a_stream_says_why(scripted: Answers) -> None:
    error = b'data: {"error": {"message": "turned out wrong", "code": "stream_contradicted"}}\n\n'
    server = scripted(STREAM + PIECE + error)
    with connected(server) as net, pytest.raises(TaskFailed, match="turned out wrong"):
        net.chat("m", "hello").whole()


def test_a_deadline_that_passes_in_the_middle_of_a_stream_is_one(scripted: Answers) -> None:
    error = b'data: {"error": {"message": "not in time", "code": "deadline_passed"}}\n\n'
    server = scripted(STREAM + PIECE + error)
    with connected(server) as net, pytest.raises(TooSlow, match="not in time"):
        list(net.chat("a", "b"))


def test_a_task_is_never_submitted_twice(scripted: Answers) -> None:
    server = scripted(BROKEN_OFF)
    with connected(server) as net, pytest.raises(Disconnected):
        net.submit("m", "embed", ["one"])
    assert len(server.heard) == 1


def test_a_result_is_waited_for_also_when_its_events_break_off(scripted: Answers) -> None:
    told = (
        b'{"id": "t", "status": "answered", "receipt": "r", "output_base64": "aGk=",'
        b' "verified": false, "route": [], "verdicts": []}'
    )
    running = http(200, b'{"id": "t", "status": "running"}')
    broken = http(200, b"data: {}\n\n" * 9)[:-40]
    server = scripted(running, broken, running, broken, http(200, told))
    with connected(server) as net:
        assert net.result("t").output == b"hi"
    assert len(server.heard) == 5


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(200, b"<html>"), Malformed),
        (http(200, b"[]"), Malformed),
        (http(200, b'{"data": [{"id": 1}]}'), Malformed),
        (http(200, b'{"data": 7}'), Malformed),
        (http(200, b"[" * 100_000), Malformed),
        (http(302, b"", "location: http://example.org/"), RemoteProtocolError),
        (http(500, b"oops"), RemoteProtocolError),
        (http(502, b"<html>"), RemoteProtocolError),
        (fault(408, "deadline_passed"), TooSlow),
        (fault(413, "body_too_large"), InputError),
        (fault(503, "task_failed"), TaskFailed),
        (http(400, b'{"error": "text"}'), InputError),
    ],
    ids=str,
)
def test_what_is_no_answer_is_said_to_be_none(
    scripted: Answers, answer: bytes, kind: type[Exception]
) -> None:
    server = scripted(answer)
    with connected(server) as net, pytest.raises(kind):
        net.models()
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [], "x_baton": {"task": "t", "receipt": "r"}}',
        b'{"data": [{"embedding": "AAAA"}], "x_baton": {"task": "t", "receipt": "r"}}',
        b'{"data": [{"embedding": "?"}], "x_baton": {"task": "t", "receipt": "r"}}',
        b'{"data": [{"embedding": "AAAAAA=="}], "x_baton": {"other": 1}}',
    ],
    ids=str,
)
def test_vectors_that_are_none_are_refused(scripted: Answers, body: bytes) -> None:
    with connected(scripted(http(200, body))) as net, pytest.raises(Malformed):
        net.embed("m", "one")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"{}{}"[:1],
        (61).to_bytes(8, "little")
        + b'{"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]}}'.ljust(61)
        + b"\0" * 8,
        (62).to_bytes(8, "little")
        + b'{"x": {"dtype": "EVIL", "shape": [1], "data_offsets": [0, 4]}}'
        + b"\0" * 4,
    ],
    ids=range(5),
)
def test_tensors_that_are_none_are_refused(scripted: Answers, body: bytes) -> None:
    with connected(scripted(http(200, body))) as net, pytest.raises(Malformed):
        net.infer("m", {"x": [1.0]})


def test_a_server_that_says_nothing_costs_no_more_than_the_deadline(scripted: Answers) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with node.connect_blocking(url, deadline_s=0.5) as net, pytest.raises(TooSlow):
            net.models()


def test_events_may_be_cut_anywhere_and_have_a_bound() -> None:
    stream = 'data: {"a": "ü"}\r\n\r\n: comment\n\ndata: 1\ndata: 2\n\n'.encode()
    for size in range(1, len(stream)):
        reader, found = EventReader(), []
        for at in range(0, len(stream), size):
            found += reader.feed(stream[at : at + size])
        assert found == ['{"a": "ü"}', "1\n2"]
    with pytest.raises(Oversize):
        EventReader().feed(b"data: " + b"x" * EVENT_BYTES_MAX)
    with pytest.raises(Malformed):
        EventReader().feed(b"data: \xff\n\n")


def test_a_key_is_sent_and_without_one_it_is_said_what_to_do(tmp_path: Path) -> None:
    secrets: list[str] = []

    def with_key(peer: Node) -> None:
        environment = peer.dependencies.environment
        file = keys_file(peer.config.state)
        secrets.append(add_key(file, "tests", 60, environment.entropy, environment.wall_s()))

    with serving(tmp_path, before=with_key) as served:
        with node.connect_blocking(served.url, key=secrets[0]) as net:
            assert net.models()
        for key in (None, "sk-wrong"):
            with (
                node.connect_blocking(served.url, key=key) as net,
                pytest.raises(InputError, match=r"key is needed.*connect\(…, key=…\)"),
            ):
                net.models()
