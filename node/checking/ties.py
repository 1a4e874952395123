"""Which verifiers may be one owner's: those that one neighbour told of, or that sit side by side.

Pure. A key costs nothing and an address range something, so of peers with the same introducer or
address prefix one is asked while others are known, however much they have staked. Of those that
show the same owner never more than one is asked.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from p2p.ip_address import Scope, host_of, scope_of
from p2p.view import View
from wire.content import PeerId

IPV4_PREFIX_BITS = 16
IPV6_PREFIX_BITS = 32
# All peers of a demo, a test or a private network sit at addresses that say nothing.
NEAR = "near"

Ties = Mapping[PeerId, frozenset[str]]


def ties_of(introducer: PeerId | None, addresses: tuple[str, ...]) -> frozenset[str]:
    """What ties a peer to others. Of its addresses only the first counts.

    Else a peer that claims many could tie itself to all others, and take their places.
    """
    found = {_prefix_of(host_of(addresses[0]) if addresses else "")}
    if introducer is not None:
        found.add(f"by {introducer}")
    return frozenset(found)


def ties_in(
    view: View, peers: Iterable[PeerId], wall_s: float, admitters: Mapping[PeerId, PeerId]
) -> Ties:
    """What ties peers to each other, of those that a view knows.

    `admitters` are who vouched for them, where that is known: nobody else can introduce them.
    """
    found = map(view.entry_of, peers)
    return {
        it.heard.signer: ties_of(
            admitters.get(it.heard.signer, it.introducer), it.heard.record.reached_at
        )
        for it in found
        if it is not None and it.until_wall_s > wall_s
    }


@lru_cache(maxsize=4096)
def _prefix_of(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return f"name {host}" if host else NEAR
    if scope_of(host) is not Scope.GLOBAL:
        return NEAR
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    bits = IPV4_PREFIX_BITS if address.version == 4 else IPV6_PREFIX_BITS
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def apart_first(drawn: Iterable[PeerId], asked: Iterable[PeerId], ties: Ties) -> list[PeerId]:
    """Those drawn, in order, but who is tied to one before it, or to one asked, comes last."""
    taken = set[str]().union(*(ties.get(it, frozenset()) for it in asked))
    first, last = list[PeerId](), list[PeerId]()
    for peer in drawn:
        mine = ties.get(peer, frozenset())
        if mine & taken:
            last.append(peer)
        else:
            first.append(peer)
            taken |= mine
    return first + last


def one_of_each(drawn: Iterable[PeerId], owner_of: Callable[[PeerId], PeerId]) -> list[PeerId]:
    """Those drawn, in order, without who has the owner of one before it."""
    first: dict[PeerId, PeerId] = {}
    for peer in drawn:
        first.setdefault(owner_of(peer), peer)
    return list(first.values())


def tied_among(peers: Iterable[PeerId], ties: Ties) -> int:
    """How many of these are tied to another of them."""
    each = {it: ties.get(it, frozenset()) for it in peers}
    shared = Counter(tie for mine in each.values() for tie in mine)
    return sum(any(shared[tie] > 1 for tie in mine) for mine in each.values())
