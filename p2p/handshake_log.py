"""What two peers find out when they meet: whether they belong together, and whose clock is wrong.

A pure core beside `p2p.peers`: it judges what Hello, Welcome and Pong say, and keeps who answered.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median_high, median_low

from p2p.credentials import BEGINS_LATER, EXPIRED, REMOVED
from wire import limits
from wire.advert import Advert
from wire.content import PeerId
from wire.errors import BatonError, InputError, Refused, Unreachable
from wire.latest import Latest
from wire.signed import Signed

# Started this much before it noticed, a peer was there first and stays.
NEWCOMER_S = 60.0
_SKEWS_KEPT = 32


@dataclass(slots=True)
class HandshakeLog:
    """Who answered when, whether our key is in use elsewhere, how far clocks differ."""

    me: PeerId
    instance: bytes
    started_at_s: float
    started_wall_s: float
    peers_max: int = 1000
    _answered: Latest[PeerId, float] = field(init=False)
    # When each was asked last, whether or not it answered.
    _asked: Latest[PeerId, float] = field(init=False)
    _skews: Latest[PeerId, float] = field(default_factory=lambda: Latest(_SKEWS_KEPT))
    _told_skews: Latest[PeerId, float] = field(default_factory=lambda: Latest(_SKEWS_KEPT))
    same_key: bool = False
    _told_seq: int = -1

    def __post_init__(self) -> None:
        self._answered = Latest(self.peers_max)
        self._asked = Latest(self.peers_max)

    def answered(self, peer: PeerId, now_at_s: float) -> None:
        """`peer` saw us and said so."""
        self._answered[peer] = now_at_s

    def asked(self, peer: PeerId, now_at_s: float) -> None:
        """`peer` has its turn: it is the others' until they had theirs, whatever it says."""
        self._asked[peer] = now_at_s

    def answered_within(self, peers: Iterable[PeerId], now_at_s: float, within_s: float) -> int:
        """How many of `peers` answered us in the last `within_s`."""
        return sum(now_at_s - self._answered.get(peer, -within_s) < within_s for peer in peers)

    def longest_unheard(self, peers: Sequence[PeerId], random: Random) -> PeerId:
        """Who of `peers` answered or was asked the longest ago; drawn if several never were."""

        def since_at_s(peer: PeerId) -> float:
            kept = (self._answered, self._asked)
            return max(it.get(peer, -math.inf) for it in kept)

        return min(peers, key=lambda it: (since_at_s(it), random.random()))

    def told_same_key(self, other: Signed[Advert], now_at_s: float) -> bool:
        """Somebody showed an advert that another start of our key has signed; whether it is news.

        Signed before we started, it is of our own last run; signed since, of another machine.
        Nobody but who holds the key can sign one, so this is nobody's hearsay. InputError if we
        are the newcomer of the two.
        """
        # A moment of grace, for an advert's time is in whole seconds.
        since_wall_s = self.started_wall_s + 3.0
        if other.signer != self.me or other.record.instance == self.instance:
            return False
        news = other.record.seq > self._told_seq
        self._told_seq = max(self._told_seq, other.record.seq)
        if other.record.issued_at_s <= since_wall_s:
            return news
        self.same_key = True
        if now_at_s - self.started_at_s < NEWCOMER_S:
            raise InputError(
                f"another machine is running with this peer's key ({self.me})",
                todo="a state folder must not be copied: start this one with another --state",
            )
        return news

    def clock(self, peer: PeerId, skew_s: float, *, called: bool) -> None:
        """`peer`'s wall clock is ahead of ours by `skew_s`; `called` if it was us who called."""
        skews = self._skews if called else self._told_skews
        skews[peer] = skew_s

    def forget_clocks(self) -> None:
        """Our clock was set: how far others' were ahead of it says nothing now."""
        self._skews.clear()
        self._told_skews.clear()

    def _others_ahead_s(self) -> tuple[float, int] | None:
        """How far most peers' clocks are ahead of ours, and how many said so; None if none did."""
        # Anybody may call and say a time; whom we called ourselves we had chosen.
        skews_s = list((self._skews or self._told_skews).values())
        if not skews_s:
            return None
        # Of an even number the kinder half: one that agrees with us is enough against one that
        # does not.
        return min(median_low(skews_s), median_high(skews_s), key=abs), len(skews_s)

    def clock_wrong_s(self) -> float | None:
        """How far most peers' clocks are ahead of ours, if that is beyond what is allowed."""
        found = self._others_ahead_s()
        return found[0] if found is not None and abs(found[0]) > limits.CLOCK_SKEW_S_MAX else None

    def whose_clock(self, ahead_s: float, theirs: str) -> str:
        """In words, by how much two clocks differ and which of them is the odd one.

        `ahead_s` is how far the clock called `theirs` is ahead of ours, as what it signed shows;
        the others are those whose clocks we saw when we met.
        """
        way = "ahead of" if ahead_s > 0 else "behind"
        differ = f"{theirs} is {abs(ahead_s):.0f} s {way} this peer's"
        found = self._others_ahead_s()
        if found is None or found[1] < 2:
            return f"{differ}; too few others were met to say which is wrong"
        others_s, count = found
        if abs(ahead_s - others_s) < abs(others_s):
            return f"{differ}, and so are most of {count} others': this peer's is the wrong one"
        return f"{differ}, which agrees with most of {count} others': it is the wrong one"

    def check_clock(self) -> None:
        """InputError if our clock is the wrong one, or if nobody can tell whose is."""
        skew_s = self.clock_wrong_s()
        if skew_s is None or not self._skews:
            return
        way, count = "behind" if skew_s > 0 else "ahead of", len(self._skews)
        if count == 1:
            raise InputError(
                f"this machine's clock is {abs(skew_s):.0f} s {way} that of the only peer that"
                " answered, and one of the two is wrong",
                todo="set the wrong one (timedatectl set-ntp true), or name another bootstrap too",
            )
        raise InputError(
            f"this machine's clock is {abs(skew_s):.0f} s {way} that of {count} peers, and adverts"
            " with wrong times are refused",
            todo="set the clock (timedatectl set-ntp true) and start again",
        )


def not_met(troubles: Sequence[BatonError], *, private: bool = False) -> Unreachable:
    """Why a peer that called every bootstrap met nobody, as one error."""
    why = "; ".join(dict.fromkeys(it.message for it in troubles))
    if private and all(isinstance(it, Refused) for it in troubles):
        todo = "ask its owner for an invite: python -m node invite"
        if REMOVED in why:
            # No invite brings back a key that was removed.
            todo += ", and join with it as a new peer: --state DIR"
        elif BEGINS_LATER in why:
            todo = "set this machine's clock (timedatectl set-ntp true) and start again"
        elif EXPIRED in why:
            todo += "; with a clock that is ahead it seems so too (date)"
        return Unreachable(f"the network does not take this peer: {why}", todo=todo)
    if all(isinstance(it, Refused) for it in troubles):
        return Unreachable(
            f"the network does not take this peer: {why}",
            todo="give that network's name with --network or its file with --genesis, and run the"
            " same version of Baton",
        )
    return Unreachable(
        f"no bootstrap answers: {why}",
        todo="check that the other machine runs `python -m node join`, that the address is the one"
        " it printed, and that no firewall is between",
    )
