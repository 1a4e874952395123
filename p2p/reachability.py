"""Where others reach this peer: what strangers found when they called it back. Pure.

An address of ours is true if two of three strangers, of different networks, called it and met our
key. While there are fewer strangers, all there are have to say so. Addresses of this machine and of
its local network need no proof: nobody far away calls them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from p2p.ip_address import Scope, host_of, is_public, network_of, place_of, scope_of
from wire import limits
from wire.content import PeerId
from wire.latest import Latest

STRANGERS_ASKED = 3
CONFIRMATIONS = 2
# The first question waits so long for more strangers than the first one.
SETTLE_S = 3.0
ASKED_KEPT = 64
AGAIN_S = 3600.0
# Where too few have answered, others are asked soon; nobody answers twice within a minute.
SOON_S = 10.0
SAME_S = 65.0
# What was found longer ago counts no more.
FOUND_S = 600.0


class Reach(StrEnum):
    """How others reach a peer."""

    # Peers of this machine or its network are connected, and no others.
    NEARBY = "nearby"
    # Not known yet.
    ASKING = "asking"
    OPEN = "open"
    # The address is not this machine's: a router passes calls on.
    MAPPED = "mapped"
    KEPT = "kept"
    # Only whom it called itself can talk to it.
    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class Stranger:
    """A connected peer, at an IP address of the open internet."""

    peer: PeerId
    host: str


@dataclass(frozen=True, slots=True)
class CallBack:
    """What `stranger` found at `host`, where it sees us."""

    stranger: Stranger
    host: str
    reached: bool


@dataclass(slots=True)
class Reachability:
    """Feed it answers; ask it whom to ask, and which addresses are true.

    `me` ends every address. `confirmed` are multiaddrs without it, by who confirmed each.
    """

    me: PeerId
    random: Random
    confirmed: dict[str, tuple[PeerId, ...]] = field(default_factory=dict)
    reach: Reach = Reach.NEARBY
    # None until it was looked at once: trio's clock does not begin at zero.
    since_at_s: float | None = None
    # When strangers last came through, also by a relay; None while nobody has.
    confirmed_at_s: float | None = None
    # Where strangers saw us last, confirmed or not.
    seen_hosts: tuple[str, ...] = ()
    judged: bool = False
    # How often others told what they found.
    judgements: int = 0
    # The router's port whose calls come here; None while none is known.
    _mapped_port: int | None = None
    _due_at_s: float = -math.inf
    _met_at_s: float = math.inf
    _listening: tuple[str, ...] = ()
    # When each was asked, the latest last; and the latest answer of each network.
    _asked_at_s: Latest[PeerId, float] = field(default_factory=lambda: Latest(ASKED_KEPT))
    _found: dict[str, tuple[float, CallBack]] = field(default_factory=dict)

    def port(self) -> int | None:
        """The TCP port on which others would call; None where this machine alone could."""
        local = self.local_port()
        return local if local is None or self._mapped_port is None else self._mapped_port

    def called_at(self, mapped_port: int | None) -> None:
        """A router says that calls to its port come here, or no more: others are asked anew."""
        before, self._mapped_port = self.port(), mapped_port
        if self.port() != before:
            self._found.clear()
            self.confirmed = {}
        self._due_at_s = -math.inf

    def ask_anew(self) -> None:
        """What was found may be true no more; until others answer it is said all the same."""
        self._due_at_s = -math.inf
        self._found.clear()

    def local_port(self) -> int | None:
        """The TCP port on which this machine listens for others."""
        for address in self._listening:
            host = host_of(address)
            if host and scope_of(host) is not Scope.LOOPBACK:
                return int(address.split("/")[4])
        return None

    def is_due(self, listening: tuple[str, ...], now_at_s: float) -> bool:
        """Whether it is time to ask somebody, if anybody can be asked."""
        return now_at_s >= self._due_at_s or listening != self._listening

    def to_ask(
        self, strangers: Sequence[Stranger], listening: tuple[str, ...], now_at_s: float
    ) -> tuple[Stranger, ...]:
        """Whom to ask now; whoever is given has to be told of in `judge`."""
        if listening != self._listening:
            # Of a new network nothing is known.
            self._listening, self._due_at_s = listening, -math.inf
            self._found.clear()
        if not strangers or self.port() is None:
            self._met_at_s = math.inf
            return ()
        self._met_at_s = min(self._met_at_s, now_at_s)
        few = len(strangers) < STRANGERS_ASKED and now_at_s < self._met_at_s + SETTLE_S
        if now_at_s < self._due_at_s or few:
            return ()
        asked_at_s = {it.peer: self._asked_at_s.get(it.peer, -math.inf) for it in strangers}
        others = [it for it in strangers if now_at_s >= asked_at_s[it.peer] + SAME_S]
        self.random.shuffle(others)
        # Whoever was asked longest ago: the same ones may not decide every time.
        others.sort(key=lambda it: asked_at_s[it.peer])
        chosen: dict[str, Stranger] = {}
        for stranger in others:
            chosen.setdefault(network_of(stranger.host), stranger)
        asked = tuple(chosen.values())[:STRANGERS_ASKED]
        for stranger in asked:
            self._asked_at_s[stranger.peer] = now_at_s
        return asked

    def was_busy(self, peer: PeerId, retry_after_s: float, now_at_s: float) -> None:
        """It was asked and called nobody: it is asked again when it says, within SAME_S."""
        wait_s = min(SAME_S, max(SOON_S / 2, retry_after_s))
        self._asked_at_s[peer] = now_at_s + wait_s - SAME_S

    def judge(self, answers: Sequence[CallBack], now_at_s: float) -> None:
        """Take what those who were asked found; without any answer nothing changes."""
        for answer in answers:
            network = network_of(answer.stranger.host)
            self._found.pop(network, None)
            self._found[network] = (now_at_s, answer)
        recent = [it for at_s, it in self._found.values() if now_at_s < at_s + FOUND_S]
        recent = recent[-STRANGERS_ASKED:]
        wait_s = SOON_S if len(recent) < STRANGERS_ASKED else AGAIN_S
        self._due_at_s = now_at_s + wait_s * (1.0 + 0.25 * self.random.random())
        if not answers:
            return
        self.judged = True
        self.judgements += 1
        found: dict[str, tuple[PeerId, ...]] = {}
        for host in dict.fromkeys(it.host for it in recent):
            yes = tuple([it.stranger.peer for it in recent if it.host == host and it.reached])
            if len(yes) >= min(CONFIRMATIONS, len(recent)):
                family = "ip6" if ":" in host else "ip4"
                found[f"/{family}/{host}/tcp/{self.port()}"] = yes
        self.confirmed = found
        if found:
            self.confirmed_at_s = now_at_s
        self.seen_hosts = tuple(dict.fromkeys(it.host for it in recent))

    def conclude(self, strangers: bool, kept: bool, now_at_s: float) -> bool:
        """Say how others reach us now; returns whether that has changed."""
        own = {host_of(it) for it in self._listening}
        if self.confirmed:
            opened = any(host_of(it) in own for it in self.confirmed)
            reach = Reach.OPEN if opened else Reach.MAPPED
        elif kept:
            reach = Reach.KEPT
        elif self.judged:
            reach = Reach.ALONE
        else:
            reach = Reach.ASKING if strangers else Reach.NEARBY
        changed = reach is not self.reach
        if changed or self.since_at_s is None:
            self.reach, self.since_at_s = reach, now_at_s
        return changed

    def announced(
        self, listening: Sequence[str], kept: Iterable[str], nearby: Iterable[Scope], far: bool
    ) -> tuple[str, ...]:
        """What our advert says: confirmed addresses, keepers, and those of a network we share.

        `nearby` is how near the connected peers are, and `far` says whether one of them is across
        the internet and can be asked. While nobody is connected nobody hears, and all is said.
        """
        farthest = max(nearby, default=None)
        unproved = []
        for address in listening:
            host = host_of(address)
            if not host or farthest is None:
                unproved.append(address)
            elif is_public(host):
                if not (far or self.judged):
                    unproved.append(address)
            elif scope_of(host) <= farthest:
                unproved.append(address)
        true = [f"{it}/p2p/{self.me}" for it in self.confirmed]
        said = dict.fromkeys((*true, *kept, *unproved))
        return tuple(said)[: limits.ADVERT_ADDRESSES_MAX]

    def is_true(self, address: str) -> bool:
        """Whether strangers confirmed a multiaddr of ours."""
        return place_of(address) in self.confirmed
