"""A facilitator with money of its own, which keeps the contract of real ones, or breaks it.

It has no chain: who signed is not checked, but each authorisation settles once, for no more than
was signed, within its time, and nobody spends what he has not got.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SIGNER = "0x" + "fa" * 20
# How it misbehaves, at its next settlement or until told otherwise.
HANGS, FAILS, LIES, REFUSES, REDIRECTS, FLOODS = (
    "hangs after settling",
    "500 after settling",
    "names another payer",
    "refuses",
    "redirects",
    "floods",
)


@dataclass(slots=True)
class FakeFacilitator:
    """What it has settled, and how it behaves."""

    url: str = ""
    balances: dict[str, int] = field(default_factory=dict)
    balance: int = 10**12
    # By authorisation: payer, amount.
    settled: dict[str, tuple[str, int]] = field(default_factory=dict)
    verified: int = 0
    asked: int = 0
    # Behaviours of the settlements to come, in order.
    moods: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def supported(self) -> dict[str, Any]:
        kinds = [
            {"x402Version": 2, "scheme": "exact", "network": "eip155:8453"},
            {
                "x402Version": 2,
                "scheme": "upto",
                "network": "eip155:8453",
                "extra": {"facilitatorAddress": SIGNER},
            },
            {"x402Version": 1, "scheme": "exact", "network": "base"},
        ]
        return {"kinds": kinds, "extensions": [], "signers": {"eip155:*": [SIGNER]}}

    def verify(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.verified += 1
        payer, nonce, most, _ = _read(asked)
        reason = self._wrong(payer, nonce, most)
        told: dict[str, Any] = {"isValid": not reason, "payer": payer}
        return told | ({"invalidReason": reason} if reason else {})

    def settle(self, asked: dict[str, Any]) -> dict[str, Any]:
        payer, nonce, most, wanted = _read(asked)
        reason = self._wrong(payer, nonce, most)
        if not reason and wanted > most:
            reason = "invalid_upto_evm_payload_settlement_exceeds_amount"
        network = asked["paymentRequirements"]["network"]
        told = {"success": not reason, "payer": payer, "network": network, "transaction": ""}
        if reason:
            return told | {"errorReason": reason}
        with self.lock:
            self.settled[nonce] = (payer, wanted)
            self.balances[payer] = self.balances.get(payer, self.balance) - wanted
        return told | {"transaction": f"0x{len(self.settled):064x}", "amount": str(wanted)}

    def _wrong(self, payer: str, nonce: str, most: int) -> str:
        if nonce in self.settled:
            return "invalid_exact_evm_nonce_already_used"
        if self.balances.get(payer, self.balance) < most:
            return "insufficient_funds"
        return ""


def _read(asked: dict[str, Any]) -> tuple[str, str, int, int]:
    """Payer, nonce, what was signed, and what is asked for."""
    wanted, payload = asked["paymentRequirements"], asked["paymentPayload"]["payload"]
    assert asked["x402Version"] == asked["paymentPayload"]["x402Version"]
    amount = int(wanted["amount" if asked["x402Version"] == 2 else "maxAmountRequired"])
    if "authorization" in payload:
        said = payload["authorization"]
        assert int(said["value"]) == amount
        assert said["to"].lower() == wanted["payTo"].lower()
        return said["from"].lower(), said["nonce"].lower(), amount, amount
    said = payload["permit2Authorization"]
    return said["from"].lower(), said["nonce"], int(said["permitted"]["amount"]), amount


@contextmanager
def facilitating() -> Iterator[FakeFacilitator]:
    """A facilitator at a port of this machine."""
    fake, over = FakeFacilitator(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._say(200, fake.supported())

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/verify":
                self._say(200, fake.verify(asked))
                return
            fake.asked += 1
            mood = fake.moods.pop(0) if fake.moods else ""
            if mood == REFUSES:
                told = {"success": False, "errorReason": "insufficient_funds"}
                self._say(200, told | {"transaction": "", "network": "eip155:8453"})
                return
            if mood == REDIRECTS:
                self.send_response(302)
                self.send_header("location", "http://127.0.0.1:1/settle")
                self.send_header("content-length", "0")
                self.end_headers()
                return
            told = fake.settle(asked)
            if mood == HANGS:
                over.wait(60)
            elif mood == FAILS:
                self._say(500, {"error": "internal"})
            elif mood == LIES:
                self._say(200, told | {"payer": "0x" + "ee" * 20})
            elif mood == FLOODS:
                self._say(200, told | {"more": "x" * (1 << 20)})
            else:
                self._say(200, told)

        def _say(self, status: int, told: dict[str, Any]) -> None:
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except OSError:
                return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield fake
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
