"""Calling a peer at the places where others said it is, and whose fault it is when nothing comes.

Addresses that were heard may be of any kind: what cannot be dialled from here is passed over.
"""

from collections.abc import Sequence

import trio

from p2p.streams import StreamsInUse
from p2p.transport import Endpoint
from wire.content import PeerId
from wire.errors import InputError, TooSlow, TransportError, Unreachable

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
    return not isinstance(error, TooSlow) or (not heard and waited_s >= PATIENCE_S)


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
