"""A page in a browser pays for its requests, if its site was named.

By the browser's own questions always; in a real Chromium with --soak, where there is one.
"""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from node.gateway.browser_policy import page_access
from node.gateway_config import EvmPay, HttpPay
from node.paying_config import read_price
from tests.gateway.conftest import QUICK, serving
from tests.gateway.facilitator import facilitating
from tests.gateway.test_x402 import PAY_TO, packed, payload_of, payment, unpacked

PAGE = Path(__file__).with_name("paying_page.html")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PATIENCE_S = 120.0
FRIEND = "https://app.example"


def names_in(headers: list[tuple[bytes, bytes]], name: bytes) -> set[str]:
    return set(dict(headers)[name].decode().split(", "))


@pytest.mark.parametrize(
    "name",
    [
        # What x402's clients send, in either version; the last though it is one of answers.
        "payment-signature",
        "x-payment",
        "access-control-expose-headers",
        # Keys, as OpenAI's clients send them, and Anthropic's.
        "authorization",
        "x-api-key",
        "anthropic-version",
    ],
)
def test_a_page_may_send_what_clients_that_pay_send(name: str) -> None:
    asked = {
        "origin": FRIEND,
        "access-control-request-method": "POST",
        "access-control-request-headers": name,
    }
    access = page_access("OPTIONS", asked, {FRIEND})
    assert access.allowed
    assert name in names_in(access.headers, b"access-control-allow-headers")
    assert not page_access("OPTIONS", asked | {"origin": "https://evil.example"}, {FRIEND}).allowed


@pytest.mark.parametrize(
    "name", ["payment-required", "payment-response", "x-payment-response", "retry-after"]
)
def test_a_page_may_read_how_to_pay_and_what_was_paid(name: str) -> None:
    access = page_access("POST", {"origin": FRIEND}, {FRIEND})
    assert name in names_in(access.headers, b"access-control-expose-headers")


@dataclass(slots=True)
class Site:
    """A site with one page, and what that page told it."""

    url: str
    told: queue.Queue[list[dict[str, Any]]] = field(default_factory=queue.Queue)


@contextmanager
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._say("text/html", PAGE.read_bytes())

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found: dict[str, str] = {}
            if self.path == "/wallet":
                found = _signed(asked["version"], asked["required"])
            else:
                here.told.put(asked)
            self._say("application/json", json.dumps(found).encode())

        def _say(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _signed(version: int, required: str) -> dict[str, str]:
    """What a wallet gives a page that shows it how to pay."""
    accepts = unpacked(required)["accepts"]
    offer = next(it for it in accepts if it["scheme"] == "exact")
    if version == 2:
        return payment(offer)
    told = {"x402Version": 1, "scheme": "exact", "network": "base", "payload": payload_of(offer)}
    return {"x-payment": packed(told)}


def _shown(page: Site, gateway: str, folder: Path) -> list[dict[str, Any]]:
    """What the page of a site tells that is open in a browser."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    # Its own profile, and nothing of the network beside what the page asks.
    options += ["--no-first-run", "--disable-background-networking", "--remote-debugging-port=0"]
    shown = [CHROMIUM, *options, f"{page.url}/?gateway={gateway}"]
    with subprocess.Popen(shown, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            return page.told.get(timeout=PATIENCE_S)
        finally:
            browser.terminate()


@pytest.mark.soak
@pytest.mark.timeout(3 * PATIENCE_S)
@pytest.mark.skipif(not CHROMIUM, reason="no page was tried in a browser: no chromium here")
def test_a_page_in_chromium_pays_and_that_of_another_site_cannot_ask(tmp_path: Path) -> None:
    with facilitating() as fake, site() as friend, site() as stranger:
        pay = HttpPay(
            price=read_price("0.01/1k:0.6/1k+0.001"),
            evm=EvmPay(facilitator=fake.url, pay_to=PAY_TO),
        )
        config = replace(QUICK, pay=pay, origins=frozenset({friend.url}))
        with serving(tmp_path / "shop", config) as served:
            told = _shown(friend, served.url, tmp_path / "friend")
            refused = _shown(stranger, served.url, tmp_path / "stranger")
    assert [(it.get("asked"), it.get("paid"), it.get("text")) for it in told] == [
        (402, 200, "hello"),
        (402, 200, "hello"),
    ], told
    assert all(unpacked(it["receipt"])["success"] and it["task"] for it in told)
    assert len(fake.settled) == 2
    assert refused == [{"error": "TypeError"}]
