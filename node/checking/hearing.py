"""Hears both sides of a dispute, and writes down what they say, until it is known who is wrong.

How a side is asked is its own matter: over the network, or in a test at once.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from node.evidence import disputes
from node.evidence.disputes import Descending, Grounds, UnfitError
from wire.dispute import CHALLENGER, PROVER, Commitment, Descent, Dispute, StateOpening
from wire.signed import Signed

T = TypeVar("T")


class SilentError(Exception):
    """A side did not answer by the deadline, or refused. Never leaves `node.checking`."""


class Side(Protocol):
    """One of the two peers, as it is asked; each method may raise SilentError."""

    async def commit(self, row: int | None) -> bytes:
        """Its signed commitment to the states of a row; None: of the first that it finds wrong."""

    async def nodes_below(self, level: int, index: int) -> tuple[bytes, bytes]:
        """The two nodes below one node of its tree."""

    async def reveal(self, layer: int) -> tuple[bytes, bytes]:
        """A layer's state, and the path from its leaf to the root."""


@dataclass(slots=True)
class DisputeHearing:
    """One dispute while it goes on; `sides` are the prover and the challenger."""

    grounds: Grounds
    record: Dispute
    sides: Sequence[Side]

    async def hear(self) -> Dispute:
        """The record of all that was said, with who fell silent."""
        if disputes.misstated(self.grounds):
            return self.record
        try:
            challenger = await self._commit(CHALLENGER, None)
            prover = await self._commit(PROVER, challenger.record.row)
            await self._look(prover.record, challenger.record)
        except UnfitError as error:
            if error.side == PROVER:
                self.record = replace(self.record, prover_silent=True)
            else:
                self.record = replace(self.record, challenger_silent=True)
        return self.record

    async def _ask(self, side: int, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except SilentError as error:
            raise UnfitError(side, str(error)) from error

    async def _commit(self, side: int, row: int | None) -> Signed[Commitment]:
        raw = await self._ask(side, self.sides[side].commit(row))
        found = disputes.open_commitment(raw, side, self.grounds, row)
        if side == PROVER:
            self.record = replace(self.record, prover=found.raw)
        else:
            self.record = replace(self.record, challenger=found.raw)
        return found

    async def _look(self, prover: Commitment, challenger: Commitment) -> None:
        """What decides it: the prover's own outputs, or the first layer at which both differ."""
        grounds, root = self.grounds, prover.root
        for layer in disputes.output_layers(grounds.model):
            opening = await self._revealed(layer, root)
            self.record = replace(self.record, outputs=(*self.record.outputs, opening))
        outputs = self.record.outputs
        if disputes.contradicts_itself(grounds, outputs, prover.row) or root == challenger.root:
            return
        place = Descending.begin(prover.layers, (root, challenger.root))
        while place.layer is None:
            one, other = [
                await self._ask(side, self.sides[side].nodes_below(place.level, place.index))
                for side in (PROVER, CHALLENGER)
            ]
            place.go_down(one, other)
            step = Descent(
                prover_left=one[0],
                prover_right=one[1],
                challenger_left=other[0],
                challenger_right=other[1],
            )
            self.record = replace(self.record, steps=(*self.record.steps, step))
        made = grounds.model.layers[place.layer]
        for layer in () if made.operator == "input" else made.sources:
            opening = await self._revealed(layer, root)
            self.record = replace(self.record, sources=(*self.record.sources, opening))

    async def _revealed(self, layer: int, root: bytes) -> StateOpening:
        state, path = await self._ask(PROVER, self.sides[PROVER].reveal(layer))
        opening = StateOpening(layer=layer, state=state, path=path)
        layers = len(self.grounds.model.layers)
        disputes.check_opening(opening, layer, root, layers, PROVER)
        return opening
