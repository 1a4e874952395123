"""Relays that misbehave: they lie, delay, drop, or meter wrongly. Everything else they do well."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from node.devnet.relay_rules import RulesWithin
from node.peer import Node
from p2p.relaying import Relaying
from p2p.transport import RelayAnswer
from p2p.typed_call import TypedCall
from wire.content import PeerId
from wire.message import Message
from wire.reach import Reservation, Reserve, Reserved
from wire.signed import sign

DELAY_S_MAX = 0.5
DROPS_ONE_IN = 16
TIMES_TOO_MUCH = 10

NATURES = frozenset(("relay_lies", "relay_delays", "relay_drops", "relay_meters"))


@dataclass(slots=True)
class BadRules(RulesWithin):
    """The rules of a relay, broken as `nature` says."""

    inner: Relaying
    nature: str
    random: Random

    def admit(self, asker: PeerId, kept: PeerId) -> RelayAnswer:
        """Deny whom it keeps, or keep to no bound."""
        if self.nature == "relay_lies":
            return RelayAnswer.NOT_KEPT
        if self.nature == "relay_meters" and kept in self.inner.counts.kept():
            return RelayAnswer.THROUGH
        return self.inner.admit(asker, kept)

    def wait_s(self, asker: PeerId, kept: PeerId, size_bytes: int) -> float | None:
        """Drop, delay, or count too much."""
        if self.nature == "relay_drops" and not self.random.randrange(DROPS_ONE_IN):
            return None
        if self.nature == "relay_meters":
            self.inner.wait_s(asker, kept, TIMES_TOO_MUCH * size_bytes)
            return 0.0
        wait_s = self.inner.wait_s(asker, kept, size_bytes)
        if wait_s is not None and self.nature == "relay_delays":
            wait_s += self.random.random() * DELAY_S_MAX
        return wait_s

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        """Charge too much."""
        times = TIMES_TOO_MUCH if self.nature == "relay_meters" else 1
        return self.inner.charge(asker, times * size_bytes)


def give_leases_to_all(node: Node) -> Callable[[], None]:
    """Sign a lease for whoever asks, and keep nobody; returns the call that ends it."""
    honest = node.peers.handlers[Reserve]

    async def lie(call: TypedCall, message: Message) -> None:
        assert isinstance(message, Reserve)
        lease = Reservation(
            kept=call.peer,
            issued_at_s=int(node.dependencies.environment.wall_s()),
            lease_s=message.lease_s,
            lines_max=16,
            bytes_per_s=2_000_000,
        )
        await call.send(Reserved(reservation=sign(lease, node.dependencies.key).raw))

    def be_honest() -> None:
        node.peers.handlers[Reserve] = honest

    node.peers.handlers[Reserve] = lie
    return be_honest
