"""How often servers are asked: a budget for each host, whoever wants it, and for each asker. Pure.

What a stranger may have fetched is bounded, so nobody uses data peers to wear a server down.
"""

from dataclasses import dataclass, field

from p2p.token_bucket import TokenBuckets
from wire.content import PeerId
from wire.errors import Refused

# A page and a few more at once; in the long run one a second.
HOST_BURST, HOST_PER_S = 10.0, 1.0
ASKER_BURST, ASKER_PER_S = 30.0, 0.5


@dataclass(slots=True)
class FetchBudget:
    """Counts fetches. An asker's own budget is asked first: it costs the host nothing."""

    hosts: TokenBuckets = field(default_factory=lambda: TokenBuckets(HOST_BURST, HOST_PER_S))
    askers: TokenBuckets = field(default_factory=lambda: TokenBuckets(ASKER_BURST, ASKER_PER_S))

    def take(self, host: str, asker: PeerId | None, now_at_s: float) -> None:
        """Count one fetch; Refused, with when to come again, if a budget is used up.

        Without an asker it is the owner's own fetch, which only the host's budget bounds.
        """
        self.take_asker(asker, now_at_s)
        if not self.hosts.take(host, now_at_s):
            raise Refused(f"{host} was asked often lately", retry_after_s=1.0 / self.hosts.per_s)

    def take_asker(self, asker: PeerId | None, now_at_s: float) -> None:
        """Count what concerns no server; Refused if the asker's budget is used up."""
        if asker is not None and not self.askers.take(str(asker), now_at_s):
            raise Refused("you had much fetched here lately", retry_after_s=1.0 / self.askers.per_s)
