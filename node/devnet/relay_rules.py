"""The rules of a relay passed on as they are: what stands before them changes what it has to."""

from dataclasses import dataclass

from p2p.transport import LineEnd, RelayAnswer, RelayRules
from wire.content import PeerId


@dataclass(slots=True)
class RulesWithin:
    """As `p2p.transport.RelayRules`; everything is as `inner` says."""

    inner: RelayRules

    def admit(self, asker: PeerId, kept: PeerId) -> RelayAnswer:
        return self.inner.admit(asker, kept)

    def ended(self, asker: PeerId, kept: PeerId, why: LineEnd | None) -> None:
        self.inner.ended(asker, kept, why)

    def wait_s(self, asker: PeerId, kept: PeerId, size_bytes: int) -> float | None:
        return self.inner.wait_s(asker, kept, size_bytes)

    def charge(self, asker: PeerId, size_bytes: int) -> bool:
        return self.inner.charge(asker, size_bytes)

    def takes(self, relay: PeerId) -> bool:
        return self.inner.takes(relay)

    def left(self, relay: PeerId) -> None:
        self.inner.left(relay)

    def may_punch(self, peer: PeerId) -> bool:
        return self.inner.may_punch(peer)
