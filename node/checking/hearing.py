"""Hears both sides of a dispute, and writes down what they say, until it is known who is wrong.

How a side is asked is its own matter: over the network, or in a test at once.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from node.evidence import disputes
from node.evidence.disputes import Descending, Grounds, UnfitError
from node.evidence.text_disputes import OwnStates, open_committed
from wire.content import PeerId
from wire.dispute import CHALLENGER, PROVER, Commitment, Descent, Dispute, StateOpening
from wire.receipt import Receipt
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
            self.record = replace(self.record, steps=(*self.record.steps, _step(one, other)))
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


@dataclass(frozen=True, slots=True)
class HeardWords:
    """What one side said of an exact answer in words, down to the first state that is another."""

    side: int
    committed: Signed[Commitment]
    steps: tuple[Descent, ...]
    place: Descending

    def written_in(self, record: Dispute) -> Dispute:
        """The record with it."""
        raw, is_prover = self.committed.raw, self.side == PROVER
        return replace(
            record,
            prover=raw if is_prover else None,
            challenger=None if is_prover else raw,
            steps=self.steps,
        )


async def hear_words(
    side: Side, number: int, whose: tuple[Signed[Receipt], PeerId], row: int, own: OwnStates
) -> HeardWords:
    """Hear a side that is known to be wrong; `own` is what the model gives.

    SilentError or UnfitError if it does not answer, or shows nothing that is another.
    """
    receipt, peer = whose
    committed = open_committed(await side.commit(row), peer, receipt, own)
    root = committed.record.root
    if root == own.states.root:
        raise SilentError("what it committed to is what the model gives")
    place = Descending.begin(own.count, (root, own.states.root))
    steps: list[Descent] = []
    while place.layer is None:
        here = own.states.nodes_below(place.level, place.index)
        there = await side.nodes_below(place.level, place.index)
        place.go_down(there, here)
        steps.append(_step(*((there, here) if number == PROVER else (here, there))))
    return HeardWords(number, committed, tuple(steps), place)


def _step(prover: tuple[bytes, bytes], challenger: tuple[bytes, bytes]) -> Descent:
    return Descent(
        prover_left=prover[0],
        prover_right=prover[1],
        challenger_left=challenger[0],
        challenger_right=challenger[1],
    )
