"""The short path of the hot POSTs and the framework's say the same bytes to the same requests."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from starlette.responses import Response

from node.gateway.access import AccessMiddleware
from node.gateway.app import gateway_app
from node.gateway.client_request import ClientRequest
from node.gateway.connection_limits import ConnectionSlot
from node.gateway.hot_posts import HotPost, HotPosts
from node.gateway.http_exchange import Exchange
from node.gateway.request_parser import IncomingRequest, Refusal, RequestHead
from node.gateway_config import GatewayConfig
from tests.bench._direct_gateway import direct_node

TENSOR = {"name": "x", "dtype": "F32", "shape": [1], "data": [1.5]}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "hash", "prompt": "hello", "max_tokens": 2, "seed": 1},
    "/v1/chat/completions": {
        "model": "hash",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 2,
        "stop": ["x"],
        "logit_bias": {"5": 1},
        "response_format": {"type": "text"},
    },
    "/v1/embeddings": {"model": "hash", "input": ["a", "b"], "encoding_format": "base64"},
    "/v1/infer": {"model": "hash", "inputs": [TENSOR]},
}
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**64,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    -0.0,
    "",
    "x" * 200,
    "\ud800",
    "hahs",
    "\x00",
    [],
    [[]],
    [1, "a"],
    {},
    {"a": {"b": 1}},
    [{"role": "king", "content": 5}],
    {"type": "json_schema"},
)
NAMES = ("stream", "n", "tools", "user", "logprobs", "dimensions", "schema", "echo", "best_of")
# Bodies that are no JSON, or that two readers could read in two ways.
RAW = (
    b"",
    b" ",
    b"{",
    b"null",
    b"[]",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b"\x1f\x8b\x08\x00 gzip",
    b'{"model": "hash", "model": 5}',
    b'{"model": "hash", "prompt": "a", "prompt": "b", "max_tokens": NaN}',
    b'{"model": "hash", "prompt": "a\nb"}',
    b'{"model": "hash", "prompt": "a"} x',
    b'{"model": "hash", "prompt": 01}',
    b'{"model": "hash", "n": 1' + b"0" * 5000 + b"}",
    b"[" * 500 + b"]" * 500,
)
TYPES = (b"application/json",) * 8 + (
    b"application/json; charset=utf-8",
    b"APPLICATION/JSON",
    b"application/vnd.api+json",
    b"application/json;;",
    b"application/jsonx",
    b"",
)


def mutated(random: Random, value: Any) -> Any:
    """A copy of a request in which something is not as it was."""
    value = copy.deepcopy(value)
    target, parent, key = value, None, None
    while isinstance(target, dict | list) and target and random.random() < 0.7:
        parent, key = (
            target,
            random.choice(range(len(target)) if type(target) is list else [*target]),
        )
        target = parent[key]
    match random.randrange(4):
        case 0 if isinstance(parent, dict):
            del parent[key]
        case 1 if isinstance(target, dict):
            target[random.choice(NAMES)] = random.choice(ODD)
        case _ if parent is not None:
            parent[key] = random.choice(ODD)
        case _:
            value[random.choice(NAMES)] = random.choice(ODD)
    return value


def request_of(random: Random) -> IncomingRequest:
    path = random.choice([*GOOD])
    body = json.dumps(mutated(random, GOOD[path])).encode()
    kind = random.random()
    if kind < 0.2:
        body = random.choice(RAW)
    elif kind < 0.3:
        at = random.randrange(len(body))
        body = body[:at] + random.randbytes(1) + body[at + 1 :]
    headers = [(b"host", b"127.0.0.1"), (b"content-type", random.choice(TYPES))]
    headers.append((b"x-request-id", b"same"))
    # Of those that come twice both have to believe the same.
    for _ in range(random.choice((1, 1, 2))):
        if random.random() < 0.1:
            headers.append((b"x-baton-verdicts", random.choice((b"5/2", b"0/0", b"?"))))
        if random.random() < 0.1:
            headers.append((b"x-baton-deadline", random.choice((b"0", b"9", b"-1"))))
    method = random.choice(("POST",) * 12 + ("GET", "PUT"))
    path = random.choice((path,) * 12 + (path + "/", "/" + path, path.replace("v", "%76")))
    query = random.choice((b"",) * 9 + (b"?model=hash",))
    return asked_for(path.encode() + query, body, headers, method)


def asked_for(
    target: bytes,
    body: bytes,
    headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
    method: str = "POST",
) -> IncomingRequest:
    head = RequestHead(method, target, [*headers], "1.1", True, False, len(body))
    return IncomingRequest(head, [body] if body else [], is_complete=True)


@dataclass(slots=True)
class Heard:
    """The other end of a connection."""

    place: ConnectionSlot = field(default_factory=lambda: ConnectionSlot("", 0.0))
    address: tuple[str, int] = ("127.0.0.1", 9)
    is_last: bool = False
    refusal: Refusal | None = None
    date: bytes = b"now"
    data: bytes = b""

    async def send(self, data: bytes) -> None:
        self.data += data

    async def more_arrived(self) -> None:
        raise AssertionError("all of it is there")

    def made_room(self) -> None:
        pass


async def said(access: AccessMiddleware, request: IncomingRequest) -> bytes:
    """The bytes of an answer; an exception that is let out comes last."""
    heard = Heard()
    try:
        # The door was passed: what it says is the same for all.
        await access._run(Exchange(request, heard), b"", b"".join(request.parts))
    except (RuntimeError, ValueError, TypeError) as error:
        heard.data += repr(error).encode()
    return heard.data


def status_of(data: bytes) -> int:
    return int(data[9:12])


def body_of(data: bytes) -> Any:
    return json.loads(data.partition(b"\r\n\r\n")[2])


def comparable(data: bytes) -> Any:
    """Without the ids of tasks and the time, of which no two are the same."""
    if status_of(data) != 200:
        return data
    head, _, body = data.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")]
    if not body.startswith(b"{"):
        return names, len(body)
    ours = {"id", "created", "x_baton"}
    return names, {key: value for key, value in json.loads(body).items() if key not in ours}


def counted(access: AccessMiddleware, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that reach the framework."""
    reached: list[str] = []
    inner = access.inner

    async def call(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await inner(scope, receive, send)

    monkeypatch.setattr(access, "inner", call)
    return reached


async def gateway(folder: Path) -> AccessMiddleware:
    return gateway_app(await direct_node(folder), GatewayConfig(port=0))[0]


@pytest.mark.parametrize("seed", range(3))
async def test_both_paths_say_the_same_bytes(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    hot = await gateway(tmp_path)
    slow = replace(hot, hot=HotPosts({}))
    statuses = set()
    for _ in range(120):
        request = request_of(random)
        short, long = [await said(it, copy.deepcopy(request)) for it in (hot, slow)]
        assert comparable(short) == comparable(long), request
        statuses.add(status_of(short))
    assert statuses >= {200, 400, 404, 405}


async def test_good_requests_take_the_short_path_and_bad_ones_the_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = await gateway(tmp_path)
    reached = counted(access, monkeypatch)
    for path, asked in GOOD.items():
        data = await said(access, asked_for(path.encode(), json.dumps(asked).encode()))
        # The model calls no tensors; that is told by the endpoint itself.
        assert status_of(data) == (400 if path == "/v1/infer" else 200)
    assert not reached
    for body in (b"{}", b"", b'{"model": 5}'):
        assert status_of(await said(access, asked_for(b"/v1/completions", body))) == 400
    assert len(reached) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_is_told_as_one_and_is_let_out(tmp_path: Path, *, stream: bool) -> None:
    async def breaks(_: Any, request: ClientRequest) -> Response:
        raise RuntimeError("oh")

    async def breaks_later(_: Any, request: ClientRequest) -> Response:
        class Halves(Response):
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"a", "more_body": True})
                raise RuntimeError("oh")

        return Halves()

    answer: Callable[..., Any] = breaks_later if stream else breaks
    posts = HotPosts({b"/v1/completions": HotPost(None, answer)})
    access = replace(await gateway(tmp_path), hot=posts)
    data = await said(access, asked_for(b"/v1/completions", b"{}"))
    words = b"RuntimeError('oh')"
    assert data.endswith(words)
    assert status_of(data) == (200 if stream else 500)
    if not stream:
        assert body_of(data.removesuffix(words))["error"]["code"] == "bug"
