"""The final accounts of relays in a network with credits: what passed, and what was paid for it.

What passed is what `node.devnet.relay_load` saw between streams, whatever either end counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from node.devnet.economy_plan import RELAYED
from node.devnet.economy_watch import paying_of
from node.devnet.invariants import Violations
from node.devnet.peer import DevPeer
from node.paying.channels import PaidChannel
from node.paying.relay_price import cost_of_bytes
from p2p.free_bytes import FREE_BYTES, FREE_BYTES_PER_S
from wire.amount import show_credits
from wire.content import PeerId

FREE = "a relay passes on little for nothing"
NO_MORE = "an honest asker pays a relay for what passed, and an increment at most"
# The last piece of what is free may be more than is left, and so much is copied at once.
PIECE_BYTES = 256 << 10


@dataclass(slots=True)
class RelayAccounts:
    """All relays of one run."""

    violations: Violations
    passed_bytes: int = 0
    paid_bytes: int = 0
    earned: int = 0
    # Of any asker at any relay, the most that passed for nothing.
    free_bytes_most: int = 0

    def told(self) -> str:
        """One sentence for the report."""
        return (
            f"relays: {self.passed_bytes} bytes passed, {self.paid_bytes} of them were paid with"
            f" {show_credits(self.earned)} credits; at most {self.free_bytes_most} were free for"
            " one asker at one relay"
        )

    def draw_up(
        self,
        peers: Sequence[DevPeer],
        good: AbstractSet[int],
        increments: Mapping[PeerId, int],
        passed_s: float,
    ) -> None:
        """Hold each asker and each relay to what passed between them."""
        askers = {it.key.peer: it for it in peers}
        for relay in peers:
            load = relay.relay_load
            self.passed_bytes += load.passed_for.total()
            self.paid_bytes += load.paid_for.total()
            self.earned += load.earned
            for key, passed_bytes in load.passed_for.items():
                if relay.number in good and relay.is_open:
                    self._check_free(relay, key, passed_s)
                asker = askers.get(key)
                if asker is not None and asker.number in good:
                    self._check_asker(asker, relay, passed_bytes, increments[relay.key.peer])

    def _check_free(self, relay: DevPeer, asker: PeerId, passed_s: float) -> None:
        load = relay.relay_load
        free_bytes = load.passed_for[asker] - load.paid_for[asker]
        self.free_bytes_most = max(self.free_bytes_most, free_bytes)
        # What a relay remembers of askers ends with it.
        most = relay.starts * (FREE_BYTES + PIECE_BYTES) + FREE_BYTES_PER_S * passed_s
        if free_bytes > most:
            words = f"{free_bytes} bytes of {asker.short} were free, at most {most:.0f}"
            self.violations.note(FREE, relay.number, words)

    def _check_asker(
        self, asker: DevPeer, relay: DevPeer, passed_bytes: int, increment: int
    ) -> None:
        relayed = sum(it.relayed for it in _channels(asker, relay))
        most = cost_of_bytes(passed_bytes, RELAYED) + increment
        if relayed > most:
            words = f"{relayed} millionths to peer {relay.number}, for what comes to {most}"
            self.violations.note(NO_MORE, asker.number, words)


def _channels(asker: DevPeer, relay: DevPeer) -> Iterator[PaidChannel]:
    return (it for it in paying_of(asker) if it.payee == relay.key.peer)
