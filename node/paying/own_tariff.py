"""This peer's own prices: as its owner typed them, and as the tariff that its advert names.

Models come and go, so the tariff is made again when the priced ones that are offered change.
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from node.paying_config import DATA, RELAY, STORE, TypedPrices
from p2p.peers import Peers
from store import Store
from wire import limits
from wire.amount import CREDIT
from wire.content import ContentId
from wire.errors import StoreError
from wire.ledger import Genesis
from wire.signed import Signed, sign
from wire.tariff import FETCHED, KEPT, RELAYED, UNITS, ModelPrice, Tariff

LOOK_EVERY_S = 1.0
# Neither side is owed more than this many tokens and tasks, and the longest prompt, cost with the
# dearest model.
INCREMENT_MIN = CREDIT // 100
INCREMENT_UNITS = 1000
# Four times as many as one asker has under way here: with twice as many, half of them are promised
# by one voucher at most, and the next one comes late for some.
INCREMENT_TASKS = 256
# A relay's bytes are paid ahead by what so many KiB cost: half a minute at its full rate.
INCREMENT_RELAYED_KIB = 64 << 10
PIN = "tariff"
SERVICE_IDS = {DATA: FETCHED, STORE: KEPT, RELAY: RELAYED}


@dataclass(slots=True)
class OwnTariff:
    """The tariff of this peer. `run` keeps it as its models are."""

    peers: Peers
    store: Store
    genesis: Genesis
    typed: TypedPrices
    # The id of a model by the name that was typed; None while it is not loaded.
    resolve: Callable[[str], ContentId | None]
    now: Signed[Tariff] | None = None

    def prices(self) -> Tariff | None:
        """What is asked for now; None if nothing is, or no priced model is known yet."""
        found: dict[ContentId, ModelPrice] = {}
        for name, typed in self.typed.models.items():
            if (model := SERVICE_IDS.get(name) or self.resolve(name)) is None:
                continue
            found[model] = ModelPrice(
                model=model, base=typed.base, given=typed.given, made=typed.made
            )
        if not found and not self.typed.check:
            return None
        models = tuple(found[it] for it in sorted(found)[: limits.ADVERT_MODELS_MAX])
        dearest = max((_usual(it) for it in models), default=0)
        return Tariff(
            network=self.genesis.id,
            models=models,
            verdict=self.typed.check,
            increment=max(INCREMENT_MIN, dearest, self.typed.check * INCREMENT_TASKS),
        )

    def awaits(self, work: ContentId | None) -> bool:
        """Whether a price was typed for this work, which the tariff does not name."""
        return work is not None and any(
            (SERVICE_IDS.get(it) or self.resolve(it)) == work for it in self.typed.models
        )

    @property
    def price(self) -> int:
        """For the advert: the most of all models for UNITS units given and made.

        What a relay asks for has no part in whom work is given to.
        """
        models = () if self.now is None else self.now.record.models
        models = tuple([it for it in models if it.model != RELAYED])
        return min(2**62, max((it.given + it.made for it in models), default=0))

    async def refresh(self) -> None:
        """Sign what is asked for now, and keep it where others can fetch it, if it has changed."""
        wanted = self.prices()
        if wanted == (None if self.now is None else self.now.record):
            return
        before, signed = self.now, None
        if wanted is not None:
            signed = sign(wanted, self.peers.key)
            await self.store.put(signed.raw, pin=PIN)
        self.now = signed
        self.peers.advertiser.changed()
        if before is not None:
            await self.store.unpin(before.id, PIN)

    async def run(self) -> None:
        """Keep it as the models of this peer are."""
        while True:
            try:
                await self.refresh()
            except StoreError as error:
                self.peers.note_problem("tariff", f"it cannot be kept: {error.message}")
            await trio.sleep(LOOK_EVERY_S)


def _usual(price: ModelPrice) -> int:
    if price.model == RELAYED:
        return price.given * INCREMENT_RELAYED_KIB // UNITS
    # What a prompt needs is promised before it is read, so that less could never be paid.
    by_units = price.given * limits.PROMPT_BYTES_MAX + price.made * INCREMENT_UNITS
    return price.base * INCREMENT_TASKS + by_units // UNITS
