"""Whether a task may cost what the peers that could do it ask: said before it is accepted."""

from dataclasses import dataclass, field

import trio

from node.asking.run import TaskRequest
from node.dispatch.directory import PeerDirectory
from node.paying.payer import Payer, PriceQuote, check_affordable
from node.paying.pricing import units_at_most
from node.task.units import units_of
from wire.advert import Advert
from wire.errors import InputError
from wire.kinds import Level, Role
from wire.latest import Latest
from wire.signed import Signed
from wire.task import Stage

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
        if payer is None:
            return
        if len(request.stages) > 1:
            await self._check_later(payer, request)
            return
        units = max(1, units_of(stage, request.input))
        terms = (request.level, request.needed)
        key = (stage.model, request.price_max, units_at_most(stage, request.inline, units), terms)
        now_at_s = trio.current_time()
        if self._found.get(key, 0.0) > now_at_s:
            return
        quote = await payer.quote(self.directory.playing(stage), stage, request.inline, units)
        check_affordable(quote, request.price_max, "it" if stage.model is None else "this model")
        await payer.until_ready(
            self.directory.playing(stage), stage, request.inline, units, request.price_max
        )
        if request.level is not Level.SIGNED and request.price_max:
            await payer.until_checkable(
                self._verifiers(payer, stage), request.price_max, request.needed
            )
        self._found[key] = now_at_s + KEPT_FOR_S

    async def _check_later(self, payer: Payer, request: TaskRequest) -> None:
        """InputError if only peers that ask for credits could do a later leg.

        Such a leg is given on by whoever did the one before, who pays nothing.
        """
        for stage in request.stages[1:]:
            playing = self.directory.playing(stage)
            if playing and await payer.all_ask(playing, stage):
                raise InputError(
                    f"every peer that does the leg {stage.operation!r} asks for credits, and only"
                    " the first leg of a task is paid",
                    todo="ask for each leg in a task of its own, the output of one as the input of"
                    " the next",
                )

    def _verifiers(self, payer: Payer, stage: Stage) -> list[Signed[Advert]]:
        peers = payer.peers
        found = peers.view.candidates(Role.VERIFY, stage.model, peers.environment.wall_s())
        return [it for it in found if it.signer != peers.me]


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
