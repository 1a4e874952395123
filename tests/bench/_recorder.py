"""A proxy that writes down what clients send, byte for byte, and asks a gateway in their place.

Clients ask it for the model `hash`, which the tests' own network serves: what they sent can then be
sent again as it is. The gateway is asked for other models, by the kind of the request.
"""

import http.client
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RECORDED_MODEL = b"hash"
BODY_BYTES_MAX, HEAD_BYTES_MAX = 16_384, 65_536
HOST = "{host}"
# What only tells when and from where something was sent.
_PASSING = ("x-stainless-retry-count",)
_RESPONSE_ID = re.compile(rb'"id": ?"(resp_[a-z2-7]+)"')
_TOO_MANY = 40


class _Handler(socketserver.StreamRequestHandler):
    server: "_Proxy"

    def handle(self) -> None:
        """One request of a connection; the client makes another connection for the next."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline(HEAD_BYTES_MAX)
            if not line:
                return
            head += line
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        named = {name.lower(): value for name, value in headers.items()}
        body = self.rfile.read(int(named.get("content-length", "0")))
        row = self.server.record(first, headers, body)
        made = self._answer(method, path, headers, body)
        if row is not None and made:
            row["made"] = made

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> str:
        """Hand an answer on; the id of the response that it has, which may be asked for later."""
        model = b"minilm" if "embed" in path else b"smollm2"
        asked = body.replace(b'"hash"', b'"%s"' % model)
        path = path.replace("/hash", f"/{model.decode()}")
        sent = {
            name: value
            for name, value in headers.items()
            if name.lower() not in ("host", "content-length", "connection", "accept-encoding")
        }
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=600)
        try:
            upstream.request(method, path, asked or None, sent)
            answer = upstream.getresponse()
            self.wfile.write(f"HTTP/1.1 {answer.status} {answer.reason}\r\n".encode())
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.wfile.write(f"{name}: {value}\r\n".encode())
            self.wfile.write(b"connection: close\r\n\r\n")
            begun = b""
            while part := answer.read1(65_536):
                begun += part[: HEAD_BYTES_MAX - len(begun)]
                for name in (b'"smollm2"', b'"minilm"'):
                    part = part.replace(name, b'"hash"')
                self.wfile.write(part)
        finally:
            upstream.close()
        found = _RESPONSE_ID.search(begun)
        return found[1].decode() if found is not None else ""


class _Proxy(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.recorded: list[dict[str, Any]] = []
        self._kinds: set[str] = set()
        self._lock = threading.Lock()

    def record(self, first: str, headers: dict[str, str], body: bytes) -> dict[str, Any] | None:
        """Write a request down, unless one of its kind was, or it is large; what is written."""
        kind = json.dumps([first, _form_of(body)])
        # Later ones go on from a response.
        known = kind in self._kinds and "/responses" not in first
        with self._lock:
            if known or len(body) > BODY_BYTES_MAX or len(self.recorded) >= _TOO_MANY:
                return None
            self._kinds.add(kind)
            kept = [
                [name, HOST if name.lower() == "host" else value]
                for name, value in headers.items()
                if name.lower() not in _PASSING
            ]
            row: dict[str, Any] = {"first": first, "headers": kept, "body": body.decode()}
            self.recorded.append(row)
            return row


def _form_of(body: bytes) -> Any:
    """The names in a JSON body, and what it is made of, but for texts and numbers."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return _shape(value)


def _shape(value: Any) -> Any:
    match value:
        case dict():
            return {name: _shape(it) for name, it in value.items() if name != "properties"}
        case list():
            return sorted({json.dumps(_shape(it)) for it in value})
        case bool() | None:
            return value
        case _:
            return type(value).__name__


@contextmanager
def recording(url: str, file: Path) -> Iterator[str]:
    """The address of a proxy before a gateway; what it was asked is in the file in the end."""
    proxy = _Proxy(url.removeprefix("http://"))
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        host, port = proxy.server_address[:2]
        yield f"http://{host!s}:{port}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        lines = [json.dumps(it, ensure_ascii=False) for it in proxy.recorded]
        file.write_text("".join(f"{line}\n" for line in lines))
