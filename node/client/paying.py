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
from wire.amount import digits_of, show_credits
from wire.codec import pack, unpack
from wire.errors import BatonError, InputError, Malformed, Refused, Unreachable
from wire.latest import Latest
from wire.payment_claim import BATCH, EXACT

REQUIRED, SIGNATURE, RESPONSE = "payment-required", "payment-signature", "payment-response"
SOCKET = "control.sock"
DOCUMENT_CHARACTERS_MAX = 64 << 10
PAY_DEADLINE_S = 90.0
UNUSED_MAX = 16
DRAWN_MAX = 1024
# Of one call: one voucher as for the call before, one for its own price, one more if the gateway
# knows more of the channel than the peer.
TRIES_MAX = 3


class PaymentNeeded(InputError):
    """A gateway wants to be paid for a call; `offers` are the ways.

    `channel` is what it says of the channel whose voucher it did not take; None without one.
    """

    def __init__(
        self,
        message: str,
        offers: Sequence[Mapping[str, Any]],
        channel: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, todo="pay by a peer of yours: connect(…, pay_max=…, state=…)")
        self.offers = offers
        self.channel = channel

    @property
    def is_used(self) -> bool:
        """Whether the voucher that was sent had paid for a request before."""
        return self.channel is not None and self.channel.get("used") is True


@dataclass(slots=True)
class AttachedVoucher:
    """A voucher that a call was sent with: how much it may cost, and how often it was tried.

    `ahead`: before the gateway was asked what the call costs.
    """

    channel: str
    total: int
    amount: int
    tries: int
    ahead: bool


@dataclass(slots=True)
class CallPayments:
    """What calls may cost together, in millionths, and the peer whose account pays.

    Where the gateway takes vouchers, calls are paid by these, and the second to a path is paid
    before it is asked what it costs: as the one before it.
    """

    most: int
    state: Path
    spent: int = 0
    # Transfers of calls that came to nothing: whom they paid, how much, and what shows them.
    _unused: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    _paying: anyio.Lock = field(default_factory=anyio.Lock)
    # What calls to a path were paid by last.
    _offers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _sent: Latest[str, AttachedVoucher] = field(default_factory=lambda: Latest(DRAWN_MAX))
    # What calls came to, as the peer is told with the next one; channels that the gateway knows.
    _drawn: list[list[Any]] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    async def headers_ahead(self, path: str) -> dict[str, str]:
        """Pay for a call as for the one before it; nothing where there was none, or too little."""
        offer = self._offers.get(path)
        if offer is None or self.spent + int(offer["amount"]) > self.most:
            return {}
        return await self._voucher(offer, None, 0, ahead=True)

    async def headers_for(
        self, needed: PaymentNeeded, path: str, before: Mapping[str, str]
    ) -> dict[str, str]:
        """Pay for a call; the header that shows it. InputError if it would be too much.

        `before` are the headers that it was refused with: one payment more is made if that was by
        a voucher that the gateway could not take as it is, and the error itself raised if not.
        """
        sent = self._sent.pop(before.get(SIGNATURE, ""), None)
        if sent is not None:
            self._note(sent, sent.amount if needed.is_used else 0)
        if SIGNATURE in before and (sent is None or sent.tries >= TRIES_MAX):
            raise needed
        tries = 0 if sent is None else sent.tries
        offers = [it for it in needed.offers if _is_in_credits(it)]
        if not offers:
            raise InputError("the gateway takes no credits", todo="pay it by other means")
        if (offer := next((it for it in offers if it["scheme"] == BATCH), None)) is not None:
            found = await self._voucher(offer, needed.channel, tries, ahead=False)
            self._offers[path] = offer
            return found
        return await self._transfer(offers[0])

    async def _transfer(self, offer: Mapping[str, Any]) -> dict[str, str]:
        amount, pay_to = int(offer["amount"]), str(offer.get("payTo"))
        for kept in self._unused:
            if kept[0] == pay_to and kept[1] >= amount:
                self._unused.remove(kept)
                return _header(offer, kept[2])
        shown = await self._ask_peer(offer, amount, {})
        payload = {name: base64.b64encode(shown[name]).decode() for name in ("settlement", "claim")}
        return _header(offer, payload)

    async def _voucher(
        self,
        offer: Mapping[str, Any],
        told: Mapping[str, Any] | None,
        tries: int,
        *,
        ahead: bool,
    ) -> dict[str, str]:
        amount, drawn = int(offer["amount"]), self._drawn
        self._drawn = []
        more: dict[str, Any] = {"drawn": drawn} | ({} if told is None else {"told": dict(told)})
        shown = await self._ask_peer(offer, amount, more)
        self.spent += int(shown["recovered"])
        channel = str(shown["channel"])
        payload = {"channel": channel, "voucher": base64.b64encode(shown["voucher"]).decode()}
        if channel not in self._known or tries:
            payload["settlement"] = base64.b64encode(shown["settlement"]).decode()
        found = _header(offer, payload)
        sent = AttachedVoucher(channel, int(shown["total"]), amount, tries + 1, ahead)
        self._sent[found[SIGNATURE]] = sent
        return found

    async def _ask_peer(
        self, offer: Mapping[str, Any], amount: int, more: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        async with self._paying:
            if self.spent + amount > self.most:
                left = show_credits(self.most - self.spent)
                raise InputError(
                    f"the gateway asks for {show_credits(amount)} credits, and {left} may be paid",
                    todo="allow more: connect(…, pay_max=…)",
                )
            most = self.most - self.spent
            # It counts before it is known to be made: what was not heard may have happened.
            self.spent += amount
            if offer["scheme"] != BATCH:
                most = amount
            arguments = {"offer": dict(offer), "most": most, **more}
            with anyio.fail_after(PAY_DEADLINE_S):
                return await _asked(self.state / SOCKET, "pay_offer", arguments)

    def note_answered(self, headers: Mapping[str, str], amount: object) -> None:
        """A call with this payment was answered, and came to so much, as the gateway says."""
        sent = self._sent.pop(headers.get(SIGNATURE, ""), None)
        if sent is not None:
            self._known.add(sent.channel)
            told = digits_of(str(amount))
            self._note(sent, sent.amount if told is None else min(told, sent.amount))

    def _note(self, sent: AttachedVoucher, amount: int) -> None:
        self.spent -= sent.amount - amount
        self._drawn = [*self._drawn[1 - DRAWN_MAX :], [sent.channel, sent.total, amount]]

    def keep_unused(self, headers: Mapping[str, str], *, heard: bool) -> None:
        """A call with this payment came to nothing: let it pay for another one.

        `heard`: the gateway says so. A voucher of which it does not say so counts as used.
        """
        sent = self._sent.pop(headers[SIGNATURE], None)
        if sent is not None:
            if heard:
                self._note(sent, 0)
            return
        told = json.loads(base64.b64decode(headers[SIGNATURE]))
        accepted = told["accepted"]
        if accepted["scheme"] == EXACT:
            kept = (str(accepted.get("payTo")), int(accepted["amount"]), told["payload"])
            self._unused = [*self._unused[1 - UNUSED_MAX :], kept]


def _header(offer: Mapping[str, Any], payload: Mapping[str, str]) -> dict[str, str]:
    told = {"x402Version": 2, "accepted": dict(offer), "payload": dict(payload)}
    return {SIGNATURE: base64.b64encode(json.dumps(told).encode()).decode()}


def amount_told(header: str | None) -> object:
    """What an answer came to, as its head says; None if it does not say so."""
    try:
        told = json.loads(base64.b64decode(header or "", validate=True))
        return told["amount"] if len(header or "") <= DOCUMENT_CHARACTERS_MAX else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def payment_needed(header: str) -> PaymentNeeded:
    """What a gateway's 402 says; Malformed if it cannot be read."""
    try:
        if len(header) > DOCUMENT_CHARACTERS_MAX:
            raise Malformed("the gateway's offers are too long")
        told = json.loads(base64.b64decode(header, validate=True))
        offers = [it for it in told["accepts"] if isinstance(it, dict)]
        why = str(told.get("error"))[:200]
        channel = (told.get("extensions") or {}).get("channel")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Malformed(f"the gateway's offers cannot be read: {error}") from error
    known = channel if isinstance(channel, dict) else None
    return PaymentNeeded(f"the gateway wants to be paid for this: {why}", offers, known)


def _is_in_credits(offer: Mapping[str, Any]) -> bool:
    network, amount = offer.get("network"), digits_of(str(offer.get("amount")))
    is_own = isinstance(network, str) and network.startswith("baton:")
    return is_own and amount is not None and offer.get("scheme") in (EXACT, BATCH)


async def _asked(path: Path, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the peer at this control socket answers; its own error, as it says it."""
    try:
        stream = await anyio.connect_unix(os.fspath(path))
    except OSError as error:
        raise Unreachable(
            f"no peer is running on the state folder {path.parent}",
            todo="start one: python -m node join; or name its folder: connect(…, state=…)",
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
