"""One offer of a leg to one peer; its result is checked against the task."""

from collections.abc import Awaitable, Callable

import trio

from node.dispatch.directory import PeerDirectory
from node.dispatch.handoff import Handoff, LegResult
from node.dispatch.order import ACCEPT_DEADLINE_S, Order
from node.engines.interface import Part
from node.task.events import EventSink, LegDone, Offered
from p2p import timeouts
from p2p.score import Offence
from p2p.typed_call import refused
from wire import limits
from wire.chain import open_receipts
from wire.content import PeerId
from wire.counting import counted
from wire.errors import Malformed, Refused, RemoteProtocolError, WireError
from wire.kinds import RefusalCode
from wire.message import Accept, Offer, Piece, Progress, Refuse, Result
from wire.order import OrderPiece, OrderRefusal, TaskOutcome
from wire.tree import name_of


async def offer_leg(
    directory: PeerDirectory,
    handoff: Handoff,
    peer: PeerId,
    on_event: EventSink,
    take: Callable[[Part], Awaitable[None]],
    resume: Progress | None,
    deadline_at_s: float,
) -> LegResult:
    """Offer the leg to one peer; returns its result, or raises the reason why there is none."""
    began_at_s = trio.current_time()
    with counted(directory.under_way, peer) as at_once:
        order = None
        if directory.orders is not None and resume is None:
            left_s = deadline_at_s - began_at_s
            order = await directory.orders.at(peer, handoff, left_s, at_once)
        if order is None:
            delivered = await _by_conversation(
                directory, handoff, peer, on_event, take, resume, deadline_at_s
            )
        else:
            delivered = await _by_order(directory, order, handoff, on_event, take, deadline_at_s)
        for receipt in delivered.receipts[handoff.stage :]:
            on_event(LegDone(receipt))
        directory.note_delivered(peer)
    directory.measured.did(peer, handoff.leg.model)
    directory.sitting.delivered(peer)
    directory.trials.delivered()
    # A flood of new keys in the view must not push out peers that work for us.
    directory.peers.view.keep(peer)
    leg = delivered.receipts[-1].record
    if handoff.is_last and not leg.reused:
        begun = resume.units if resume is not None else 0
        # The peer divided its time among all legs that we gave it at once.
        took_s = (trio.current_time() - began_at_s) / at_once
        units = max(1, leg.units - begun)
        directory.measured.delivered(peer, leg.model, units, took_s, trio.current_time())
    return delivered


async def _by_conversation(
    directory: PeerDirectory,
    handoff: Handoff,
    peer: PeerId,
    on_event: EventSink,
    take: Callable[[Part], Awaitable[None]],
    resume: Progress | None,
    deadline_at_s: float,
) -> LegResult:
    """Offer the leg in a conversation of its own."""
    left_s = deadline_at_s - trio.current_time()
    offer = Offer(
        task=handoff.task.raw,
        stage=handoff.stage,
        receipts=tuple(it.raw for it in handoff.receipts),
        input=handoff.input,
        deadline_ms=max(1, int(left_s * 1000)),
        units=handoff.units,
        resume=resume,
        avoid=tuple(sorted(handoff.avoid))[: limits.AVOID_MAX],
    )
    async with directory.peers.call(peer, deadline_s=left_s) as call:
        await call.send(offer)
        with timeouts.move_on_after(ACCEPT_DEADLINE_S) as patience:
            await call.expect(Accept)
        if patience.cancelled_caught:
            if handoff.is_own:
                directory.peers.offended(peer, Offence.SLOW)
            raise Refused(
                f"no answer to the offer within {ACCEPT_DEADLINE_S:.0f} s",
                code=RefusalCode.FAILED,
            )
        on_event(Offered(handoff.stage, handoff.leg.role, peer))
        while True:
            match message := await call.receive():
                case Piece():
                    await take(Part(message.position, message.units, message.data))
                case Refuse():
                    raise refused(message)
                case Result():
                    return _checked(handoff, peer, message)
                case _:
                    raise RemoteProtocolError("neither a piece nor a result")


async def _by_order(
    directory: PeerDirectory,
    order: Order,
    handoff: Handoff,
    on_event: EventSink,
    take: Callable[[Part], Awaitable[None]],
    deadline_at_s: float,
) -> LegResult:
    """Have the leg done as one task of a standing order."""
    task = order.put(handoff, deadline_at_s)
    offered = False
    try:
        while True:
            heard = await task.hear()
            if isinstance(heard, TaskOutcome) and heard.refusal is not None:
                raise _refused(heard.refusal)
            if not offered:
                offered = True
                on_event(Offered(handoff.stage, handoff.leg.role, order.peer))
            try:
                if isinstance(heard, OrderPiece):
                    await take(Part(heard.position, heard.units, heard.data))
                elif isinstance(heard, TaskOutcome):
                    receipts = () if heard.receipt is None else (heard.receipt,)
                    result = Result(receipts=receipts, output=heard.output, source=None)
                    return _checked(handoff, order.peer, result)
            except (WireError, RemoteProtocolError):
                # It is what the peer says of this task that does not fit; others go on.
                directory.peers.offended(order.peer, Offence.MALFORMED)
                raise
    finally:
        order.leave(task)


def _refused(refusal: OrderRefusal) -> Refused:
    wait_ms = refusal.retry_after_ms
    return Refused(
        refusal.reason,
        code=refusal.cause,
        retry_after_s=None if wait_ms is None else wait_ms / 1000,
    )


def _checked(handoff: Handoff, peer: PeerId, result: Result) -> LegResult:
    """The result, checked against the handoff; WireError if it does not fit."""
    receipts = open_receipts(handoff.task, result.receipts)
    if len(receipts) != len(handoff.task.record.stages):
        raise Malformed(f"{len(receipts)} receipts for {len(handoff.task.record.stages)} legs")
    if tuple(receipts[: handoff.stage]) != handoff.receipts:
        raise Malformed("the receipts of earlier legs were changed")
    if receipts[handoff.stage].signer != peer:
        raise Malformed("the leg was signed by another peer than the one that took it")
    if any(it.signer in handoff.avoid for it in receipts[handoff.stage :]):
        raise Malformed("a peer that was to be avoided signed a leg")
    last = receipts[-1].record
    if result.output is not None and name_of(result.output) != last.output:
        raise Malformed("the output is not the one its receipt names")
    source = result.source
    if source is not None and name_of(source) != last.input:
        raise Malformed("the input is not the one that the last receipt names")
    return LegResult(receipts=tuple(receipts), output=result.output, source=source)
