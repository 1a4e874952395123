"""Going on with a stream that another peer began: what the next one is given of it.

A peer that reads segments is given what others signed, and names it in its receipt; an older one is
given the bytes alone, and signs for all of them.
"""

from collections.abc import Sequence

from node.dispatch.handoff import Handoff
from node.dispatch.progress import StreamProgress
from p2p.peers import Peers
from p2p.timeouts import stretched
from wire import limits
from wire.chain import segments_of
from wire.content import PeerId
from wire.errors import Malformed, Refused, RemoteProtocolError, TransportError, WireError
from wire.receipt import Receipt
from wire.segment import Segment, standing
from wire.signed import Signed

VERSION_S = 5.0


async def reads_segments(peers: Peers, peer: PeerId) -> bool:
    """Whether a peer knows what others sign of a stream; one that does not say does not."""
    try:
        version = await peers.neighbours.version_of(peer, deadline_s=stretched(VERSION_S))
    except (Refused, TransportError, WireError, RemoteProtocolError):
        return False
    return version >= limits.SEGMENTS_VERSION


async def resumed(handoff: Handoff, shown: StreamProgress, peers: Peers, peer: PeerId) -> Handoff:
    """The handoff as a peer gets it that is to go on with what was shown."""
    has_segments = bool(shown.segments) and handoff.is_alone
    reads = has_segments and await reads_segments(peers, peer)
    return handoff.going_on(shown.begin(with_segments=reads), shown.given)


def check_built_on(
    receipt: Signed[Receipt], given: Sequence[Signed[Segment]], output: bytes
) -> None:
    """Malformed unless a receipt names the segments that its peer was given and built on.

    Else it would sign for the work of others, or they would answer for its own.
    """
    found = segments_of(receipt)
    due = standing(given, output)
    if tuple(it.id for it in found) != tuple(it.id for it in due):
        raise Malformed(
            f"the receipt names {len(found)} segments of others, where its output begins with"
            f" {len(due)} of those that its signer was given"
        )
