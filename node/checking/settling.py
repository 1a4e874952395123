"""Settles a dispute between two peers over the network: the asker is the referee.

It has both commit to what each layer gave, goes down both trees, computes one layer, and signs the
record of all that was said. Who does not answer by the deadline has lost.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from node.checking import disputes
from node.checking.disputes import Descending, Grounds, Judgement, UnfitError
from node.checking.quorum import CheckRequest
from p2p.peers import Peers
from p2p.timeouts import stretched
from p2p.typed_call import M, TypedCall
from wire import limits
from wire.content import PeerId
from wire.dispute import (
    CHALLENGER,
    PROVER,
    Children,
    Commitment,
    Committed,
    Contest,
    Descend,
    Descent,
    Dispute,
    Opening,
    Reveal,
    Revealed,
    Settled,
)
from wire.errors import Refused, RemoteProtocolError, TransportError, WireError
from wire.message import Message
from wire.receipt import Verdict
from wire.signed import Signed, open_signed, sign

# Both compute one row of a model that is proved to be small; a guess with room for a busy machine.
DISPUTE_S = 30.0
# Who is busy with other disputes is asked again after these, and then no more.
BUSY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, None)
_SILENCE = (TransportError, WireError, RemoteProtocolError, Refused)


class _LostError(Exception):
    """A side did not answer, or not what fits. Never leaves this file."""

    def __init__(self, side: int, why: str) -> None:
        super().__init__(why)
        self.side = side


@dataclass(frozen=True, slots=True, kw_only=True)
class Contested:
    """A leg that two peers disagree about, with all that is needed to look into it."""

    claimed: CheckRequest
    verdict: Signed[Verdict]
    manifest: bytes
    model_data: bytes = field(repr=False)
    input: bytes = field(repr=False)
    output: bytes = field(repr=False)


@dataclass(slots=True)
class Settling:
    """Settles disputes for one peer, one at a time each."""

    peers: Peers

    async def settle(self, contested: Contested) -> tuple[Signed[Dispute], Judgement]:
        """Hear both sides. WireError or ModelRefused if there is nothing to dispute."""
        receipt = contested.claimed.receipt
        grounds = await trio.to_thread.run_sync(
            disputes.check_grounds,
            contested.manifest,
            receipt.raw,
            contested.verdict.raw,
            contested.model_data,
            contested.input,
            contested.output,
        )
        hearing = _Hearing(self.peers, contested, grounds, _empty(contested))
        record = await hearing.run(trio.current_time() + stretched(DISPUTE_S))
        settled_at_ms = int(self.peers.environment.wall_s() * 1000)
        signed = sign(replace(record, settled_at_ms=settled_at_ms), self.peers.key)
        # As anybody else will judge it: the record is what counts, not what we remember.
        _, found = await trio.to_thread.run_sync(
            disputes.judge, signed, contested.model_data, contested.input, contested.output
        )
        return signed, found


def _empty(contested: Contested) -> Dispute:
    small = limits.INLINE_BYTES_MAX
    return Dispute(
        manifest=contested.manifest,
        receipt=contested.claimed.receipt.raw,
        verdict=contested.verdict.raw,
        input=contested.input if len(contested.input) <= small else None,
        output=contested.output if len(contested.output) <= small else None,
        prover=None,
        challenger=None,
        outputs=(),
        steps=(),
        sources=(),
        prover_silent=False,
        challenger_silent=False,
        settled_at_ms=0,
    )


@dataclass(slots=True)
class _Hearing:
    """One dispute while it goes on."""

    peers: Peers
    contested: Contested
    grounds: Grounds
    record: Dispute
    deadline_at_s: float = 0.0
    calls: list[TypedCall] = field(default_factory=list)

    async def run(self, deadline_at_s: float) -> Dispute:
        """Ask until it is known who is wrong, or a side falls silent."""
        self.deadline_at_s = deadline_at_s
        try:
            async with AsyncExitStack() as stack:
                await self._hear(stack)
        except _LostError as error:
            if error.side == PROVER:
                self.record = replace(self.record, prover_silent=True)
            else:
                self.record = replace(self.record, challenger_silent=True)
        return self.record

    async def _hear(self, stack: AsyncExitStack) -> None:
        try:
            row = await self._commit(stack, CHALLENGER, None)
            await self._commit(stack, PROVER, row)
            await self._look(row)
        except UnfitError as error:
            # As it is, it would count against both conversations that it leaves.
            raise _LostError(error.side, error.message) from error
        for call in self.calls:
            await self._end(call)

    async def _commit(self, stack: AsyncExitStack, side: int, row: int | None) -> int:
        """Open a conversation with one side and have its commitment; the row it is about."""
        peer = (self.grounds.receipt.signer, self.grounds.verdict.signer)[side]
        for pause_s in BUSY_PAUSES_S:
            call = await stack.enter_async_context(self._call(peer, side))
            try:
                raw = await self._committed(call, side, row)
                break
            except Refused as error:
                # Who is busy is asked again, until there is no time.
                if error.retry_after_s is None or pause_s is None:
                    raise _LostError(side, error.message) from error
                await trio.sleep(pause_s)
        found = disputes.open_commitment(raw, side, self.grounds, row)
        self.calls.insert(0, call)
        if side == PROVER:
            self.record = replace(self.record, prover=found.raw)
        else:
            self.record = replace(self.record, challenger=found.raw)
        return found.record.row

    @asynccontextmanager
    async def _call(self, peer: PeerId, side: int) -> AsyncIterator[TypedCall]:
        left_s = max(0.1, self.deadline_at_s - trio.current_time())
        opened = False
        try:
            async with self.peers.call(peer, deadline_s=left_s) as call:
                opened = True
                yield call
        except _SILENCE as error:
            if opened:
                raise
            raise _LostError(side, error.message) from error

    async def _committed(self, call: TypedCall, side: int, row: int | None) -> bytes:
        claimed = self.contested.claimed
        contest = Contest(
            task=claimed.task.raw,
            receipts=tuple(it.raw for it in claimed.receipts),
            input=self.record.input,
            output=self.record.output,
            row=row,
            deadline_ms=max(1, int(1000 * (self.deadline_at_s - trio.current_time()))),
        )
        try:
            await call.send(contest)
            return (await call.expect(Committed)).commitment
        except (TransportError, WireError, RemoteProtocolError) as error:
            raise _LostError(side, error.message) from error

    async def _ask(self, side: int, question: Message, kind: type[M]) -> M:
        call = self.calls[side]
        try:
            await call.send(question)
            return await call.expect(kind)
        except _SILENCE as error:
            raise _LostError(side, error.message) from error

    async def _end(self, call: TypedCall) -> None:
        """Say that it is over; whoever does not hear it any more finds out by itself."""
        try:
            await call.send(Settled(lost=False))
        except TransportError:
            return

    async def _look(self, row: int) -> None:
        """What decides it: the prover's own outputs, or the first layer at which both differ."""
        grounds, record = self.grounds, self.record
        layers = len(grounds.model.layers)
        assert record.prover is not None
        assert record.challenger is not None
        roots = tuple(_root(it) for it in (record.prover, record.challenger))
        for layer in disputes.output_layers(grounds.model):
            opening = await self._revealed(layer, roots[0], layers)
            self.record = replace(self.record, outputs=(*self.record.outputs, opening))
        if disputes.contradicts_itself(grounds, self.record.outputs, row) or roots[0] == roots[1]:
            return
        place = Descending.begin(layers, (roots[0], roots[1]))
        while place.layer is None:
            question = Descend(level=place.level, index=place.index)
            pairs = [await self._ask(side, question, Children) for side in (PROVER, CHALLENGER)]
            step = Descent(
                prover_left=pairs[0].left,
                prover_right=pairs[0].right,
                challenger_left=pairs[1].left,
                challenger_right=pairs[1].right,
            )
            place.step(*disputes.pairs_of(step))
            self.record = replace(self.record, steps=(*self.record.steps, step))
        made = grounds.model.layers[place.layer]
        if made.operator != "input":
            for layer in made.sources:
                opening = await self._revealed(layer, roots[0], layers)
                self.record = replace(self.record, sources=(*self.record.sources, opening))

    async def _revealed(self, layer: int, root: bytes, layers: int) -> Opening:
        found = await self._ask(PROVER, Reveal(layer=layer), Revealed)
        opening = Opening(layer=layer, state=found.state, path=found.path)
        disputes.check_opening(opening, layer, root, layers, PROVER)
        return opening


def _root(raw: bytes) -> bytes:
    return open_signed(raw, Commitment).record.root
