"""Asking a few peers at once how long a leg would take them. An answer binds nobody."""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from node.dispatch.handoff import Handoff
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire import limits
from wire.content import PeerId
from wire.errors import BatonError, Refused, RemoteProtocolError, TooSlow, TransportError, WireError
from wire.message import Quote, Quoted

QUOTE_DEADLINE_S = 1.0
# The wait for further answers, as a multiple of the time that the first one took.
PATIENCE_SHARE = 4.0
PATIENCE_S_MIN = 0.05


@dataclass(frozen=True, slots=True)
class QuoteReply:
    """One peer's answer: seconds from now until it would be done, or why it refuses."""

    peer: PeerId
    expected_s: float = 0.0
    round_trip_s: float = 0.0
    error: BatonError | None = None


async def quotes(
    peers: Peers, asked: Sequence[PeerId], handoff: Handoff, units: int, left_s: float
) -> list[QuoteReply]:
    """The answers that came in time, in order of arrival; silent peers are left out."""
    stage = handoff.leg
    quote = Quote(
        role=stage.role,
        operation=stage.operation,
        model=stage.model,
        units=min(units, 2**62),
        deadline_ms=max(1, min(int(left_s * 1000), limits.DEADLINE_S_MAX * 1000)),
    )
    answers: list[QuoteReply] = []
    began_at_s = trio.current_time()
    quote_s = stretched(QUOTE_DEADLINE_S)
    with trio.move_on_after(min(quote_s, left_s)) as scope:
        async with trio.open_nursery() as nursery:

            async def ask(peer: PeerId) -> None:
                answer = await _ask(peers, peer, quote)
                if answer is None:
                    return
                answers.append(answer)
                if answer.error is None:
                    now_at_s = trio.current_time()
                    patience_s = max(PATIENCE_S_MIN, PATIENCE_SHARE * (now_at_s - began_at_s))
                    scope.deadline = min(scope.deadline, now_at_s + patience_s)

            for peer in asked:
                nursery.start_soon(ask, peer)
    return answers


async def _ask(peers: Peers, peer: PeerId, quote: Quote) -> QuoteReply | None:
    try:
        async with peers.call(peer, deadline_s=stretched(QUOTE_DEADLINE_S)) as call:
            began_at_s = trio.current_time()
            await call.send(quote)
            quoted = await call.expect(Quoted)
    except TooSlow:
        return None
    except (Refused, TransportError, WireError, RemoteProtocolError) as error:
        return QuoteReply(peer, error=error)
    round_trip_s = trio.current_time() - began_at_s
    return QuoteReply(peer, quoted.expected_ms / 1000 + round_trip_s, round_trip_s)
