"""The short path of the hot POSTs and the framework's say the same bytes to the same requests."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message

from node.gateway.app import gateway_app
from node.gateway.front import Front
from node.gateway.hot_posts import HotPost, HotPosts
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


def request_of(random: Random) -> tuple[dict[str, Any], bytes]:
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
    if random.random() < 0.1:
        headers.append((b"x-baton-verdicts", random.choice((b"5/2", b"0/0", b"?"))))
    if random.random() < 0.1:
        headers.append((b"x-baton-deadline", random.choice((b"0", b"9", b"-1"))))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": random.choice(("POST",) * 12 + ("GET", "PUT")),
        "scheme": "http",
        "path": random.choice((path,) * 12 + (path + "/", "/" + path)),
        "raw_path": path.encode(),
        "query_string": random.choice((b"",) * 9 + (b"model=hash",)),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 9),
        "server": None,
    }
    return scope, body


async def said(app: ASGIApp, scope: dict[str, Any], body: bytes) -> list[Message]:
    """What an application sends; an exception that it lets out comes last."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(dict(message))

    try:
        await app({**scope, "state": {"owner": b""}}, receive, send)
    except (RuntimeError, ValueError, TypeError) as error:
        sent.append({"type": repr(error)})
    return sent


def comparable(sent: list[Message]) -> list[Any]:
    """Without the ids of tasks and the time, of which no two are the same."""
    if sent[0]["status"] != 200:
        return [{**it, "headers": sorted(it["headers"])} if "headers" in it else it for it in sent]
    body = b"".join(it.get("body", b"") for it in sent)
    if not body.startswith(b"{"):
        return [200, len(body)]
    told = json.loads(body)
    ours = {"id", "created", "x_baton"}
    names = sorted(name for name, _ in sent[0]["headers"])
    return [200, names, {key: value for key, value in told.items() if key not in ours}]


def counted(app: HotPosts, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that reach the framework."""
    reached: list[str] = []
    framework = app.framework

    async def call(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await framework(scope, receive, send)

    monkeypatch.setattr(app, "framework", call)
    return reached


async def parts(folder: Path) -> tuple[Front, HotPosts]:
    front = gateway_app(await direct_node(folder), GatewayConfig(port=0)).inner
    assert isinstance(front, Front)
    assert isinstance(front.inner, HotPosts)
    return front, front.inner


@pytest.mark.parametrize("seed", range(3))
async def test_both_paths_say_the_same_bytes(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    front, hot = await parts(tmp_path)
    slow = Front(hot.framework, front.environment)
    statuses = set()
    for _ in range(120):
        scope, body = request_of(random)
        short, long = [await said(app, dict(scope), body) for app in (front, slow)]
        assert comparable(short) == comparable(long), (scope, body)
        statuses.add(short[0]["status"])
    assert statuses >= {200, 400, 404, 405}


async def test_good_requests_take_the_short_path_and_bad_ones_the_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, hot = await parts(tmp_path)
    reached = counted(hot, monkeypatch)
    scope, _ = request_of(Random(1))
    scope |= {"method": "POST", "query_string": b""}
    scope["headers"] = [(b"content-type", b"application/json")]
    for path, asked in GOOD.items():
        sent = await said(front, {**scope, "path": path}, json.dumps(asked).encode())
        # The model calls no tensors; that is told by the endpoint itself.
        assert sent[0]["status"] == (400 if path == "/v1/infer" else 200)
    assert not reached
    for body in (b"{}", b"", b'{"model": 5}'):
        sent = await said(front, {**scope, "path": "/v1/completions"}, body)
        assert sent[0]["status"] == 400
    assert len(reached) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_is_told_as_one_and_is_let_out(tmp_path: Path, *, stream: bool) -> None:
    _, hot = await parts(tmp_path)

    async def breaks(_: Any, request: Request) -> Response:
        raise RuntimeError("oh")

    async def breaks_later(_: Any, request: Request) -> Response:
        class Halves(Response):
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                raise RuntimeError("oh")

        return Halves()

    answer: Callable[..., Any] = breaks_later if stream else breaks
    app = HotPosts(hot.framework, {"/v1/completions": HotPost(None, answer)})
    scope, _ = request_of(Random(1))
    scope |= {"method": "POST", "query_string": b"", "path": "/v1/completions"}
    scope["headers"] = [(b"content-type", b"application/json")]
    sent = await said(app, scope, b"{}")
    assert sent[-1]["type"] == "RuntimeError('oh')"
    assert sent[0]["status"] == (200 if stream else 500)
    if not stream:
        assert json.loads(sent[1]["body"])["error"]["code"] == "bug"
