"""Who may come in: keys, Host headers, bodies, connections, and clients that mean ill."""

import gzip
import json
import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import httpx
import openai
import pytest

from node.gateway.keys import add_key, keys_file, read_keys, remove_key
from node.gateway.rate_limit import Allowance
from node.gateway_config import GatewayConfig
from tests.gateway.conftest import QUICK, Served, serving
from tests.gateway.engine import SLOW
from wire.errors import InputError, StoreUnusable

# Who waits for an answer waits this long at most; what is late by its own limits is so by less.
PATIENCE_S = 60.0
SLOWNESS_S = 12.0
CHAT = {"model": "hash", "messages": [{"role": "user", "content": "SAY:hello"}]}
SLOW_CHAT = {
    "model": "hash",
    "messages": [{"role": "user", "content": SLOW}],
    "max_tokens": 4000,
    "stream": True,
}


@contextmanager
def connection(served: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S) as found:
        yield found


def head_of(served: Served, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    first = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{served.port}"]
    return ("\r\n".join([*first, *lines]) + "\r\n\r\n").encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def read_all(found: socket.socket) -> bytes:
    data = b""
    try:
        while part := found.recv(1 << 16):
            data += part
    except ConnectionResetError:
        pass
    return data


def until(condition, seconds: float = PATIENCE_S) -> None:  # type: ignore[no-untyped-def]
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


# Host headers


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:8000"])
def test_addresses_and_localhost_are_names_of_the_gateway(http: httpx.Client, host: str) -> None:
    assert http.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "a b", "127.0.0.1@x"]
)
def test_a_name_that_was_made_to_point_here_is_refused(http: httpx.Client, host: str) -> None:
    found = http.get("/v1/models", headers={"host": host})
    assert found.status_code == 403, found.text
    assert found.json()["error"]["code"] == "host_not_allowed"


def test_no_answer_allows_another_site_to_read(http: httpx.Client) -> None:
    origin = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for found in (
        http.get("/v1/models", headers=origin),
        http.options("/v1/chat/completions", headers=origin),
        http.post("/v1/chat/completions", json=CHAT, headers=origin),
    ):
        assert not [it for it in found.headers if it.startswith("access-control")]
    # What a page may send without asking first is not taken for JSON.
    plain = http.post(
        "/v1/chat/completions", content=json.dumps(CHAT), headers={"content-type": "text/plain"}
    )
    assert plain.status_code == 400


# Keys


def test_keys_are_needed_once_there_are_any_and_have_their_limits(tmp_path: Path) -> None:
    entropy = Random(7).randbytes
    with serving(tmp_path) as served:
        file = keys_file(served.node.config.state)
        with served.client() as nobody:
            assert nobody.models.list().data
        secret = add_key(file, "ada", 20, entropy, 0.0)
        assert file.stat().st_mode & 0o777 == 0o600
        assert secret not in file.read_text()

        def refused(key: str) -> bool:
            with served.client(api_key=key) as other:
                try:
                    other.models.list()
                except openai.AuthenticationError as error:
                    return error.code == "invalid_api_key"
                return False

        # A running gateway reads them within a second.
        until(lambda: refused("none"))
        assert refused(secret[:-1])
        assert refused(secret + "0")
        assert httpx.get(f"{served.url}/v1/models", timeout=PATIENCE_S).status_code == 401
        assert httpx.get(f"{served.url}/healthz", timeout=PATIENCE_S).status_code == 200
        with served.client(api_key=secret) as ada:
            with pytest.raises(openai.RateLimitError) as caught:
                deque((ada.models.list() for _ in range(300)), maxlen=0)
            assert 1 <= int(caught.value.response.headers["retry-after"]) <= 3
        remove_key(file, "ada")
        until(lambda: not refused("none"))


def test_what_a_minute_allows_may_come_at_once_and_comes_back_evenly() -> None:
    allowance = Allowance()

    def waits(now_at_s: float) -> list[float]:
        return [allowance.take("bob", 3, now_at_s) for _ in range(5)]

    assert waits(0.0) == [0, 0, 0, 20, 20]
    assert waits(20.0) == [0, 20, 20, 20, 20]
    assert waits(65.0) == [0, 0, 15, 15, 15]
    # Nothing is saved up beyond one minute's.
    assert waits(1000.0) == [0, 0, 0, 20, 20]
    assert allowance.take("ada", 3, 1000.0) == 0


def test_keys_that_cannot_be_read_let_nobody_in(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        file = keys_file(served.node.config.state)
        file.parent.mkdir(parents=True, exist_ok=True)
        for damaged in ('{"keys": [', '{"keys": [{"name": "ada"}]}', "[]"):
            file.write_text(damaged)
            time.sleep(1.1)
            found = httpx.get(f"{served.url}/v1/models", timeout=PATIENCE_S)
            assert found.status_code == 503, found.text
            assert "keys.json" in found.json()["error"]["message"]


def test_a_compressed_body_is_refused_in_words_and_not_unpacked(served: Served) -> None:
    bomb = gzip.compress(bytes(50 << 20))
    for coding, body in (("gzip", bomb), ("br", b"x"), ("identity, gzip", bomb), ("", b"{}")):
        found = httpx.post(
            f"{served.url}/v1/chat/completions",
            content=body,
            headers={"content-type": "application/json", "content-encoding": coding},
            timeout=PATIENCE_S,
        )
        assert found.status_code == 400
        assert "compressed" in found.json()["error"]["message"]
    found = httpx.post(
        f"{served.url}/v1/chat/completions",
        json=CHAT,
        headers={"content-encoding": "identity"},
        timeout=PATIENCE_S,
    )
    assert found.status_code == 200


def test_keys_that_others_may_have_put_there_let_nobody_in(tmp_path: Path) -> None:
    file = keys_file(tmp_path)
    add_key(file, "ada", 60, Random(7).randbytes, 0.0)
    file.chmod(0o666)
    with pytest.raises(StoreUnusable, match=r"mode 0666.*chmod 600"):
        read_keys(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(StoreUnusable, match="plain file"):
        read_keys(file)


def test_a_key_has_a_name_of_its_own(tmp_path: Path) -> None:
    file = keys_file(tmp_path / "new")
    entropy = Random(7).randbytes
    add_key(file, "ada", 60, entropy, 0.0)
    for name in ("ada", "", "x" * 100, "a\nb"):
        with pytest.raises(InputError):
            add_key(file, name, 60, entropy, 0.0)
    with pytest.raises(InputError, match="bob"):
        remove_key(file, "bob")


def test_without_keys_nobody_else_is_let_in(tmp_path: Path) -> None:
    config = replace(QUICK, host="0.0.0.0")
    with pytest.raises(BaseExceptionGroup) as caught, serving(tmp_path, config):
        pass
    assert caught.group_contains(InputError, match="keys add")


@pytest.mark.parametrize("host", ["example.org", "", "1.2.3"])
def test_a_gateway_listens_on_an_address(host: str) -> None:
    with pytest.raises(InputError):
        GatewayConfig(host=host)


# Bodies


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_told_so(http: httpx.Client, *, chunked: bool) -> None:
    body = b'{"model": "' + b"x" * (2 << 20) + b'"}'
    content = iter([body[: 1 << 20], body[1 << 20 :]]) if chunked else body
    found = http.post(
        "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
    assert found.status_code == 413
    assert found.json()["error"]["code"] == "body_too_large"


def test_a_hundred_megabytes_are_not_read(served: Served) -> None:
    with connection(served) as found:
        found.sendall(head_of(served, f"Content-Length: {100 << 20}"))
        sent = 0
        try:
            while sent < 100 << 20:
                sent += found.send(b"x" * (1 << 20))
        except (ConnectionResetError, BrokenPipeError):
            pass
        answer = read_all(found)
    assert sent < 60 << 20
    assert not answer or status_of(answer) == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"' + b'\\"' * 100_000,
        b"1" * 100_000,
        b'{"model": "hash", "messages": "x", "n": NaN}',
        json.dumps({**CHAT, "temperature": "1"}).encode(),
        json.dumps({**CHAT, "stream": "yes"}).encode(),
        json.dumps({**CHAT, "n": True}).encode(),
        json.dumps({**CHAT, "model": "\ud800"}).encode(),
        json.dumps({**CHAT, "messages": [{"role": "user", "content": "\ud800"}]}).encode(),
        json.dumps({**CHAT, "stop": ["\ud800"]}).encode(),
        json.dumps({**CHAT, "response_format": {"type": "\udfff"}}).encode(),
        json.dumps({**CHAT, "\ud800": 1}).encode(),
        json.dumps({**CHAT, "messages": [{"role": "user", "\ud800": 1}]}).encode(),
    ],
    ids=lambda it: it[:40].decode(errors="replace"),
)
def test_a_body_that_makes_no_sense_is_the_clients_fault(http: httpx.Client, body: bytes) -> None:
    found = http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert found.status_code in (400, 404), found.text
    error = found.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


def test_paths_and_methods_that_are_not_there(http: httpx.Client) -> None:
    assert http.get("/nowhere").json()["error"]["code"] == "not_found"
    found = http.get("/v1/chat/completions")
    assert found.status_code == 405
    assert found.headers["allow"] == "POST"
    assert http.get("/docs").status_code == 404


# Slow clients


def test_a_body_that_trickles_is_given_up(served: Served) -> None:
    began_at_s = time.monotonic()
    with connection(served) as found:
        found.sendall(head_of(served, "Content-Length: 1000", "Content-Type: application/json"))
        found.sendall(b"{")
        answer = read_all(found)
    assert status_of(answer) == 408
    assert time.monotonic() - began_at_s < QUICK.body_s + SLOWNESS_S


def test_a_head_that_trickles_is_given_up(served: Served) -> None:
    began_at_s = time.monotonic()
    with connection(served) as found:
        found.sendall(b"GET /healthz HTTP/1.1\r\n")
        try:
            while time.monotonic() - began_at_s < PATIENCE_S:
                found.sendall(b"X-A: b\r\n")
                time.sleep(0.1)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert time.monotonic() - began_at_s < QUICK.idle_s + SLOWNESS_S


def test_nothing_else_than_http_is_spoken(served: Served) -> None:
    upgrade = [
        "GET /v1/models HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    with connection(served) as found:
        found.sendall(("\r\n".join(upgrade) + "\r\n\r\n").encode())
        assert status_of(found.recv(1 << 16)) == 403


@pytest.mark.parametrize(
    "data",
    [b"\x00" * 64, b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"],
    ids=str,
)
def test_what_is_no_request_is_refused(served: Served, data: bytes) -> None:
    with connection(served) as found:
        found.sendall(data)
        assert status_of(read_all(found)) in (400, 403, 505)


def test_a_head_too_long_is_refused(served: Served) -> None:
    with connection(served) as found:
        found.sendall(head_of(served, f"X-Long: {'x' * 100_000}"))
        assert status_of(read_all(found)) in (400, 431)


def test_of_more_connections_than_there_is_room_for_the_quietest_are_closed(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, replace(QUICK, connections_max=4, requests_max=1)) as served:
        many = []
        for _ in range(4):
            many.append(socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S))
            # Of those that come at once any may be first.
            time.sleep(0.05)
        # Newcomers are answered, again and again, and each has cost the quietest its connection.
        for quietest in range(6):
            found = socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S)
            many.append(found)
            found.sendall(head_of(served, path="/healthz").replace(b"POST", b"GET", 1))
            assert status_of(found.recv(1 << 16)) == 200
            # Those that asked for nothing yet hear why.
            told = b"HTTP/1.1 503" if quietest < 4 else b""
            assert many[quietest].recv(1 << 16)[:12] == told
            assert many[quietest].recv(1) == b""
        for it in many:
            it.close()
        # One request at a time: another is told when to come again.
        place = f"{served.url}/v1/chat/completions"
        with httpx.stream("POST", place, json=SLOW_CHAT, timeout=PATIENCE_S) as found:
            assert found.status_code == 200
            busy = httpx.post(place, json=CHAT, timeout=PATIENCE_S)
            assert busy.status_code == 503
            assert busy.headers["retry-after"] == "1"
            # Whether the gateway is well is another matter, and needs no place.
            for _ in range(3):
                assert httpx.get(f"{served.url}/healthz", timeout=PATIENCE_S).status_code == 200


def test_a_place_is_held_only_once_the_body_is_in(tmp_path: Path) -> None:
    with serving(tmp_path, replace(QUICK, requests_max=1, body_s=90)) as served:
        slow = [
            socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S)
            for _ in range(6)
        ]
        for it in slow:
            it.sendall(head_of(served, "Content-Length: 90", "Content-Type: application/json"))
            it.sendall(b'{"model": ')
        time.sleep(0.3)
        for _ in range(3):
            found = httpx.post(f"{served.url}/v1/chat/completions", json=CHAT, timeout=PATIENCE_S)
            assert found.status_code == 200, found.text
        for it in slow:
            it.close()


def test_health_checks_that_are_never_read_cost_nobody_anything(tmp_path: Path) -> None:
    with serving(tmp_path, replace(QUICK, connections_max=40, requests_max=4)) as served:
        many = []
        ask = head_of(served, path="/healthz").replace(b"POST", b"GET", 1)
        for _ in range(60):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            one.connect(("127.0.0.1", served.port))
            one.settimeout(0.01)
            with suppress(OSError):
                one.sendall(ask * 300)
            many.append(one)
        for _ in range(3):
            found = httpx.post(f"{served.url}/v1/chat/completions", json=CHAT, timeout=PATIENCE_S)
            assert found.status_code == 200, found.text
        for it in many:
            it.close()


# Clients that go away


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(served: Served, *, stream: bool) -> None:
    cancelled, begun = served.engine.cancelled, served.engine.begun
    body = json.dumps({**SLOW_CHAT, "stream": stream}).encode()
    with connection(served) as found:
        head = head_of(served, f"Content-Length: {len(body)}", "Content-Type: application/json")
        found.sendall(head + body)
        if stream:
            assert b"zzz" in found.recv(1 << 16) + found.recv(1 << 16)
        until(lambda: served.engine.begun > begun and served.engine.under_way)
    until(lambda: served.engine.cancelled > cancelled and not served.engine.under_way)
    until(lambda: not served.node.tasks.statistics().under_way)


@pytest.mark.parametrize("asked", ["close", "keep-alive"])
def test_a_connection_is_closed_when_it_was_answered_and_is_idle(
    served: Served, asked: str
) -> None:
    with connection(served) as found:
        head = head_of(served, f"Connection: {asked}", path="/healthz")
        found.sendall(head.replace(b"POST", b"GET", 1))
        assert status_of(read_all(found)) == 200
