"""One offer of a leg to one peer; its result is checked against the task."""

from collections.abc import Awaitable, Callable

import trio

from node.dispatch.directory import PeerDirectory
from node.dispatch.handoff import Handoff, LegResult
from node.engines.interface import Part
from node.task.events import EventSink, LegDone, Offered
from p2p import timeouts
from p2p.score import Offence
from p2p.typed_call import refused
from wire import limits
from wire.chain import open_receipts
from wire.content import PeerId
from wire.counting import counted
from wire.errors import Malformed, Refused, RemoteProtocolError
from wire.kinds import RefusalCode
from wire.message import Accept, Offer, Piece, Progress, Refuse, Result
from wire.tree import name_of

# A peer that neither accepts nor refuses within this is passed over.
ACCEPT_DEADLINE_S = 5.0


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
    began_at_s = trio.current_time()
    with counted(directory.under_way, peer) as at_once:
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
                        delivered = _checked(handoff, peer, message)
                        for receipt in delivered.receipts[handoff.stage :]:
                            on_event(LegDone(receipt))
                        directory.note_delivered(peer)
                        break
                    case _:
                        raise RemoteProtocolError("neither a piece nor a result")
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
