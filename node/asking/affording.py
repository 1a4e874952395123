"""Whether a task may cost what the peers that could do it ask: said before it is accepted."""

from dataclasses import dataclass, field, replace
from functools import partial

import trio

from node.asking.run import TaskRequest
from node.dispatch.directory import PeerDirectory
from node.paying.payer import Payer, PriceQuote, check_affordable
from node.paying.pricing import LegUnits, legs_at_most
from node.task.units import units_of
from wire.advert import Advert
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
        payer, stages = self.directory.payer, request.stages
        if payer is None:
            return
        legs = _legs_of(request)
        terms = (request.level, request.needed)
        key = (tuple(it.model for it in stages), request.price_max, tuple(legs), terms)
        now_at_s = trio.current_time()
        if self._found.get(key, 0.0) > now_at_s:
            return
        quote = await legs_quote(self.directory, request)
        check_affordable(quote, request.price_max, _called(request))
        for number, (stage, most) in enumerate(zip(stages, legs, strict=True)):
            others = sum(min(it, default=0) for it in quote.legs) - min(
                quote.legs[number], default=0
            )
            await payer.until_ready(
                *(partial(self.directory.playing, stage), stage, most),
                request.price_max - others,
                given_on=number > 0,
            )
        if request.level is not Level.SIGNED and request.price_max:
            for stage in stages:
                if stage.role is Role.INFER:
                    able = partial(verifiers_of, payer, stage)
                    await payer.until_checkable(able, request.price_max, request.needed)
        self._found[key] = now_at_s + KEPT_FOR_S


def _legs_of(request: TaskRequest) -> list[LegUnits]:
    units = max(1, units_of(request.stages[0], request.input))
    return legs_at_most(request.stages, request.inline, units)


def _called(request: TaskRequest) -> str:
    return "it" if request.stages[0].model is None else "this model"


def verifiers_of(payer: Payer, stage: Stage) -> list[Signed[Advert]]:
    """The verifiers of a stage's model that are known, without this peer."""
    peers = payer.peers
    found = peers.view.candidates(Role.VERIFY, stage.model, peers.environment.wall_s())
    return [it for it in found if it.signer != peers.me]


async def legs_quote(directory: PeerDirectory, request: TaskRequest) -> PriceQuote:
    """What the legs of a request cost at most."""
    payer = directory.payer
    assert payer is not None
    prices, locks = list[tuple[int, ...]](), 0
    for stage, most in zip(request.stages, _legs_of(request), strict=True):
        able = directory.playing(stage)
        prices.append(await payer.quote(able, stage, most))
        if request.price_max:
            locks += payer.locks(able, stage, most)
    return PriceQuote(tuple(prices), locks=locks)


async def quote_of(directory: PeerDirectory, request: TaskRequest) -> PriceQuote | None:
    """What the legs of a request, and its verdicts, cost at most; None where all is free."""
    payer = directory.payer
    if payer is None:
        return None
    found, checks = await legs_quote(directory, request), 0
    if request.level is not Level.SIGNED:
        for stage in request.stages:
            if stage.role is Role.INFER:
                checks += await payer.check_quote(verifiers_of(payer, stage), request.needed)
    return replace(found, checks=checks)
