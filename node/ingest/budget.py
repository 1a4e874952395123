"""How often servers are asked, and how much comes: budgets for each host and each asker. Pure.

What a stranger may have fetched is bounded, so nobody uses data peers to wear a server down.
"""

from dataclasses import dataclass, field

from p2p.token_bucket import TokenBuckets
from wire.content import PeerId
from wire.errors import Refused

# A page and a few more at once; in the long run one a second.
HOST_BURST, HOST_PER_S = 10.0, 1.0
# What others may use of that, all together: keys cost nothing, and the owner's own fetches go on.
OTHERS_SHARE = 0.8
ASKER_BURST, ASKER_PER_S = 30.0, 0.5
# Sixteen of the largest bodies at once; in the long run one in sixteen seconds.
ASKER_BURST_BYTES, ASKER_BYTES_PER_S = 64.0 * (1 << 20), 256.0 * (1 << 10)


@dataclass(slots=True)
class FetchBudget:
    """Counts fetches. An asker's own budget is asked first: it costs the host nothing."""

    hosts: TokenBuckets = field(default_factory=lambda: TokenBuckets(HOST_BURST, HOST_PER_S))
    hosts_of_others: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(HOST_BURST * OTHERS_SHARE, HOST_PER_S * OTHERS_SHARE)
    )
    askers: TokenBuckets = field(default_factory=lambda: TokenBuckets(ASKER_BURST, ASKER_PER_S))
    asker_bytes: TokenBuckets = field(
        default_factory=lambda: TokenBuckets(ASKER_BURST_BYTES, ASKER_BYTES_PER_S)
    )

    def take(self, host: str, asker: PeerId | None, now_at_s: float) -> None:
        """Count one fetch; Refused, with when to come again, if a budget is used up.

        Without an asker it is the owner's own fetch, which only the host's budget bounds. A
        database is a `host` as well.
        """
        self.take_asker(asker, now_at_s)
        if asker is not None and not self.hosts_of_others.take(host, now_at_s):
            per_s = self.hosts_of_others.per_s
            raise Refused(f"{host} was asked often lately for others", retry_after_s=1.0 / per_s)
        if not self.hosts.take(host, now_at_s):
            raise Refused(f"{host} was asked often lately", retry_after_s=1.0 / self.hosts.per_s)

    def check_bytes(self, asker: PeerId | None, now_at_s: float) -> None:
        """Refused while an asker owes for what came for it: how much comes is known afterwards."""
        if asker is not None and (wait_s := self.asker_bytes.wait_s(str(asker), now_at_s)) > 0:
            raise Refused("you had many bytes fetched here lately", retry_after_s=wait_s)

    def spend_bytes(self, asker: PeerId | None, size_bytes: int, now_at_s: float) -> None:
        """Count what came for an asker."""
        if asker is not None:
            self.asker_bytes.spend(str(asker), size_bytes, now_at_s)

    def take_asker(self, asker: PeerId | None, now_at_s: float) -> None:
        """Count what concerns no server; Refused if the asker's budget is used up."""
        if asker is not None and not self.askers.take(str(asker), now_at_s):
            raise Refused("you had much fetched here lately", retry_after_s=1.0 / self.askers.per_s)
