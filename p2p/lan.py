"""Finding peers of the local network, and being found, for as long as this peer runs.

The shell around `p2p.lan_peers`. What speaks to the local network is behind a seam, and it is
closed for a while if somebody there floods it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import trio

from p2p.lan_peers import LanRecord, hint_of, said_of, told_addresses
from p2p.peer_rpc import PeerRpc
from p2p.token_bucket import TokenBucket
from wire.content import PeerId
from wire.errors import TransportError
from wire.latest import Latest

LOOK_S = 1.0
# Hints that are followed, at once and in the long run: each may cost a call.
HINTS_BURST, HINTS_PER_S = 16.0, 0.5
HINTS_KEPT = 64
# What others told and is remembered to answer from, before it is taken for a flood.
REMEMBERED_MAX = 4096
FLOODED_S = 600.0
# After the local network could not be spoken to.
AGAIN_S = 60.0


class LanSession(Protocol):
    """What is told and heard on the local network, for as long as its block runs."""

    def heard(self) -> list[LanRecord]:
        """What was heard since the last call; bounded, and the rest is dropped."""
        ...

    def remembered(self) -> int:
        """How many records of others are in memory."""
        ...


class LanService(Protocol):
    """A way to tell a local network of oneself, and to hear of others."""

    def open(
        self, name: str, addresses: tuple[str, ...], said: dict[str, str]
    ) -> AbstractAsyncContextManager[LanSession]:
        """Tell of the peer `name` at these multiaddrs, and listen; TransportError if it cannot."""
        ...


@dataclass(slots=True)
class LanDiscovery:
    """Has the peers of this network that are near be called."""

    rpc: PeerRpc
    network: str
    service: LanService
    ways_out: Callable[[], tuple[str, ...]]
    found: Latest[PeerId, tuple[str, ...]] = field(default_factory=lambda: Latest(HINTS_KEPT))
    told: tuple[str, ...] = ()
    dropped: int = 0
    _hints: TokenBucket = field(default_factory=lambda: TokenBucket(HINTS_BURST, HINTS_PER_S))

    async def run_forever(self) -> None:
        """Tell and listen, anew whenever our addresses change, until cancelled."""
        while True:
            addresses = self._addresses()
            if not addresses:
                # Whoever listens for its own machine alone has nothing to tell or to seek.
                await trio.sleep(LOOK_S)
                continue
            pause_s = LOOK_S
            try:
                said = said_of(self.rpc.me, self.network)
                async with self.service.open(str(self.rpc.me), addresses, said) as session:
                    self.told = addresses
                    pause_s = await self._listen(session, addresses)
            except TransportError as error:
                self.rpc.note_problem("local network", error.message)
                pause_s = AGAIN_S
            self.told = ()
            await trio.sleep(pause_s)

    def _addresses(self) -> tuple[str, ...]:
        return told_addresses(self.rpc.endpoint.addresses, self.ways_out())

    async def _listen(self, session: LanSession, addresses: tuple[str, ...]) -> float:
        """Follow hints until our addresses change; how long to wait before the next session."""
        while self._addresses() == addresses:
            for record in session.heard():
                self._follow(record)
            if session.remembered() > REMEMBERED_MAX:
                self.rpc.note_problem(
                    "local network", "somebody there tells of too many peers: not heard for a while"
                )
                return FLOODED_S
            await trio.sleep(LOOK_S)
        return 0.0

    def _follow(self, record: LanRecord) -> None:
        hint = hint_of(record, self.rpc.me, self.network)
        if hint is None or self.found.get(hint.peer) == hint.addresses:
            return
        if not self._hints.take(trio.current_time()):
            self.dropped += 1
            return
        self.found[hint.peer] = hint.addresses
        self.rpc.dialing.suggest(hint.peer, hint.addresses)

    def where(self, peer: PeerId) -> tuple[str, ...]:
        """The multiaddrs at which the local network last said that this peer is."""
        return self.found.get(peer, ())

    def as_map(self) -> dict[str, object]:
        """Where this peer is told of, and whom it heard of, for `status`."""
        return {
            "told": list(self.told),
            "found": [str(it) for it in self.found],
            "dropped": self.dropped,
        }
