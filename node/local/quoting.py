"""What a task would cost, shown before it is asked for."""

from node.asking.run import TaskRequest
from node.local.control import Emit
from node.paying.payer import PriceQuote, check_affordable
from node.peer import Node
from node.task.units import units_of
from wire.kinds import Level, Role


async def quote_of(node: Node, request: TaskRequest) -> PriceQuote | None:
    """What the one leg of a request, and its verdicts, cost at most; None where all is free."""
    if node.paying is None:
        return None
    payer, stage = node.paying.payer, request.stages[0]
    directory = node.leg_server.dispatcher.directory
    units = max(1, units_of(stage, request.input))
    workers = directory.playing(stage)
    found = await payer.quote(workers, stage, request.inline, units)
    if request.level is Level.SIGNED:
        return found
    wall_s = node.dependencies.environment.wall_s()
    verifiers = node.peers.view.candidates(Role.VERIFY, stage.model, wall_s)
    checks = await payer.check_quote(verifiers, request.needed)
    return PriceQuote(found.prices, checks)


async def show_quote(node: Node, request: TaskRequest, called: str, emit: Emit) -> None:
    """Emit what it would cost; InputError if that is more than it may cost."""
    quote = await quote_of(node, request)
    if quote is None or not quote.most:
        return
    emit(
        {
            "event": "quote",
            "least": quote.least,
            "most": quote.most,
            "checks": quote.checks,
            "peers": len(quote.prices),
            "price_max": request.price_max,
        }
    )
    check_affordable(quote, request.price_max, called)
