"""Serving offers: one leg, and those after it, in a conversation of its own; and quotes for legs.

Many tasks of one asker come by a standing order (`node.serving.order_server`).
"""

from dataclasses import dataclass

import trio

from node.dispatch.handoff import Handoff
from node.engines.interface import Part
from node.serving.lease import Holder
from node.serving.leg_server import LegServer
from node.serving.role import LegWork
from node.task.units import streamed_max
from p2p.typed_call import TypedCall, refusal_of
from wire.chain import open_receipts
from wire.content import PeerId
from wire.counting import counted
from wire.errors import (
    EngineError,
    Malformed,
    Refused,
    RemoteProtocolError,
    StoreError,
    TaskFailed,
    TransportError,
    WireError,
)
from wire.message import Accept, Message, Offer, Piece, Quote, Quoted, Result
from wire.segment import Segment, end_of, open_segments, standing
from wire.signed import Signed, open_signed
from wire.task import Stage, Task

# The most legs of one holder, so that there is room for other holders.
LEGS_PER_HOLDER = 48


@dataclass(slots=True)
class OfferServer:
    """Answers offers and quotes for one peer's leg server."""

    legs: LegServer

    async def on_offer(self, call: TypedCall, message: Message) -> None:
        """Answer an Offer: accept and deliver, or refuse."""
        assert isinstance(message, Offer)
        task = open_signed(message.task, Task)
        before = open_receipts(task, message.receipts)
        if len(before) != message.stage or message.stage >= len(task.record.stages):
            raise RemoteProtocolError("the offer has not a receipt for each leg before it")
        shown_units = message.resume.units if message.resume is not None else 0
        if shown_units > streamed_max(task.record.stages[-1]):
            raise RemoteProtocolError("more was shown than the last leg has")
        segments = _segments_shown(task, message, call.peer)
        handoff = Handoff(
            task=task,
            receipts=tuple(before),
            input=message.input,
            units=message.units,
            resume=message.resume,
            segments=segments,
            avoid=frozenset(message.avoid),
        )
        deadline_at_s = trio.current_time() + message.deadline_ms / 1000
        try:
            if self.legs.holders[call.peer] >= LEGS_PER_HOLDER:
                raise Refused("too many legs of yours under way", retry_after_s=0.5)
            lease = self.legs.take(handoff, call.peer, deadline_at_s)
        except Refused as error:
            await call.send(refusal_of(error))
            return

        there = True

        async def relay(part: Part) -> None:
            nonlocal there
            try:
                if there:
                    piece = Piece(
                        position=part.position,
                        units=part.units,
                        data=part.data,
                        segment=part.segment,
                    )
                    await call.send(piece)
            except TransportError:
                # The holder disconnected. The leg is still finished, in case the holder returns.
                there = False

        with counted(self.legs.holders, call.peer):
            try:
                await call.send(Accept(expected_ms=int(lease.expected_s * 1000)))
                holder = Holder(call.peer, call)
                found = await self.legs.serve(handoff, lease, holder, relay, deadline_at_s)
            except (Refused, EngineError, StoreError, TaskFailed, TransportError) as error:
                await call.send(refusal_of(error))
                return
            finally:
                lease.release()
        receipts = tuple(it.raw for it in found.receipts)
        await call.send(Result(receipts=receipts, output=found.output, source=found.source))

    async def on_quote(self, call: TypedCall, message: Message) -> None:
        """Answer a Quote: how long a leg would take if offered now, or the refusal it would get."""
        assert isinstance(message, Quote)
        try:
            role = self.legs.role_of(message.role)
            if self.legs.holders[call.peer] >= LEGS_PER_HOLDER:
                raise Refused("too many legs of yours under way", retry_after_s=0.5)
            stage = _stage_of(message)
            work = LegWork(
                stage=stage,
                asker=call.peer,
                by=call.peer,
                units=max(1, message.units),
                left_s=message.deadline_ms / 1000,
            )
            expected_s = role.quote(work)
        except Refused as error:
            await call.send(refusal_of(error))
            return
        await call.send(Quoted(expected_ms=int(expected_s * 1000)))


def _segments_shown(
    task: Signed[Task], message: Offer, holder: PeerId
) -> tuple[Signed[Segment], ...]:
    """What others signed of a stream that is to be gone on with; it is of what was shown."""
    resume = message.resume
    if resume is None or not resume.segments:
        return ()
    if holder != task.signer or len(task.record.stages) != 1:
        raise RemoteProtocolError("segments are given by who asked, of a task of one leg")
    segments = open_segments(task.id, message.stage, resume.segments)
    if end_of(segments) > resume.units or standing(segments, resume.data) != tuple(segments):
        raise Malformed("what was signed of the stream is not what was shown of it")
    return tuple(segments)


def _stage_of(quote: Quote) -> Stage:
    """The stage that is asked about; RemoteProtocolError if no such stage is legal."""
    try:
        return Stage(role=quote.role, operation=quote.operation, model=quote.model, parameters={})
    except WireError as error:
        raise RemoteProtocolError(f"a quote for no stage: {error.message}") from error
