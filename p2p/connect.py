"""Calling a peer at the places where others said it is, and whose fault it is when nothing comes.

Addresses that were heard may be of any kind: what cannot be dialled from here is passed over.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio

from p2p.dialing import Dial
from p2p.streams import StreamsInUse
from p2p.timeouts import stretched
from p2p.transport import Endpoint
from wire.content import PeerId
from wire.errors import (
    BatonError,
    InputError,
    Refused,
    RemoteProtocolError,
    TooSlow,
    TransportError,
    Unreachable,
    WireError,
)

# What can come of talking to a peer, besides an answer.
TROUBLES = (TransportError, WireError, RemoteProtocolError, Refused)
# Bootstraps are called at once; after the first answer the others have so long.
OTHERS_S = 1.0

# A stranger's task sets our deadlines too, and must not make honest peers look silent. Less than a
# ping waits, more than a busy peer takes for its first word.
PATIENCE_S = 4.0


def is_its_fault(error: TransportError, waited_s: float, *, heard: bool) -> bool:
    """Whether a peer is to blame that a conversation with it ended in `error`.

    Time that ran out says something of a peer that had PATIENCE_S and did not say a word; of one
    that was `heard`, only who knows what was asked of it can judge.
    """
    if isinstance(error, StreamsInUse):
        return False
    return not isinstance(error, TooSlow) or (not heard and waited_s >= stretched(PATIENCE_S))


async def connect(
    endpoint: Endpoint, peer: PeerId, addresses: Sequence[str], deadline_s: float
) -> None:
    """Connect to `peer` at the first address that answers; TransportError when none does."""
    deadline_at_s = trio.current_time() + deadline_s
    trouble: TransportError = Unreachable(f"no address is known for {peer.short}")
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share_s = max(0.0, deadline_at_s - trio.current_time()) / left
        try:
            await endpoint.connect_peer(peer, (address,), deadline_s=share_s)
        except InputError as error:
            trouble = Unreachable(error.message)
        except TransportError as error:
            trouble = error
        else:
            return
    raise trouble


async def call_all(
    call: Callable[[Dial], Awaitable[PeerId]], dials: Sequence[Dial]
) -> list[BatonError]:
    """Call all at once, until one has answered and the others had a moment; what failed."""
    troubles: list[BatonError] = []

    async def one(dial: Dial) -> None:
        try:
            await call(dial)
        except Refused as error:
            # Only who could not be reached is named by its trouble.
            place = dial.addresses[0].partition("/p2p/")[0]
            troubles.append(Refused(f"{place}: {error.message}", code=error.code))
        except TROUBLES as error:
            troubles.append(error)
        else:
            scope = calls.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + OTHERS_S)

    async with trio.open_nursery() as calls:
        for dial in dials:
            calls.start_soon(one, dial)
    return troubles
