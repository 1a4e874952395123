"""Whom to call, and when: keeps a peer connected without hammering anybody.

A pure core. It knows addresses (from bootstraps, from the store, from adverts), wants a number of
connections, and backs off from those that do not answer. Bootstraps are never given up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from p2p.ip_address import Scope, host_of, is_relayed, place_of, scope_of
from p2p.token_bucket import TokenBucket
from p2p.transport import WrongPeer
from wire import limits
from wire.content import PeerId
from wire.errors import BatonError, Refused
from wire.latest import Latest


@dataclass(frozen=True, slots=True, kw_only=True)
class DialingConfig:
    """How many connections, and how patient."""

    # Enough neighbours for gossip (gossipsub's degree is 6), some to spare.
    connections_wanted: int = 8
    known_max: int = 1000
    first_retry_s: float = 1.0
    retry_s_max: float = 120.0
    # While nobody answers: it is this machine that is cut off, and nobody says when it is not.
    cut_off_retry_s_max: float = 10.0
    dials_at_once: int = 4
    # Calls to peers that nobody here was ever connected to, at once and in the long run.
    stranger_dials: float = 16.0
    stranger_dials_per_s: float = 0.5
    # A host may fail so often at once, whatever its ports, before it is left alone for a while.
    host_failures: int = 8
    roam_every_s: float = 20.0
    # Only who was met is told of, so where more are known than all tell each other of, those who
    # meet fill the views of all.
    large_network: int = 64
    roam_large_every_s: float = 10.0


# Calls in a row that nobody answered, before a peer is given up; the latter take two hours.
_FAILURES_MAX, _MET_FAILURES_MAX = 8, 64
# While this machine is cut off no more are counted: nobody is given up for that.
_FAILURES_CUT_OFF = 4
# Of those met before a start, so many are called whoever else there is.
ANCHORS = 8
# Whoever made room waits as long as after so many failures: half a minute at most.
_PARTED = 5
# Another machine may have the address by then.
_OWNED_S = 600.0


@dataclass(frozen=True, slots=True)
class Dial:
    """Call these addresses; `peer` is None for a bootstrap whose key is not known yet."""

    peer: PeerId | None
    addresses: tuple[str, ...]


@dataclass(slots=True)
class _Target:
    addresses: tuple[str, ...]
    failures: int = 0
    refusals: int = 0
    due_at_s: float = 0.0
    dialing: bool = False
    # It was connected once, so it is more than somebody's word.
    proven: bool = False
    lost: bool = False

    @property
    def is_relayed(self) -> bool:
        return all(is_relayed(it) for it in self.addresses)


@dataclass(slots=True)
class _Failing:
    """A place or a host where calls of ours have failed, and until when it is left alone."""

    failures: int = 0
    due_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who answers at a place, and until when that is taken for granted."""

    peer: PeerId
    until_at_s: float


@dataclass(slots=True)
class Dialing:
    """Feed it what happens; ask it what is `due`.

    Adverts are strangers' words, and may aim our calls at anybody. So a place (host and port) where
    a call failed is left alone for a while whatever key is said to be there, and so is a host; and
    peers that were never met are called at a bounded rate.
    """

    me: PeerId
    random: Random
    config: DialingConfig = field(default_factory=DialingConfig)
    # Whether nobody can be reached from here now, so failures say nothing of whom was called.
    cut_off: bool = False
    # Whether addresses are such as nobody is called at for company: work is another matter.
    skips: Callable[[Sequence[str]], bool] = lambda _addresses: False
    _peers: dict[PeerId, _Target] = field(default_factory=dict)
    _bootstraps: dict[str, _Target] = field(default_factory=dict)
    _bootstrap_peers: dict[str, PeerId] = field(default_factory=dict)
    _connected: set[PeerId] = field(default_factory=set)
    _roam_at_s: float = 0.0
    _failing: Latest[str, _Failing] = field(init=False)
    # Met before this start, and not called since: one after the other, whoever calls us meanwhile.
    _anchors: list[PeerId] = field(default_factory=list)
    # Who is called now, or was lost: looked at each second, where a thousand may be known.
    _marked: dict[PeerId, None] = field(default_factory=dict)
    # Who proved to be at a place, where a call for somebody else found it.
    _owners: Latest[str, _Owner] = field(init=False)
    _tokens: TokenBucket = field(init=False)

    def __post_init__(self) -> None:
        self._owners, self._failing = Latest(self.config.known_max), Latest(self.config.known_max)
        self._tokens = TokenBucket(self.config.stranger_dials, self.config.stranger_dials_per_s)

    def add_bootstrap(self, address: str) -> None:
        self._bootstraps.setdefault(address, _Target((address,)))

    def learn(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Somebody said where `peer` is; new addresses are worth a call at once."""
        if peer == self.me or not addresses:
            return
        target = self._peers.get(peer)
        if target is None:
            if len(self._peers) >= self.config.known_max:
                # Words cost nothing: a flood of them does not displace who was met.
                words = (it for it, known in self._peers.items() if not known.proven)
                self._peers.pop(next(words, None) or next(iter(self._peers)))
            self._peers[peer] = _Target(addresses)
        elif target.addresses != addresses:
            self._peers[peer] = _Target(addresses, dialing=target.dialing, proven=target.proven)

    def suggest(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Somebody unknown said where `peer` is: added to what is known, in place of nothing."""
        target = self._peers.get(peer)
        if target is None:
            self.learn(peer, addresses)
            return
        known = target.addresses
        more = [it for it in addresses if it not in known]
        target.addresses = (*known, *more)[: max(len(known), limits.ADVERT_ADDRESSES_MAX)]

    def remember(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """`peer` was met there before this start."""
        self.learn(peer, addresses)
        if (target := self._peers.get(peer)) is not None:
            target.proven = True
            if len(self._anchors) < ANCHORS:
                self._anchors.append(peer)

    def connected(self, peer: PeerId) -> None:
        """A connection stands, whoever opened it: failures no longer count, but refusals do."""
        self._connected.add(peer)
        if (target := self._peers.get(peer)) is not None:
            # A call of ours that is still under way says itself when it has ended.
            target.failures = target.refusals
            target.proven = True

    def disconnected(
        self, peer: PeerId, now_at_s: float, *, lost: bool = False, parted: bool = False
    ) -> None:
        """`lost` is who did not say that it would go: called once more, to know whether it died.

        `parted` is who made room: called at once it would have to make room again.
        """
        self._connected.discard(peer)
        if (target := self._peers.get(peer)) is not None:
            target.due_at_s = now_at_s + self._wait_s(max(target.refusals, _PARTED * parted))
            target.lost = lost
            self._marked[peer] = None

    def left(self, peer: PeerId) -> None:
        """It said good-bye: no reason to call."""
        self._peers.pop(peer, None)

    def succeeded(self, dial: Dial, peer: PeerId) -> None:
        """A dial has ended in a connection to `peer`."""
        if dial.peer is None:
            self._bootstrap_peers[dial.addresses[0]] = peer
        self._ended(dial, failed=False, now_at_s=0.0)
        if len(dial.addresses) == 1 and not is_relayed(dial.addresses[0]):
            # Of several nobody says which it was, and the others may be somebody else's.
            self._failing.pop(place_of(dial.addresses[0]), None)
            self._failing.pop(host_of(dial.addresses[0]), None)

    def failed(self, dial: Dial, now_at_s: float, error: BatonError | None = None) -> None:
        """A dial has ended without a connection at `now_at_s`; the next one is made later."""
        self._ended(dial, failed=True, refused=isinstance(error, Refused), now_at_s=now_at_s)
        if dial.peer is not None:
            self.unreachable(dial.addresses, now_at_s, error)

    def hurry(self, now_at_s: float) -> None:
        """This machine's network has changed: whom it failed to reach may be called again."""
        self._failing.clear()
        for target in (*self._peers.values(), *self._bootstraps.values()):
            target.due_at_s = min(target.due_at_s, now_at_s + self._wait_s(0))

    def unreachable(
        self, addresses: Sequence[str], now_at_s: float, error: BatonError | None = None
    ) -> None:
        """Nobody that was expected answered there: not asked again soon, under whatever key."""
        if self.cut_off and not isinstance(error, WrongPeer):
            return
        for address in addresses:
            if isinstance(error, WrongPeer) and error.found and address == error.address:
                self.found(address, error.found, now_at_s)
                continue
            self._note_failing(place_of(address), 0, now_at_s)
            host = host_of(address)
            if host and not is_relayed(address) and scope_of(host) is not Scope.LOOPBACK:
                self._note_failing(host, self.config.host_failures, now_at_s)

    def _note_failing(self, where: str, free: int, now_at_s: float) -> None:
        failing = self._failing.pop(where, None) or _Failing()
        failing.failures += 1
        if failing.failures > free:
            failing.due_at_s = now_at_s + self._wait_s(failing.failures - free)
        self._failing[where] = failing

    def to_call(self, peer: PeerId, said: tuple[str, ...], now_at_s: float) -> tuple[str, ...]:
        """Where `peer` may be called now; `said` is where it may be if nothing is known here.

        Nobody else can have a peer's own places closed that it was met at.
        """
        target = self._peers.get(peer)
        if target is not None and target.proven:
            return target.addresses
        addresses = said if target is None else target.addresses
        return tuple([it for it in addresses if self._is_open(peer, it, now_at_s)])

    def found(self, address: str, peer: PeerId, now_at_s: float) -> None:
        """A call for somebody else found `peer` at this address.

        So whoever else is said to be there is not called there, and `peer` itself is: keys that
        name its address for theirs do not keep us from it.
        """
        self._owners[place_of(address)] = _Owner(peer, now_at_s + _OWNED_S)

    def _is_open(self, peer: PeerId, address: str, now_at_s: float) -> bool:
        owner = self._owners.get(place_of(address))
        if owner is not None and now_at_s < owner.until_at_s:
            return owner.peer == peer
        for where in (place_of(address), host_of(address)):
            if (failing := self._failing.get(where)) and now_at_s < failing.due_at_s:
                return False
        return True

    def _ended(self, dial: Dial, now_at_s: float, *, failed: bool, refused: bool = False) -> None:
        if dial.peer is None:
            target = self._bootstraps.get(dial.addresses[0])
        else:
            target = self._peers.get(dial.peer)
        if target is None:
            return
        target.dialing = target.lost = False
        counts = not self.cut_off or target.failures < _FAILURES_CUT_OFF
        target.failures = target.failures + counts if failed else 0
        target.refusals = target.refusals + refused if failed else 0
        target.due_at_s = now_at_s + self._wait_s(target.failures)
        # A stranger that never answers makes room for one that may; who was met may come back.
        most = _MET_FAILURES_MAX if target.proven else _FAILURES_MAX
        if dial.peer is not None and target.failures > most:
            self._peers.pop(dial.peer, None)

    def _wait_s(self, failures: int) -> float:
        config = self.config
        most_s = config.cut_off_retry_s_max if self.cut_off else config.retry_s_max
        wait_s = min(most_s, config.first_retry_s * 2.0 ** min(failures, 64))
        # Half of it is drawn, so that a restarted bootstrap is not called by all at once.
        return wait_s * (0.5 + 0.5 * self.random.random())

    def due(self, now_at_s: float) -> list[Dial]:
        """Whom to call now; each is counted as under way until it succeeded or failed."""
        marked = self._looked_at()
        under_way = sum([it.dialing for it in (*marked.values(), *self._bootstraps.values())])
        room = self.config.dials_at_once - under_way
        dials: list[Dial] = []
        for address, target in self._bootstraps.items():
            peer = self._bootstrap_peers.get(address)
            # One that was met has brought us in, and may have to make room for others.
            if peer in self._connected or (peer is not None and self._connected):
                continue
            if len(dials) < room and self._ready(target, now_at_s):
                dials.append(Dial(None, target.addresses))
        wanted = self.config.connections_wanted - len(self._connected) - len(dials) - under_way
        lost = [
            Dial(peer, target.addresses)
            for peer, target in marked.items()
            if target.lost and peer not in self._connected and self._ready(target, now_at_s)
            if not self.skips(target.addresses)
        ]
        dials.extend(lost[: max(0, room - len(dials))])
        self._begin(dials)
        if len(dials) < room and (anchor := self._next_anchor(now_at_s)) is not None:
            dials.append(anchor)
            self._begin([anchor])
        count = min(wanted - len(lost), room - len(dials))
        if count > 0:
            dials.extend(self._strangers(count, now_at_s))
        if now_at_s >= self._roam_at_s and not dials and room > 0:
            dials.extend(self._roam(now_at_s))
        self._begin(dials)
        return dials

    def _looked_at(self) -> dict[PeerId, _Target]:
        """Those of the marked that are still called, or were lost and not called since."""
        known = {it: self._peers[it] for it in self._marked if it in self._peers}
        marked = {it: target for it, target in known.items() if target.dialing or target.lost}
        self._marked = dict.fromkeys(marked)
        return marked

    def _next_anchor(self, now_at_s: float) -> Dial | None:
        """A peer that was met before this start, each called once in any case.

        Else a lying bootstrap, and keys that all call us, would have a restarted peer alone.
        """
        while self._anchors:
            peer = self._anchors.pop(0)
            target = self._peers.get(peer)
            if target is not None and peer not in self._connected and self._ready(target, now_at_s):
                return Dial(peer, target.addresses)
        return None

    def _begin(self, dials: list[Dial]) -> None:
        for dial in dials:
            key = dial.addresses[0]
            (self._bootstraps[key] if dial.peer is None else self._peers[dial.peer]).dialing = True
            self._marked.update(() if dial.peer is None else ((dial.peer, None),))

    def _roam(self, now_at_s: float) -> list[Dial]:
        """Somebody to call although there are neighbours enough, or a bootstrap.

        The halves of a network that was torn have enough of their own, and would never call each
        other again.
        """
        large = len(self._peers) >= self.config.large_network
        every_s = self.config.roam_large_every_s if large else self.config.roam_every_s
        every_s *= 0.5 + self.random.random()
        first, self._roam_at_s = not self._roam_at_s, now_at_s + every_s
        if first:
            return []
        lost = [
            Dial(None, target.addresses)
            for address, target in self._bootstraps.items()
            if self._bootstrap_peers.get(address) not in self._connected
            and self._ready(target, now_at_s)
        ]
        others = self._strangers(len(lost) + 1, now_at_s)
        return [self.random.choice(lost + others)] if lost or others else []

    def _strangers(self, count: int, now_at_s: float) -> list[Dial]:
        """The least failed first, drawn among equals, so that no peer is everybody's neighbour.

        Whoever is behind a relay comes after the others: the relay carries all that is said.
        """
        ready = [
            peer
            for peer, target in self._peers.items()
            if not target.dialing and now_at_s >= target.due_at_s and peer not in self._connected
        ]
        self.random.shuffle(ready)
        ready.sort(key=lambda it: (self._peers[it].failures, self._peers[it].is_relayed))
        chosen: list[Dial] = []
        for peer in ready:
            if len(chosen) == count:
                break
            addresses = self.to_call(peer, (), now_at_s)
            may = addresses and not self.skips(addresses)
            if may and (self._peers[peer].proven or self._tokens.take(now_at_s)):
                chosen.append(Dial(peer, addresses))
        return chosen

    def _ready(self, target: _Target, now_at_s: float) -> bool:
        return not target.dialing and now_at_s >= target.due_at_s

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        return () if (target := self._peers.get(peer)) is None else target.addresses

    def met(self) -> dict[PeerId, tuple[str, ...]]:
        """Whom we were connected to, and where: what is worth keeping over a restart."""
        return {peer: it.addresses for peer, it in self._peers.items() if it.proven}

    def known(self) -> dict[PeerId, tuple[str, ...]]:
        """What is worth keeping over a restart, whoever was met first."""
        targets = sorted(self._peers.items(), key=lambda it: not it[1].proven)
        return {peer: target.addresses for peer, target in targets}
