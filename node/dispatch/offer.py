"""One offer of a leg to one peer; its result is checked against the task."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from node.dispatch.begun import Begun
from node.dispatch.directory import PeerDirectory
from node.dispatch.handoff import Handoff, LegResult
from node.dispatch.order import Order, OrderedTask, OrderOutcome
from node.dispatch.resuming import check_built_on
from node.dispatch.standing_order import ACCEPT_DEADLINE_S
from node.engines.interface import Part
from node.paying.pricing import units_at_most
from node.task.events import EventSink, LegDone, Offered
from node.task.levels import proves
from p2p import timeouts
from p2p.score import Offence
from p2p.typed_call import refused
from wire import limits
from wire.chain import check_chain, doers_of
from wire.content import PeerId
from wire.counting import counted
from wire.errors import Malformed, Refused, RemoteProtocolError, WireError
from wire.kinds import RefusalCode
from wire.message import Accept, Offer, Piece, Refuse, Result
from wire.order import OrderPiece
from wire.receipt import Receipt
from wire.signed import Signed, open_signed
from wire.tree import name_of


async def offer_leg(
    directory: PeerDirectory,
    handoff: Handoff,
    peer: PeerId,
    on_event: EventSink,
    take: Callable[[Part], Awaitable[None]],
    deadline_at_s: float,
    begun: Begun | None = None,
) -> LegResult:
    """Offer the leg to one peer; returns its result, or raises the reason why there is none.

    A `begun` leg has this peer already, on an order.
    """
    began_at_s = trio.current_time() if begun is None else begun.began_at_s
    if begun is None and proves(handoff.leg):
        await _check_proves(directory, peer, deadline_at_s)
    begun_units = handoff.begun_units
    if handoff.bill is not None and begun is None and directory.payer is not None:
        most = units_at_most(handoff.leg, handoff.input, handoff.units)
        directory.payer.note_given(
            handoff.bill, peer, handoff.stage, handoff.leg, most, begun_units
        )

    async def show(part: Part) -> None:
        if handoff.bill is not None:
            handoff.bill.show(peer, part.position + part.units)
        await take(part)

    with counted(directory.under_way, peer) as at_once, _billed(handoff, peer):
        order, ordered = None, None
        if begun is not None:
            order, ordered = begun.order, begun.ordered
        elif directory.orders is not None and handoff.resume is None:
            left_s = deadline_at_s - began_at_s
            order = await directory.orders.at(peer, handoff, left_s, at_once)
        if order is None:
            delivered = await _by_conversation(
                directory, handoff, peer, on_event, show, deadline_at_s
            )
        else:
            if ordered is None:
                ordered = order.put(handoff, deadline_at_s)
            offered = begun is not None and begun.offered
            delivered = await _by_order(directory, order, ordered, on_event, show, offered=offered)
    took_s = trio.current_time() - began_at_s
    note_delivered(directory, handoff, peer, delivered, on_event, took_s, at_once, begun_units)
    return delivered


async def _check_proves(directory: PeerDirectory, peer: PeerId, deadline_at_s: float) -> None:
    """Refused if a peer knows no proofs: it would answer without one, and be called a liar."""
    if peer == directory.peers.me:
        return
    left_s = max(0.0, deadline_at_s - trio.current_time())
    version = await directory.peers.neighbours.version_of(peer, deadline_s=left_s)
    if version < limits.PROOFS_VERSION:
        raise Refused(
            f"it speaks version {version}, which makes no proofs", code=RefusalCode.UNSUPPORTED
        )


@contextmanager
def _billed(handoff: Handoff, peer: PeerId) -> Iterator[None]:
    """Charge what was shown of a leg that a peer does not finish; nothing if it broke the rules."""
    bill, is_done = handoff.bill, False
    try:
        yield
        is_done = True
    except (WireError, RemoteProtocolError):
        if bill is not None:
            bill.drop(peer)
        raise
    finally:
        if bill is not None and not is_done:
            bill.part(peer)


def note_delivered(
    directory: PeerDirectory,
    handoff: Handoff,
    peer: PeerId,
    delivered: LegResult,
    on_event: EventSink,
    took_s: float,
    at_once: int,
    begun_units: int = 0,
) -> None:
    """Note what a peer did, and how long it took with `at_once` legs of ours.

    Another peer had shown `begun_units` of it before.
    """
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
        units = max(1, leg.units - begun_units)
        # The peer divided its time among all legs that we gave it at once.
        each_s = took_s / at_once
        directory.measured.delivered(peer, leg.model, units, each_s, trio.current_time())


async def _by_conversation(
    directory: PeerDirectory,
    handoff: Handoff,
    peer: PeerId,
    on_event: EventSink,
    take: Callable[[Part], Awaitable[None]],
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
        resume=handoff.resume,
        avoid=(*sorted(handoff.avoid), *sorted(handoff.unpayable() - handoff.avoid))[
            : limits.AVOID_MAX
        ],
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
                    part = Part(message.position, message.units, message.data, message.segment)
                    await take(part)
                case Refuse():
                    raise refused(message)
                case Result():
                    return checked_result(
                        handoff, peer, message.receipts, message.output, message.source
                    )
                case _:
                    raise RemoteProtocolError("neither a piece nor a result")


async def _by_order(
    directory: PeerDirectory,
    order: Order,
    task: OrderedTask,
    on_event: EventSink,
    take: Callable[[Part], Awaitable[None]],
    *,
    offered: bool,
) -> LegResult:
    """Have the leg done as one task of a standing order."""
    handoff = task.handoff
    try:
        while True:
            heard = await task.hear()
            if isinstance(heard, OrderOutcome) and heard.refusal is not None:
                raise refused(heard.refusal)
            if not offered:
                offered = True
                on_event(Offered(handoff.stage, handoff.leg.role, order.peer))
            try:
                if isinstance(heard, OrderPiece):
                    await take(Part(heard.position, heard.units, heard.data, heard.segment))
                elif isinstance(heard, OrderOutcome):
                    return ordered_result(handoff, order.peer, heard)
            except (WireError, RemoteProtocolError):
                # It is what the peer says of this task that does not fit; others go on.
                directory.peers.offended(order.peer, Offence.MALFORMED)
                raise
    finally:
        order.leave(task)


def ordered_result(handoff: Handoff, peer: PeerId, outcome: OrderOutcome) -> LegResult:
    """What a task on an order came to, checked; WireError if it does not fit."""
    envelopes: list[bytes | Signed[Receipt]] = [*handoff.receipts]
    if outcome.receipt is not None:
        envelopes += [outcome.receipt, *outcome.later]
    return checked_result(handoff, peer, envelopes, outcome.output, outcome.source)


def checked_result(
    handoff: Handoff,
    peer: PeerId,
    envelopes: Sequence[bytes | Signed[Receipt]],
    output: bytes | None,
    source: bytes | None,
) -> LegResult:
    """The result, checked against the handoff; WireError if it does not fit.

    Receipts that were opened before are not opened again.
    """
    receipts = [it if isinstance(it, Signed) else open_signed(it, Receipt) for it in envelopes]
    check_chain(handoff.task, receipts)
    if len(receipts) != len(handoff.task.record.stages):
        raise Malformed(f"{len(receipts)} receipts for {len(handoff.task.record.stages)} legs")
    if tuple(receipts[: handoff.stage]) != handoff.receipts:
        raise Malformed("the receipts of earlier legs were changed")
    if receipts[handoff.stage].signer != peer:
        raise Malformed("the leg was signed by another peer than the one that took it")
    if any(it in handoff.avoid for leg in receipts[handoff.stage :] for it in doers_of(leg)):
        raise Malformed("a peer that was to be avoided signed a leg")
    last = receipts[-1].record
    if output is not None and name_of(output) != last.output:
        raise Malformed("the output is not the one its receipt names")
    if output is not None and handoff.is_last:
        check_built_on(receipts[-1], handoff.segments, output)
    if source is not None and name_of(source) != last.input:
        raise Malformed("the input is not the one that the last receipt names")
    return LegResult(receipts=tuple(receipts), output=output, source=source)
