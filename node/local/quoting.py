"""What a task would cost, shown before it is asked for."""

from contextlib import suppress

from node.asking.affording import quote_of
from node.asking.run import TaskRequest
from node.local.control import Emit
from node.paying.payer import check_affordable
from node.paying.paying_channels import BALANCE_PART
from node.peer import Node
from wire.errors import BatonError


async def least_cost(node: Node, request: TaskRequest, beyond: int) -> int | None:
    """What a task costs at most at the cheapest peers that ask for more than `beyond` millionths.

    None if nobody asks for more.
    """
    quote = await quote_of(node.leg_server.dispatcher.directory, request)
    if quote is None:
        return 0 if beyond < 0 else None
    return quote.least if beyond < 0 else quote.above(beyond)


async def show_quote(node: Node, request: TaskRequest, called: str, emit: Emit) -> None:
    """Emit what it would cost; InputError if that is more than it may cost."""
    quote = await quote_of(node.leg_server.dispatcher.directory, request)
    if quote is None or not quote.most:
        return
    balance = 0
    if quote.locks and node.ledger is not None:
        with suppress(BatonError):
            balance = (await node.ledger.wallet.look()).balance
    emit(
        {
            "event": "quote",
            "least": quote.least,
            "most": quote.most,
            "checks": quote.checks,
            # A channel has what one task needs, whatever part of the balance that is.
            "locks": min(quote.locks, max(balance // BALANCE_PART, min(quote.most, balance))),
            "peers": min(map(len, quote.legs)),
            "legs": [
                {
                    "operation": stage.operation,
                    "least": min(prices, default=0),
                    "most": max(prices, default=0),
                }
                for stage, prices in zip(request.stages, quote.legs, strict=True)
            ],
            "price_max": request.price_max,
        }
    )
    check_affordable(quote, request.price_max, called)
