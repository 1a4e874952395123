"""Doing without a relay: by a direct call where there is a way, else by both ends calling at once.

What a relay carries costs its bandwidth and our money. A peer that was called through its relay
may find us open, and the other way round; then the direct call costs nothing. So it is with a peer
of which the local network tells once a relay carries for the two of us. Where both are behind
routers and much moved over a line of ours, both ends try to call each other at once, an hour apart
at least. Where routers do not let that through nothing changes.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from p2p.ip_address import host_of, is_public, is_relayed
from p2p.peer_rpc import PeerRpc
from p2p.relay_limits import PAIR_S, PAIRS_KEPT
from p2p.relaying import Relaying
from p2p.timeouts import stretched
from wire.content import PeerId
from wire.errors import InputError, TransportError
from wire.latest import Latest

LOOK_S = 1.0
# What a try costs in packets and handshakes is a few kilobytes.
PUNCH_AFTER_BYTES = 64 << 10
PUNCH_DEADLINE_S = 12.0
# The line is left when no conversation is under way; who is never quiet keeps it.
QUIET_S, QUIET_LOOK_S = 300.0, 0.05


@dataclass(slots=True)
class Punching:
    """Watches the connections of one peer that a relay passes on."""

    rpc: PeerRpc
    relaying: Relaying
    # Where the local network says that a peer is.
    nearby: Callable[[PeerId], tuple[str, ...]] = lambda _peer: ()
    tried: int = 0
    made: int = 0
    # When a peer, or an address of the local network, was called last.
    _called_at_s: Latest[str, float] = field(default_factory=lambda: Latest(PAIRS_KEPT))

    async def keep_up_forever(self) -> None:
        """Try to replace such connections, until cancelled."""
        endpoint = self.rpc.endpoint
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(LOOK_S)
                for peer, line in endpoint.lines().items():
                    if not endpoint.is_relayed(peer):
                        # It is connected directly too.
                        continue
                    much = line.dialed and line.moved_bytes >= PUNCH_AFTER_BYTES
                    if (address := self._direct(peer)) is not None:
                        deadline_s = stretched(self.rpc.dial_deadline_s)
                        call = partial(endpoint.connect_beside, address, deadline_s=deadline_s)
                        nursery.start_soon(self._replace, peer, call)
                    elif much and self.relaying.may_punch(peer):
                        self.tried += 1
                        deadline_s = stretched(PUNCH_DEADLINE_S)
                        call = partial(endpoint.punch, peer, deadline_s=deadline_s)
                        nursery.start_soon(self._replace, peer, call)

    def _direct(self, peer: PeerId) -> str | None:
        """Where the peer itself may be reached, by the local network's word or its own.

        Each address of the first kind is called once an hour, and each peer at its own word.
        """
        now_at_s = trio.current_time()
        for address in self.nearby(peer):
            if self._is_due(address, now_at_s):
                return address
        advert = self.rpc.view.advert_of(peer)
        said = () if advert is None else advert.record.addresses
        direct = tuple([it for it in said if is_public(host_of(it)) and not is_relayed(it)])
        # Else one that says other addresses again and again would have us call them all.
        if not direct or not self._is_due(str(peer), now_at_s):
            return None
        open_now = self.rpc.dialing.to_call(peer, direct, now_at_s)
        return next((it for it in direct if it in open_now), None)

    def _is_due(self, whom: str, now_at_s: float) -> bool:
        """Whether it was not called within the hour; if so, it counts as called now."""
        last_at_s = self._called_at_s.get(whom)
        if last_at_s is not None and now_at_s < last_at_s + PAIR_S:
            return False
        self._called_at_s[whom] = now_at_s
        return True

    async def _replace(self, peer: PeerId, call: Callable[[], Awaitable[None]]) -> None:
        """Leave the line to a peer once this call has ended in a direct connection."""
        endpoint = self.rpc.endpoint
        try:
            await call()
        except (TransportError, InputError) as error:
            self.rpc.note_problem(f"direct connection to {peer}", error.message)
            return
        self.made += peer in endpoint.punched()
        with trio.move_on_after(QUIET_S):
            while self.rpc.in_calls[peer]:
                await trio.sleep(QUIET_LOOK_S)
            if endpoint.is_connected(peer) and not endpoint.is_relayed(peer):
                await endpoint.leave_line(peer)

    def as_map(self) -> dict[str, object]:
        """How many lines were tried to be replaced, and who is connected so, for `status`."""
        return {
            "punches_tried": self.tried,
            "punches_made": self.made,
            "punched": [str(it) for it in sorted(self.rpc.endpoint.punched())],
        }
