"""Whether a task may cost what the peers that could do it ask: said before it is accepted."""

from dataclasses import dataclass, field

import trio

from node.asking.run import TaskRequest
from node.dispatch.directory import PeerDirectory
from node.paying.payer import PriceQuote, check_affordable
from node.paying.pricing import units_at_most
from node.task.units import units_of
from wire.kinds import Level, Role
from wire.latest import Latest

# What was found is believed for so long.
KEPT_FOR_S = 1.0
KEPT_MAX = 1024


@dataclass(slots=True)
class Affording:
    """Remembers for a moment what can be paid, for tasks that are alike."""

    directory: PeerDirectory
    _found: Latest[object, float] = field(default_factory=lambda: Latest(KEPT_MAX))

    async def check(self, request: TaskRequest) -> None:
        """InputError if every peer that is known asks for more than the task may cost."""
        payer, stage = self.directory.payer, request.stages[0]
        if payer is None or len(request.stages) > 1:
            return
        units = max(1, units_of(stage, request.input))
        key = (stage.model, request.price_max, units_at_most(stage, request.inline, units))
        now_at_s = trio.current_time()
        if self._found.get(key, 0.0) > now_at_s:
            return
        quote = await payer.quote(self.directory.playing(stage), stage, request.inline, units)
        check_affordable(quote, request.price_max, "it" if stage.model is None else "this model")
        await payer.until_ready(
            self.directory.playing(stage), stage, request.inline, units, request.price_max
        )
        self._found[key] = now_at_s + KEPT_FOR_S


async def quote_of(directory: PeerDirectory, request: TaskRequest) -> PriceQuote | None:
    """What the one leg of a request, and its verdicts, cost at most; None where all is free."""
    payer, stage = directory.payer, request.stages[0]
    if payer is None:
        return None
    units = max(1, units_of(stage, request.input))
    found = await payer.quote(directory.playing(stage), stage, request.inline, units)
    if request.level is Level.SIGNED:
        return found
    peers = payer.peers
    verifiers = peers.view.candidates(Role.VERIFY, stage.model, peers.environment.wall_s())
    return PriceQuote(found.prices, await payer.check_quote(verifiers, request.needed))
