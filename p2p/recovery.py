"""Serving again after this machine moved, slept, or was cut off; the shell of `network_changes`.

What was believed of connections, addresses, routers and clocks is found out anew, by those parts
that know it, and at once instead of when it is due.
"""

from dataclasses import dataclass, field

import trio

from p2p.dial_back import DialingBack
from p2p.ip_address import host_of, is_public
from p2p.neighbours import Neighbours
from p2p.network_changes import Change, NetworkChanges
from p2p.relaying import Relaying
from p2p.seeds import SeedDiscovery
from p2p.transport import ConnectionDown, ConnectionEvent, ConnectionUp
from wire.content import PeerId

LOOK_S = 2.0
# Who does not answer a ping in this time, after a change, is hung up on and called again.
PROVE_S = 3.0


@dataclass(slots=True)
class Recovery:
    """Looks after one peer."""

    neighbours: Neighbours
    dialing_back: DialingBack
    relaying: Relaying
    seeds: SeedDiscovery | None = None
    changes: NetworkChanges = field(default_factory=NetworkChanges)
    count: int = 0
    last: str = ""
    last_at_s: float = 0.0

    def on_connection(self, event: ConnectionEvent) -> None:
        """Note who across the internet is connected."""
        endpoint = self.neighbours.endpoint
        match event:
            case ConnectionUp(peer):
                host = host_of(endpoint.remote_address(peer) or "")
                if is_public(host) and not endpoint.is_relayed(peer):
                    self.changes.met(peer)
            case ConnectionDown(peer):
                self.changes.lost(peer, trio.current_time())

    async def watch_forever(self) -> None:
        """Look for changes, and recover from each, until cancelled."""
        rpc, dialing = self.neighbours.rpc, self.neighbours.dialing
        while True:
            now_at_s, wall_s = trio.current_time(), rpc.environment.wall_s()
            found = self.changes.look(now_at_s, wall_s, rpc.endpoint.addresses)
            # Or nobody was met yet, because the router or the name server starts slowly.
            dialing.cut_off = self.changes.cut_off or bool(self.neighbours.unmet)
            if found:
                await self._recover(found, now_at_s)
            await trio.sleep(LOOK_S)

    async def _recover(self, found: tuple[Change, ...], now_at_s: float) -> None:
        self.count, self.last, self.last_at_s = self.count + 1, "; ".join(found), now_at_s
        neighbours = self.neighbours
        neighbours.rpc.note_problem("network", f"{self.last}: whom this peer knows is asked anew")
        # Each was tried on a network that is gone, or is there again.
        neighbours.dialing.hurry(now_at_s)
        self.relaying.hurry()
        if self.seeds is not None:
            self.seeds.hurry()
        self.dialing_back.ask_anew()
        if Change.SLEPT in found:
            neighbours.handshake_log.forget_clocks()
        neighbours.advertiser.changed()
        if Change.BACK not in found:
            # Dead connections were found out already where that is how the change was.
            await self._prove_all()

    async def _prove_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for peer in sorted(self.neighbours.rpc.connected()):
                nursery.start_soon(self._prove, peer)

    async def _prove(self, peer: PeerId) -> None:
        """Hang up on a peer that does not answer over the connection that stood before."""
        if not await self.neighbours.ping(peer, PROVE_S):
            await self.neighbours.endpoint.disconnect(peer)

    def as_map(self) -> dict[str, object]:
        """How often this machine's network changed, and how last, for `status`."""
        now_at_s = trio.current_time()
        return {
            "changes": self.count,
            "last_change": self.last,
            "last_change_s": round(now_at_s - self.last_at_s, 1) if self.count else None,
        }
