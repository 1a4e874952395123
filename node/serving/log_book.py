"""What this peer knows of others' logs: the latest head of each, and who was found with two logs.

Pure. A head is believed to be its signer's, and no more: it counts because its signer cannot take
it back. Of who shows two logs both heads are kept, which is proof for anybody.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wire.content import PeerId
from wire.errors import WireError
from wire.latest import Latest
from wire.log import LogFork, LogHead, contradiction, judge
from wire.signed import Envelope, Signed

# Heads of peers that are known; one more lets the oldest go.
HEADS_MAX = 1024
FORKS_MAX = 64
# Clocks differ; a head of later than this is of no use here.
AHEAD_MS_MAX = 300_000


@dataclass(slots=True)
class LogBook:
    """Heads and forks. `knows` says of whom heads are wanted: keys that nobody knows cost nothing
    to make, and would push out the others.
    """

    knows: Callable[[PeerId], bool]
    heads: Latest[PeerId, Signed[LogHead]] = field(default_factory=lambda: Latest(HEADS_MAX))
    forks: Latest[PeerId, LogFork] = field(default_factory=lambda: Latest(FORKS_MAX))

    def hear(self, raw: bytes, now_ms: int) -> LogFork | None:
        """Take a head in; a fork if it contradicts one that is known. WireError if it is none."""
        envelope = Envelope.read(raw, LogHead)
        known = self.heads.get(envelope.signer)
        if known is not None and known.raw == raw:
            return None
        if known is None and not self.knows(envelope.signer):
            return None
        claimed = envelope.claimed()
        if claimed.signed_at_ms > now_ms + AHEAD_MS_MAX:
            return None
        if known is None or _is_newer(claimed, known.record):
            head = envelope.checked(claimed)
            self.heads[head.signer] = head
            return self._fork(known, head)
        # An older one is of no use unless it contradicts: only then its signature is looked at.
        unchecked = Signed(claimed, envelope.signer, raw, known.id)
        if contradiction(known, unchecked) is None:
            return None
        return self._fork(known, envelope.checked(claimed))

    def hear_all(self, raws: Sequence[bytes], now_ms: int) -> list[LogFork]:
        """As `hear`; what is no head is passed over."""
        found = []
        for raw in raws:
            try:
                fork = self.hear(raw, now_ms)
            except WireError:
                continue
            if fork is not None:
                found.append(fork)
        return found

    def take(self, fork: LogFork) -> PeerId | None:
        """Take in a fork that somebody tells of: whose it is if it is new; WireError if it proves
        nothing.
        """
        signer = Envelope.read(fork.first, LogHead).signer
        if signer in self.forks:
            return None
        signer = judge(fork).first.signer
        if not self.knows(signer) and signer not in self.heads:
            return None
        if len(self.forks) >= self.forks.items_max:
            # Of who is gone by now first: keys that are made for it are soon gone.
            gone = next((it for it in self.forks if not self.knows(it)), None)
            if gone is not None:
                del self.forks[gone]
        self.forks[signer] = fork
        return signer

    def _fork(self, known: Signed[LogHead] | None, head: Signed[LogHead]) -> LogFork | None:
        if known is None or contradiction(known, head) is None:
            return None
        return LogFork(first=known.raw, second=head.raw)


def _is_newer(head: LogHead, known: LogHead) -> bool:
    """Whether a head is later in the same log, or of a log that was begun later."""
    return (head.began_at_ms, head.number) > (known.began_at_ms, known.number)
