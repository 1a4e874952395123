"""PyPI's x402 pays a Baton gateway in credits, out of a peer that runs on this machine.

    client = register_credits(x402Client(), state="~/.baton", pay_max=500_000)
    async with x402HttpxClient(client) as http:
        await http.post("http://127.0.0.1:8000/v1/chat/completions", json=...)

The keys stay with the peer (python -m node join): it is asked over its control socket for what
shows a payment. Amounts are in millionths of a credit. `node.connect(..., pay_max="0.5")` needs no
other library and does the same. The key of an app whose users pay goes beside it:
`x402HttpxClient(client, headers={"authorization": "Bearer KEY"})`, `node.connect(..., key="KEY")`.
"""

import base64
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

PAY_S = 90.0
ANSWER_BYTES_MAX = 16 << 20
NETWORKS = "baton:*"


class Purse:
    """What may be spent together, in millionths, and the peer whose account pays."""

    def __init__(self, state: str, pay_max: int) -> None:
        self.socket = Path(state).expanduser() / "control.sock"
        self.left = pay_max

    def pay(self, requirements: Any, scheme: str, **more: Any) -> dict[str, Any]:
        """What shows that an offer is paid; it counts before it is known to be made."""
        amount = int(requirements.get_amount())
        if amount > self.left:
            raise ValueError(f"{amount} millionths are asked for, and {self.left} may be paid")
        most, offer = (
            self.left,
            {
                "amount": str(amount),
                "network": requirements.network,
                "payTo": requirements.pay_to,
                "scheme": scheme,
            },
        )
        self.left -= amount
        return asked(self.socket, {"most": most, "offer": offer, **more})


class Transfers:
    """Scheme `exact`: a transfer for each request, settled before it."""

    scheme = "exact"

    def __init__(self, purse: Purse) -> None:
        self.purse = purse

    @staticmethod
    def find_default_asset(asset: str, network: str) -> dict[str, Any] | None:
        """Clients bound what they pay by the decimals of an asset that its scheme knows."""
        is_ours = asset == "credits" and network.startswith("baton:")
        return {"asset": asset, "decimals": 6, "symbol": asset} if is_ours else None

    def create_payment_payload(self, requirements: Any) -> dict[str, Any]:
        """What x402 sends as the payment."""
        shown = self.purse.pay(requirements, self.scheme)
        return {name: _text(shown[name]) for name in ("settlement", "claim")}


class Vouchers(Transfers):
    """Scheme `batch-settlement`: a voucher for each request, of one channel; none is settled."""

    scheme = "batch-settlement"

    def __init__(self, purse: Purse) -> None:
        super().__init__(purse)
        self.sent: dict[str, list[Any]] = {}
        self.drawn: list[list[Any]] = []

    def create_payment_payload(self, requirements: Any) -> dict[str, Any]:
        """What x402 sends as the payment."""
        drawn, self.drawn = self.drawn, []
        shown = self.purse.pay(requirements, self.scheme, drawn=drawn)
        voucher = _text(shown["voucher"])
        self.sent[voucher] = [shown["channel"], shown["total"], int(requirements.get_amount())]
        settlement = _text(shown["settlement"])
        return {"channel": shown["channel"], "settlement": settlement, "voucher": voucher}

    def note_answered(self, context: Any) -> None:
        """A whole answer says what it came to; of a stream all that it might have counts."""
        sent = self.sent.pop(context.payment_payload.payload.get("voucher"), None)
        told = context.settle_response
        if sent is not None and told is not None and str(told.amount or "").isdigit():
            channel, total, amount = sent
            cost = min(amount, int(told.amount))
            self.purse.left += amount - cost
            self.drawn.append([channel, total, cost])


def register_credits(
    client: Any, *, state: str, pay_max: int, wanted: tuple[str, ...] = ("batch-settlement",)
) -> Any:
    """Have a client of x402 pay in credits, by these schemes, in both versions; the client."""
    purse = Purse(state, pay_max)
    made: dict[str, Callable[[Purse], Transfers]] = {
        "batch-settlement": Vouchers,
        "exact": Transfers,
    }
    for name in wanted:
        scheme = made[name](purse)
        client.register(NETWORKS, scheme)
        client.register_v1(NETWORKS, scheme)
        if isinstance(scheme, Vouchers):
            client.on_payment_response(scheme.note_answered)
    return client


def asked(path: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the peer answers to `pay_offer`: four bytes of length, then a value, either way."""
    # Names of a map stand in their order.
    ordered = dict(sorted(arguments.items()))
    data = msgpack.packb({"arguments": ordered, "command": "pay_offer"})
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PAY_S)
        stream.connect(str(path))
        stream.sendall(len(data).to_bytes(4, "big") + data)
        while True:
            size = int.from_bytes(_exactly(stream, 4), "big")
            if size > ANSWER_BYTES_MAX:
                raise ValueError("the peer's answer is too long")
            value = msgpack.unpackb(_exactly(stream, size))
            if "error" in value:
                raise ValueError(str(value["error"]))
            if "result" in value:
                return dict(value["result"])


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise ValueError("the peer closed the connection")
        data += part
    return data


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
