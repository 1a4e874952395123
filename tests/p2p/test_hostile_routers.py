"""A router that describes itself by UPnP may be anything, and its words are read by a C library."""

import resource
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import trio

from p2p import home_router
from p2p.port_mapping import LIFETIME_S
from wire.errors import Refused, Unreachable

ENTITIES = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b0 "bbbbbbbbbb">'
    + b"".join(b'<!ENTITY b%d "%s">' % (it + 1, b"&b%d;" % it * 10) for it in range(11))
    + b"]><root><URLBase>&b11;</URLBase><device>&b11;</device></root>"
)
LARGE = b"<root>" + b"<device><deviceType>x</deviceType>" * 30_000


@pytest.mark.parametrize("body", [LARGE, ENTITIES, b"\xff" * 1_000_000], ids=len)
async def test_a_router_that_describes_itself_at_length_opens_no_port(body: bytes) -> None:
    """A megabyte of XML, entities of entities, and no XML: soon over, and little is kept of it."""

    class Describes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadingHTTPServer(("127.0.0.1", 0), Describes) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            location = f"http://127.0.0.1:{server.server_port}/rootDesc.xml"
            asked = (location, 4747, [4747, 5000], LIFETIME_S)
            with trio.fail_after(10.0), pytest.raises((Unreachable, Refused)):
                await trio.to_thread.run_sync(home_router._upnp_open, *asked)
        finally:
            server.shutdown()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
