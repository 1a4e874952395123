"""Where the peers of a devnet stand: on the open internet, or behind which kind of router.

`parse` reads `0.8`, or `cone=0.3,symmetric=0.2`; `Homes` draws from a seed where each peer
stands. Servers and routers are of different networks, as strangers' are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from p2p.over_libp2p import Router, Site
from wire.errors import InputError

PORT = 4747
# Of the peers behind routers, if nothing else is said: a third symmetric, a third each behind a
# router of its own that keeps ports, and the others behind a carrier's or two to a home.
USUAL: Mapping[str, float] = {"cone": 1 / 3, "symmetric": 1 / 3, "carrier": 1 / 6, "home": 1 / 6}
WHAT: Mapping[str, str] = {
    "cone": "a router of its own, which keeps ports",
    "symmetric": "a router of its own, which gives each call another port",
    "carrier": "a router that stands behind a carrier's, with others",
    "home": "two peers behind one router",
}
# Fewer than this call nobody back, and keep nobody whose own relay is gone.
OPEN_MIN = 3
PER_CARRIER, PER_HOME = 4, 2
_FIRST_OCTETS, _SECOND_OCTETS = range(20, 90), range(1, 251)


@dataclass(frozen=True, slots=True)
class NatShares:
    """Which share of all peers stands behind each kind of router; the others are open.

    `text` is what was typed.
    """

    text: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The share of all peers that nobody can call."""
        return sum(self.shares.values())

    def __bool__(self) -> bool:
        return bool(self.shares)


def parse(text: str) -> NatShares:
    """Read a share of all kinds together, or one for each kind; InputError says how to write it."""
    todo = f"give a share, as 0.8, or shares of {', '.join(USUAL)}, as cone=0.3,symmetric=0.2"
    shares: dict[str, float] = {}
    try:
        if text and "=" not in text:
            shares = {name: float(text) * part for name, part in USUAL.items()}
        for word in filter(None, text.split(",") if "=" in text else ()):
            name, _, share = word.strip().partition("=")
            if name not in USUAL or name in shares:
                raise ValueError(name)
            shares[name] = float(share)
    except ValueError as error:
        raise InputError(f"{text[:60]!r} says of no routers", todo=todo) from error
    shares = {name: share for name, share in shares.items() if share != 0.0}
    if not all(0.0 < it <= 1.0 for it in shares.values()) or sum(shares.values()) > 1.0 + 1e-9:
        raise InputError(f"{text[:60]!r} are no shares of one network", todo=todo)
    return NatShares(text if shares else "", shares)


def check_enough_are_open(nat: NatShares, peers: int) -> None:
    """InputError if too few peers are left that the others can call."""
    count = peers - sum(_counts(nat, peers).values())
    if nat and count < OPEN_MIN:
        raise InputError(
            f"of {peers} peers only {count} would be open, and the others are called through these",
            todo=f"leave {OPEN_MIN} open: give less with --nat, or more --peers",
        )


def _counts(nat: NatShares, peers: int) -> dict[str, int]:
    """How many peers stand behind each kind of router; together as near to the total as can be."""
    counts, given, due = {}, 0, 0.0
    for name, share in nat.shares.items():
        due += share * peers
        counts[name] = round(due) - given
        given += counts[name]
    return counts


@dataclass(slots=True)
class Homes:
    """Where each peer of a network of `peers` stands, by its number; also those that come later."""

    nat: NatShares
    peers: int
    seed: int
    _kinds: list[str] = field(default_factory=list)
    _sites: dict[int, Site] = field(default_factory=dict)
    _last: dict[str, tuple[Router, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = _counts(self.nat, self.peers)
        kinds = [name for name, count in counts.items() for _ in range(count)]
        # The first peer is everybody's way in while the others start.
        kinds += ["open"] * (self.peers - 1 - len(kinds))
        Random(f"{self.seed}:homes").shuffle(kinds)
        self._kinds = ["open", *kinds]
        for number in range(self.peers):
            self._sites[number] = self._stand(number, self._kinds[number])

    def kind_of(self, number: int) -> str:
        """What kind of router this peer stands behind; "open" for none."""
        while len(self._kinds) <= number:
            random = Random(f"{self.seed}:home:{len(self._kinds)}")
            names = [*self.nat.shares, "open"]
            weights = [*self.nat.shares.values(), max(0.0, 1.0 - self.nat.total)]
            self._kinds.append(random.choices(names, weights)[0])
        return self._kinds[number]

    def site_of(self, number: int) -> Site:
        """Where this peer stands, through all its starts."""
        site = self._sites.get(number)
        if site is None:
            site = self._sites[number] = self._stand(number, self.kind_of(number))
        return site

    def _stand(self, number: int, kind: str) -> Site:
        place = _place(number)
        match kind:
            case "open":
                return Site(f"{place}.10")
            case "home":
                router, nth = self._shared(kind, PER_HOME, number)
                return Site(f"192.168.1.{nth + 2}", router)
            case "carrier":
                carrier, _ = self._shared(kind, PER_CARRIER, number)
                inner = Router(f"100.{64 + number // 65_536}.{number // 256 % 256}.{number % 256}")
                inner.carrier = carrier
                return Site("192.168.1.2", inner)
        return Site("192.168.1.2", Router(f"{place}.1", symmetric=kind == "symmetric"))

    def _shared(self, kind: str, count: int, number: int) -> tuple[Router, int]:
        """A router that so many peers share, and how many stand behind it already."""
        router, used = self._last.get(kind, (Router(""), count))
        if used == count:
            router, used = Router(f"{_place(number)}.1"), 0
        self._last[kind] = router, used + 1
        return router, used


def _place(number: int) -> str:
    """The first three parts of an IP address, in a network of its own as long as there are any."""
    row, second = divmod(number, len(_SECOND_OCTETS))
    third, first = divmod(row, len(_FIRST_OCTETS))
    return f"{_FIRST_OCTETS[first]}.{_SECOND_OCTETS[second]}.{third}"
