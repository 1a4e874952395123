"""Who may be connected: counted by address prefix, and who gives way when there is no room.

A pure core. Newcomers are not refused: for them the quietest connection that has no request at work
is closed, out of the address prefix that has the most. One network that opens many silent
connections so takes room only from itself.
"""

import ipaddress
from dataclasses import dataclass, field

# Who owns one IPv4 /24, or one IPv6 /56, can usually use every address in it.
IPV4_PREFIX_BITS = 24
IPV6_PREFIX_BITS = 56
# Addresses that have none, such as those of a Unix socket, count as one prefix.
NO_PREFIX = ""


@dataclass(slots=True, eq=False)
class ConnectionSlot:
    """One connection, as the table sees it."""

    prefix: str
    # When a byte last came from the client, or was last taken by it.
    heard_at_s: float
    # Whether a request of it is at work: then it does not give way.
    at_work: bool = False


@dataclass(slots=True)
class ConnectionTable:
    """The connections that are open, at most `connections_max`."""

    connections_max: int
    _slots: set[ConnectionSlot] = field(default_factory=set)
    _by_prefix: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, prefix: str, now_at_s: float) -> ConnectionSlot:
        """A place for a newcomer, besides those that there are; see `evicted`."""
        slot = ConnectionSlot(prefix, now_at_s)
        self._slots.add(slot)
        self._by_prefix[prefix] = self._by_prefix.get(prefix, 0) + 1
        return slot

    def remove(self, slot: ConnectionSlot) -> None:
        """Forget a connection; nothing happens if it was removed before."""
        if slot not in self._slots:
            return
        self._slots.discard(slot)
        left = self._by_prefix[slot.prefix] - 1
        if left:
            self._by_prefix[slot.prefix] = left
        else:
            del self._by_prefix[slot.prefix]

    def evicted(self, newcomer: ConnectionSlot) -> ConnectionSlot | None:
        """Who has to go, and is forgotten here, because of `newcomer`; None if there is room.

        Where all others are at work it is the newcomer itself.
        """
        if len(self._slots) <= self.connections_max:
            return None
        chosen = self.quietest(newcomer) or newcomer
        self.remove(chosen)
        return chosen

    def quietest(self, besides: ConnectionSlot | None = None) -> ConnectionSlot | None:
        """Of the prefix with the most connections, the one that was silent the longest."""
        waiting = [it for it in self._slots if not it.at_work and it is not besides]
        counts = self._by_prefix
        return min(waiting, key=lambda it: (-counts[it.prefix], it.heard_at_s), default=None)


def prefix_of(address: str) -> str:
    """The prefix that an address is counted under, as text; `NO_PREFIX` for what is no address."""
    # Link-local addresses come with the name of a network interface.
    bare = address.partition("%")[0]
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return NO_PREFIX
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    bits = IPV4_PREFIX_BITS if found.version == 4 else IPV6_PREFIX_BITS
    return str(ipaddress.ip_network((found, bits), strict=False))
