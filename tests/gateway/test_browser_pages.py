"""What a page in a browser may do: nothing, unless its origin was named."""

import json
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from node.gateway.browser_policy import page_access
from node.gateway_config import origin_of
from tests.gateway.conftest import QUICK, Served, serving
from wire.errors import InputError

CHAT = {
    "model": "hash",
    "messages": [{"role": "user", "content": "SAY:hello"}],
    "max_tokens": 2,
}
FRIEND, STRANGER = "https://app.example:8443", "https://evil.example"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def open_to_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = replace(QUICK, origins=frozenset({FRIEND}))
    with serving(tmp_path_factory.mktemp("pages"), config) as served:
        yield served


def tasks_of(served: Served) -> int:
    return served.node.tasks.statistics().accepted


# What a form, an image or `fetch` without its own headers sends: the browser does not ask first.
SIMPLE = [
    {"content-type": "text/plain"},
    {"content-type": "text/plain;charset=UTF-8"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "multipart/form-data; boundary=x"},
    {},
]


@pytest.mark.parametrize("headers", SIMPLE, ids=str)
@pytest.mark.parametrize("origin", [STRANGER, FRIEND, "null", None])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/tasks", "/v1/infer?model=hash"])
def test_a_post_that_needs_no_preflight_never_runs_a_task(
    open_to_one: Served, headers: dict[str, str], origin: str | None, path: str
) -> None:
    before = tasks_of(open_to_one)
    sent = headers if origin is None else {**headers, "origin": origin}
    content = json.dumps({**CHAT, "operation": "embed", "texts": ["x"]}).encode()
    found = httpx.post(f"{open_to_one.url}{path}", content=content, headers=sent, timeout=60)
    assert found.status_code == (400 if origin in (FRIEND, None) else 403), found.text
    assert tasks_of(open_to_one) == before


@pytest.mark.parametrize("origin", [STRANGER, "null", "https://app.example", f"{FRIEND}.evil", ""])
def test_a_page_of_another_site_is_refused_whatever_it_asks(
    open_to_one: Served, origin: str
) -> None:
    before = tasks_of(open_to_one)
    with httpx.Client(base_url=open_to_one.url, headers={"origin": origin}, timeout=60) as page:
        asked = {"access-control-request-method": "POST"}
        for found in (
            page.get("/v1/models"),
            page.get("/healthz"),
            page.post("/v1/chat/completions", json=CHAT),
            page.delete("/v1/tasks/x"),
            page.options("/v1/chat/completions", headers=asked),
        ):
            assert found.status_code == 403
            assert found.json()["error"]["code"] == "origin_not_allowed"
            assert "--http-origin" in found.json()["error"]["message"]
            assert not [it for it in found.headers if it.startswith("access-control")]
    assert tasks_of(open_to_one) == before


def test_what_a_page_loads_without_an_origin_is_refused_too(open_to_one: Served) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        found = httpx.get(
            f"{open_to_one.url}/v1/models", headers={"sec-fetch-site": site}, timeout=60
        )
        assert found.status_code == status
        # Nor is what others get shown inside a page, or taken for a script.
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
        assert found.headers["x-content-type-options"] == "nosniff"


def test_a_page_that_was_allowed_may_ask_and_read(open_to_one: Served) -> None:
    with httpx.Client(base_url=open_to_one.url, headers={"origin": FRIEND}, timeout=60) as page:
        asked = page.options(
            "/v1/chat/completions",
            headers={
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
                "access-control-request-private-network": "true",
            },
        )
        assert (asked.status_code, asked.content) == (204, b"")
        assert asked.headers["access-control-allow-origin"] == FRIEND
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "authorization" in asked.headers["access-control-allow-headers"]
        assert asked.headers["access-control-allow-private-network"] == "true"
        for found in (
            page.post("/v1/chat/completions", json=CHAT),
            page.post("/v1/chat/completions", json={**CHAT, "stream": True}),
            page.post("/v1/chat/completions", json={}),
            page.get("/nowhere"),
        ):
            # Errors can be read as well.
            assert found.headers["access-control-allow-origin"] == FRIEND
            assert found.headers["vary"] == "origin"
            assert "x-baton-task" in found.headers["access-control-expose-headers"]
        # A question about nothing in particular is no preflight.
        assert page.options("/v1/chat/completions").status_code == 405


def test_no_cookie_is_ever_asked_for_or_allowed(open_to_one: Served) -> None:
    found = httpx.get(f"{open_to_one.url}/v1/models", headers={"origin": FRIEND}, timeout=60)
    assert "access-control-allow-credentials" not in found.headers
    assert "set-cookie" not in found.headers


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://App.Example", "https://app.example"),
        ("http://localhost:3000/", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("tauri://localhost", "tauri://localhost"),
    ],
)
def test_an_origin_is_written_as_browsers_do(text: str, origin: str) -> None:
    assert origin_of(text) == origin
    assert page_access("GET", {"origin": origin}, {origin}).allowed


@pytest.mark.parametrize("text", ["*", "null", "app.example", "https://a/b", "https://*.a", ""])
def test_what_is_not_the_origin_of_one_site_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not the origin of one site"):
        origin_of(text)
