"""Tariffs: what a peer asks for its work, signed; its advert names the tariff by its content id."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Amount, Balance
from wire.content import ContentId
from wire.errors import Malformed
from wire.kinds import Kind, Role
from wire.operations import FETCH
from wire.schema import Between, Int, Record
from wire.signed import SignedRecord
from wire.task import Stage

# Prices of units are for so many of them, so that one unit may cost less than a millionth.
UNITS = 1_000_000
# Work that no model does has a price too, under an id that stands for it: passages that a data peer
# fetches, KiB of content that a store keeps until it said that it would, and KiB that a relay
# passes on, either way, which whoever asked for the line pays.
FETCHED = ContentId.of(b"baton/1/price/fetch")
KEPT = ContentId.of(b"baton/1/price/keep")
RELAYED = ContentId.of(b"baton/1/price/relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice(Record):
    """What a leg with this model costs, or work that FETCHED, KEPT or RELAYED stands for.

    In millionths: `base` is for each leg, `given` for UNITS units of what is given to the model,
    `made` for as many tokens that it makes. Bytes that are passed on have no base.
    """

    model: ContentId
    base: Balance
    given: Balance
    made: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff(SignedRecord):
    """The prices of one peer; what is not named is free. `verdict` is for each one.

    `increment` is the most that either side may be owed by the other at any time, in millionths.
    """

    KIND: ClassVar[Kind] = Kind.TARIFF
    SIZE_BYTES_MAX: ClassVar[int] = limits.TARIFF_BYTES_MAX - limits.ENVELOPE_BYTES_MAX

    network: ContentId
    models: Annotated[tuple[ModelPrice, ...], Between(0, limits.ADVERT_MODELS_MAX)]
    verdict: Balance
    increment: Amount

    def check(self) -> None:
        """Malformed unless each model is named once, in order."""
        names = [it.model for it in self.models]
        if sorted(set(names)) != names:
            raise Malformed("the models of a tariff stand in order, each once")

    def price_of(self, model: ContentId | None) -> ModelPrice | None:
        """What this model costs; None if it is free."""
        # A loop, as this is asked several times for each task.
        for price in self.models:
            if price.model == model:
                return price
        return None

    def price_for(self, stage: Stage) -> ModelPrice | None:
        """What a leg costs; None if it is free, as the list of a data peer's sources is."""
        return self.price_of(work_of(stage))


class ChargeKind(IntEnum):
    """What was paid for. Append only."""

    LEG = 0
    # A verdict, whichever way it went.
    CHECK = 1
    # What a peer had streamed of a leg that another finished.
    PART = 2
    # A verdict on an answer that was not accepted, and is not among those that are told.
    REJECTED = 3


def work_of(stage: Stage) -> ContentId | None:
    """Under which id a leg's price stands: its model, or what stands for a fetch."""
    if stage.role is Role.DATA:
        return FETCHED if stage.operation == FETCH else None
    return stage.model


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge(Record):
    """What one peer, the signer of `tariff`, was charged for in one answer, in millionths.

    `units` are tokens that were shown: of a leg, those of others before it, which it is not paid
    for; of a part, those that it is paid for.
    """

    tariff: Annotated[bytes, Between(1, limits.TARIFF_BYTES_MAX)]
    stage: Annotated[int, Between(0, limits.STAGES_MAX - 1)]
    kind: ChargeKind
    units: Int
    amount: Amount
