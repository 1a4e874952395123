"""Whether our relays do what they promised: strangers call us through them, now and then.

A relay that gives leases and passes nothing on would have us say that we are kept, and nobody would
reach us. Strangers may lie too, so a relay is left only at the word of two of different networks,
who are more than those that it let through. Whoever is asked calls nobody but that relay, where the
relay's own advert says that it is, and there asks for us: once a minute at most.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from p2p.connect import TROUBLES
from p2p.dial_back import DialingBack
from p2p.handshake import Handshake
from p2p.ip_address import network_of
from p2p.peer_rpc import PeerRpc
from p2p.reachability import SAME_S, Stranger
from p2p.relaying import Relaying
from p2p.timeouts import stretched
from wire import limits
from wire.content import PeerId
from wire.errors import Refused
from wire.latest import Latest
from wire.reach import DialBack, DialedBack

LOOK_S = 1.0
# After a lease; after an answer that leaves it open; after one that says that all is well.
FIRST_S, SOON_S, AGAIN_S = 5.0, 10.0, 600.0
ASK_DEADLINE_S = 20.0
ANSWERS_KEPT, FAILURES = 3, 2
ASKED_KEPT = 64


@dataclass(slots=True)
class RelayRecord:
    """What strangers found at one relay: the network of each, and whether they came through."""

    due_at_s: float
    answers: deque[tuple[str, bool]] = field(default_factory=lambda: deque(maxlen=ANSWERS_KEPT))

    def take(self, network: str, reached: bool, now_at_s: float) -> None:
        """Note what a stranger of this network found."""
        self.answers.append((network, reached))
        settled = reached and len(self.answers) >= FAILURES
        self.due_at_s = now_at_s + (AGAIN_S if settled else SOON_S)

    def is_bad(self) -> bool:
        """Whether it passes nothing on, as far as can be known."""
        failed = {network for network, reached in self.answers if not reached}
        return len(failed) >= FAILURES and len(failed) > sum(it for _, it in self.answers)

    def best(self, strangers: Iterable[Stranger], relays: Iterable[PeerId]) -> Stranger | None:
        """Whom to ask: rather of a network that said nothing yet, and rather no relay of ours."""
        heard, ours = {network for network, _ in self.answers}, set(relays)
        return min(
            strangers,
            key=lambda it: (network_of(it.host) in heard, it.peer in ours),
            default=None,
        )


@dataclass(slots=True)
class RelayChecks:
    """Asks strangers about the relays of this peer."""

    rpc: PeerRpc
    handshake: Handshake
    dialing_back: DialingBack
    relaying: Relaying
    left: int = 0
    _records: dict[PeerId, RelayRecord] = field(default_factory=dict)
    _asked_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(ASKED_KEPT))

    async def keep_up_forever(self) -> None:
        """Ask about each relay when it is due, one after the other, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            await self._look(trio.current_time())

    async def _look(self, now_at_s: float) -> None:
        relays = self.relaying.relays()
        self._records = {
            it: self._records.get(it) or RelayRecord(now_at_s + FIRST_S) for it in relays
        }
        for relay, record in self._records.items():
            if now_at_s < record.due_at_s:
                continue
            stranger = record.best(self._to_ask(relay, now_at_s), relays)
            if stranger is None:
                continue
            self._asked_at_s[stranger.peer] = now_at_s
            await self._ask(stranger, relay, record)
            if record.is_bad() and relay in self.relaying.relays():
                self.left += 1
                words = "it gives leases and passes no calls on: another relay is looked for"
                self.rpc.note_problem(f"relay {relay}", words)
                self.relaying.leave(relay)
            return

    def _to_ask(self, relay: PeerId, now_at_s: float) -> list[Stranger]:
        able = [
            it
            for it in self.dialing_back.able()
            if it.peer != relay and now_at_s >= self._asked_at_s.get(it.peer, -SAME_S) + SAME_S
        ]
        self.rpc.environment.random.shuffle(able)
        return able

    async def _ask(self, stranger: Stranger, relay: PeerId, record: RelayRecord) -> None:
        peer, deadline_s = stranger.peer, stretched(ASK_DEADLINE_S)
        port = self.dialing_back.reachability.port() or 1
        try:
            version = await self.handshake.version_of(peer, deadline_s=deadline_s)
            if version < limits.RELAY_CHECKS_VERSION:
                return
            async with self.rpc.call(peer, deadline_s=deadline_s) as call:
                await call.send(DialBack(port=port, relay=(relay,)))
                answer = await call.expect(DialedBack)
        except (*TROUBLES, Refused):
            # It is busy, or does not know the relay: another is asked.
            return
        now_at_s = trio.current_time()
        record.take(network_of(stranger.host), answer.reached, now_at_s)
        if answer.reached:
            self.dialing_back.reachability.confirmed_at_s = now_at_s

    def as_map(self) -> dict[str, object]:
        """How many relays were left as they passed nothing on, for `status`."""
        return {"keepers_left": self.left}
