"""Paying a gateway out of a peer of one's own: within a cap, and never twice for one call.

The keys stay with the peer: it is asked over its control socket, makes the transfer, and gives what
shows it. A call that has been paid for is repeated with the same payment.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream

from wire import limits
from wire.amount import show_credits
from wire.codec import pack, unpack
from wire.errors import BatonError, InputError, Malformed, Refused, Unreachable
from wire.payment_claim import EXACT

REQUIRED, SIGNATURE = "payment-required", "payment-signature"
SOCKET = "control.sock"
DOCUMENT_CHARACTERS_MAX = 64 << 10
PAY_DEADLINE_S = 90.0
UNUSED_MAX = 16


class PaymentNeeded(InputError):
    """A gateway wants to be paid for a call; `offers` are the ways."""

    def __init__(self, message: str, offers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message, todo="pay by a peer of yours: connect(…, pay_max=…, state=…)")
        self.offers = offers


@dataclass(slots=True)
class CallPayments:
    """What calls may cost together, in millionths, and the peer whose account pays."""

    most: int
    state: Path
    spent: int = 0
    # Transfers of calls that came to nothing: whom they paid, how much, and what shows them.
    _unused: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    _paying: anyio.Lock = field(default_factory=anyio.Lock)

    async def headers_for(self, needed: PaymentNeeded) -> dict[str, str]:
        """Pay for a call; the header that shows it. InputError if it would be too much."""
        offer = next((it for it in needed.offers if _is_in_credits(it)), None)
        if offer is None:
            raise InputError("the gateway takes no credits", todo="pay it by other means")
        amount = int(offer["amount"])
        pay_to = str(offer.get("payTo"))
        for kept in self._unused:
            if kept[0] == pay_to and kept[1] >= amount:
                self._unused.remove(kept)
                return _header(offer, kept[2])
        async with self._paying:
            if self.spent + amount > self.most:
                left = show_credits(self.most - self.spent)
                raise InputError(
                    f"the gateway asks for {show_credits(amount)} credits, and {left} may be paid",
                    todo="allow more: connect(…, pay_max=…)",
                )
            # It counts before it is known to be made: what was not heard may have happened.
            self.spent += amount
            arguments = {"offer": dict(offer), "most": amount}
            with anyio.fail_after(PAY_DEADLINE_S):
                shown = await _asked(self.state / SOCKET, "pay_offer", arguments)
        payload = {name: base64.b64encode(shown[name]).decode() for name in ("settlement", "claim")}
        return _header(offer, payload)

    def keep_unused(self, headers: Mapping[str, str]) -> None:
        """A call with this payment came to nothing: let it pay for another one."""
        told = json.loads(base64.b64decode(headers[SIGNATURE]))
        accepted = told["accepted"]
        kept = (str(accepted.get("payTo")), int(accepted["amount"]), told["payload"])
        self._unused = [*self._unused[1 - UNUSED_MAX :], kept]


def _header(offer: Mapping[str, Any], payload: Mapping[str, str]) -> dict[str, str]:
    told = {"x402Version": 2, "accepted": dict(offer), "payload": dict(payload)}
    return {SIGNATURE: base64.b64encode(json.dumps(told).encode()).decode()}


def payment_needed(header: str) -> PaymentNeeded:
    """What a gateway's 402 says; Malformed if it cannot be read."""
    try:
        if len(header) > DOCUMENT_CHARACTERS_MAX:
            raise Malformed("the gateway's offers are too long")
        told = json.loads(base64.b64decode(header, validate=True))
        offers = [it for it in told["accepts"] if isinstance(it, dict)]
        why = str(told.get("error"))[:200]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Malformed(f"the gateway's offers cannot be read: {error}") from error
    return PaymentNeeded(f"the gateway wants to be paid for this: {why}", offers)


def _is_in_credits(offer: Mapping[str, Any]) -> bool:
    network, amount = offer.get("network"), str(offer.get("amount"))
    is_own = isinstance(network, str) and network.startswith("baton:")
    is_amount = amount.isascii() and amount.isdigit() and len(amount) < 20
    return is_own and is_amount and offer.get("scheme") == EXACT


async def _asked(path: Path, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the peer at this control socket answers; its own error, as it says it."""
    try:
        stream = await anyio.connect_unix(os.fspath(path))
    except OSError as error:
        raise Unreachable(
            f"no peer is running on the state folder {path.parent}",
            todo="start one: python -m node join",
        ) from error
    async with stream:
        data = pack({"command": command, "arguments": dict(arguments)})
        await stream.send(len(data).to_bytes(4, "big") + data)
        found = b""
        while True:
            found = await _until(stream, found, 4)
            size = int.from_bytes(found[:4], "big")
            if size > limits.FRAME_BYTES_MAX:
                raise Malformed("the peer's answer is too long")
            found = await _until(stream, found, 4 + size)
            value, found = unpack(found[4 : 4 + size]), found[4 + size :]
            if "result" in value:
                return dict(value["result"])
            if "error" in value:
                raise _told(value["error"])


async def _until(stream: ByteReceiveStream, found: bytes, size: int) -> bytes:
    while len(found) < size:
        try:
            found += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            raise Unreachable("the peer on this machine closed the connection") from error
    return found


def _told(said: Any) -> BatonError:
    words = said if isinstance(said, Mapping) else {"message": str(said)}
    return Refused(str(words.get("message", "the peer refused")), todo=str(words.get("todo", "")))
