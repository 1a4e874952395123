"""Paying what a gateway offers, for a client on this machine: by a voucher, or by a transfer."""

from collections.abc import Mapping
from typing import Any

from node.ledger.wallet import Wallet
from node.local.arguments import read_key, read_number
from node.local.control import Emit
from node.paying.peer_paying import PeerPaying
from wire import limits
from wire.amount import AMOUNT_MAX, digits_of
from wire.errors import InputError, Malformed, Refused
from wire.ledger import order_digest
from wire.payment_claim import BATCH, EXACT, bytes_in, network_name, sign_claim

# Requests that a client says what they came to, in one call.
DRAWN_MAX = 1024


async def pay_offer(
    wallet: Wallet, paying: PeerPaying | None, arguments: Mapping[str, Any], emit: Emit
) -> dict[str, Any]:
    """What shows that an offer is paid, at most `most` millionths.

    `drawn` says what earlier requests came to, `told` what the gateway says of the channel to it.
    """
    offer = arguments.get("offer")
    offer = offer if isinstance(offer, Mapping) else {}
    if paying is not None:
        _note_drawn(paying, arguments.get("drawn"))
        if not offer:
            return {}
    scheme, network = offer.get("scheme"), offer.get("network")
    if scheme not in (EXACT, BATCH) or network != network_name(wallet.genesis.id):
        raise InputError(
            "the gateway is not paid in credits of this peer's network",
            todo="name the state folder of a peer that is in its network: state=…",
        )
    text, most = str(offer.get("amount")), read_number(arguments, "most", 0)
    amount = digits_of(text) or 0
    if not 1 <= amount <= min(most, AMOUNT_MAX):
        raise InputError(f"{text[:40]} millionths are not paid", todo="allow more: pay_max=…")
    to = read_key(str(offer.get("payTo")))
    if scheme == BATCH and paying is not None:
        found = await paying.request_vouchers.sign(to, amount, most, _told(arguments.get("told")))
        return {
            "channel": found.channel.name.hex(),
            "voucher": found.raw,
            "settlement": found.channel.settlement,
            "total": found.total,
            "recovered": found.recovered,
        }
    ordered = await wallet.pay(to, amount, emit)
    if not ordered.settlement:
        raise Refused(
            "the transfer was settled at the end of an epoch, which shows others nothing: ask"
            " the gateway's owner",
            todo="see it with: python -m node wallet log",
        )
    claim = sign_claim(wallet.key, order_digest(ordered.order))
    return {"settlement": ordered.settlement, "claim": claim}


def _note_drawn(paying: PeerPaying, drawn: object) -> None:
    for row in (drawn if isinstance(drawn, list) else [])[:DRAWN_MAX]:
        match row:
            case [str(channel), int(total), int(amount)]:
                try:
                    name = bytes.fromhex(channel)
                except ValueError:
                    continue
                paying.request_vouchers.note_drawn(name, total, amount)


def _told(told: object) -> dict[str, Any] | None:
    """What a gateway says of a channel, as it is in its 402; None if it says nothing."""
    if not isinstance(told, Mapping):
        return None
    try:
        voucher = bytes_in(told, "voucher", limits.VOUCHER_BYTES_MAX)
    except Malformed:
        return None
    return {"charged": digits_of(str(told.get("charged"))) or 0, "voucher": voucher}
