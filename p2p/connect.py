"""Connecting to a peer at the addresses that were heard, and deciding whose fault a failure is.

Addresses that were heard may be of any kind: those that cannot be dialled from here are skipped.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio

from p2p.dialing import Dial
from p2p.ip_address import is_relayed, relay_of
from p2p.streams import StreamsInUse
from p2p.timeouts import stretched
from p2p.transport import Endpoint, WrongPeer
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

# The errors that a call to a peer may raise.
TROUBLES = (TransportError, WireError, RemoteProtocolError, Refused)
# All bootstraps are called at the same time; after the first answer the others have so long.
OTHERS_S = 1.0

# A stranger's task may set short deadlines, which must not make honest peers look silent. This is
# less than a ping waits, and more than a busy peer takes for its first message.
PATIENCE_S = 4.0


class NotCalled(Unreachable):
    """A peer is not called: no address is known yet, or others spoiled it. It is not its fault."""


def is_its_fault(error: TransportError, waited_s: float, *, heard: bool) -> bool:
    """Whether a peer is to blame that a call to it ended in `error`.

    A peer is to blame for a timeout if it had PATIENCE_S and sent nothing. If it sent something
    (`heard`), only the caller knows whether the peer was too slow.
    """
    if isinstance(error, StreamsInUse | NotCalled):
        return False
    return not isinstance(error, TooSlow) or (not heard and waited_s >= stretched(PATIENCE_S))


def free(_relay: str) -> float:
    """As `relay_cost` of `connect`, where no relay asks for anything."""
    return 0.0


async def connect(
    endpoint: Endpoint,
    peer: PeerId,
    addresses: Sequence[str],
    deadline_s: float,
    relay_cost: Callable[[str], float] = free,
) -> None:
    """Connect to `peer` at the first address that answers; TransportError if none answers.

    Addresses behind relays come last: the cheapest first, by `relay_cost` of the id of each relay
    in text, and of those that cost the same first those whose relay is connected.
    WrongPeer, with the address, is told before others: it says something of the address for good.
    """
    deadline_at_s = trio.current_time() + deadline_s
    trouble: TransportError = NotCalled(f"no address is known for {peer.short}")
    near = {str(it) for it in endpoint.connected()} if any(map(is_relayed, addresses)) else set()

    def rank(address: str) -> tuple[bool, float, bool]:
        if not is_relayed(address):
            return False, 0.0, False
        relay = relay_of(address)
        return True, relay_cost(relay), relay not in near

    addresses = sorted(addresses, key=rank)
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share_s = max(0.0, deadline_at_s - trio.current_time()) / left
        try:
            await endpoint.connect_peer(peer, (address,), deadline_s=share_s)
        except InputError as error:
            trouble = Unreachable(error.message)
        except TransportError as error:
            if not isinstance(trouble, WrongPeer):
                trouble = error
            if isinstance(error, WrongPeer):
                error.address = address
        else:
            return
    raise trouble


async def call_all(
    call: Callable[[Dial], Awaitable[PeerId]], dials: Sequence[Dial]
) -> list[BatonError]:
    """Call all at the same time, until one has answered and the others had a moment; the errors."""
    troubles: list[BatonError] = []

    async def one(dial: Dial) -> None:
        try:
            await call(dial)
        except Refused as error:
            # An error of a peer that was not reached already names the place.
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
