"""Lines of this peer's own to whom it asks for much: who asks for a line pays for all of it.

A peer that is called through a relay may call back over the same line, and the other end pays. A
little of that is usual; beyond it the other end leaves the line (`node.paying.uncalled_bytes`), and
tasks break with what is fetched. So before that a second line is asked for here, and whatever this
peer calls for goes over it.
"""

from dataclasses import dataclass, field

import trio

from node.paying.relay_bytes import DEAR
from p2p.ip_address import CIRCUIT, relay_of
from p2p.peer_rpc import PeerRpc
from p2p.timeouts import stretched
from p2p.token_bucket import TokenBuckets
from p2p.transport import Lined
from wire.content import PeerId
from wire.errors import InputError, TransportError
from wire.latest import Latest

LOOK_S = 0.25
# So much is called for, at once and a second, over a line that the other end pays: a part of what
# the other end lets a peer fetch.
OWN_AFTER_BYTES, OWN_AFTER_BYTES_PER_S = 16 << 20, 32 << 10
AGAIN_S, PEERS_KEPT = 60.0, 256


@dataclass(slots=True)
class OwnLines:
    """Asks for such lines, as far as this peer pays relays."""

    rpc: PeerRpc
    _called: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(OWN_AFTER_BYTES, OWN_AFTER_BYTES_PER_S, PEERS_KEPT)
    )
    # What was called for over each line when it was looked at last.
    _before: Latest[PeerId, int] = field(default_factory=lambda: Latest(PEERS_KEPT))
    _tried_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(PEERS_KEPT))

    async def run(self) -> None:
        """Look at the lines that others asked for, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(LOOK_S)
                now_at_s = trio.current_time()
                for peer, line in self.rpc.endpoint.lines().items():
                    if line.dialed or not self._is_due(peer, line, now_at_s):
                        continue
                    if (address := self._address(peer)) is not None:
                        self._tried_at_s[peer] = now_at_s
                        nursery.start_soon(self._call, peer, address)

    def _is_due(self, peer: PeerId, line: Lined, now_at_s: float) -> bool:
        """Whether much was called for over a line that the other end pays."""
        before, self._before[peer] = self._before.get(peer, 0), line.called_bytes
        more = line.called_bytes - before
        self._called.spend(peer.hex(), more if more >= 0 else line.called_bytes, now_at_s)
        last_at_s = self._tried_at_s.get(peer, -AGAIN_S)
        return (
            self._called.wait_s(peer.hex(), now_at_s) > 0.0
            and now_at_s >= last_at_s + AGAIN_S
            and self.rpc.relay_cost(str(line.relay)) > 0.0
        )

    def _address(self, peer: PeerId) -> str | None:
        """Where a second line to `peer` is asked for: by the cheapest relay that is paid."""
        cost = self.rpc.relay_cost
        # An advert may name another peer, this one among them.
        said = (it for it in self.rpc.to_call(peer) if it.endswith(f"{CIRCUIT}/p2p/{peer}"))
        costs = {it: cost(relay_of(it)) for it in said}
        best = min(costs, key=costs.__getitem__, default=None)
        return None if best is None or costs[best] >= DEAR else best

    async def _call(self, peer: PeerId, address: str) -> None:
        deadline_s = stretched(self.rpc.dial_deadline_s)
        try:
            await self.rpc.endpoint.connect_beside(address, deadline_s=deadline_s)
        except (TransportError, InputError) as error:
            self.rpc.note_problem(f"own line to {peer}", error.message)
            return
        self.rpc.streams.renew(peer)
