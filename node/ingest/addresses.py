"""Which IP addresses a fetch may connect to: public ones of one host, and nothing else.

Pure. The tables are our own, because what Python calls global differs from version to version. An
address that carries another one is judged by both: a gateway of the network could deliver there.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# IPv4 addresses that are nobody's public host, most telling words first.
_V4 = tuple(
    (ipaddress.IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "this machine itself"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.169.254/32", "a cloud's metadata"),
        ("169.254.0.0/16", "link-local"),
        ("100.100.100.200/32", "a cloud's metadata"),
        ("100.64.0.0/10", "a carrier's own network"),
        ("168.63.129.16/32", "a cloud's metadata"),
        ("10.0.0.0/8", "a private network"),
        ("172.16.0.0/12", "a private network"),
        ("192.168.0.0/16", "a private network"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("192.88.99.0/24", "a relay to IPv6"),
        ("198.18.0.0/15", "for benchmarks"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_V6 = tuple(
    (ipaddress.IPv6Network(network), why)
    for network, why in (
        ("::/128", "this machine itself"),
        ("::1/128", "loopback"),
        ("fd00:ec2::254/128", "a cloud's metadata"),
        ("fd20:ce::254/128", "a cloud's metadata"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "a private network"),
        ("fc00::/7", "a private network"),
        ("ff00::/8", "multicast"),
        ("2001:db8::/32", "for documentation"),
        ("3fff::/20", "for documentation"),
        # Teredo, which is in it, hides an IPv4 address behind an exclusive or.
        ("2001::/23", "reserved, or a tunnel"),
        ("2002::/16", "a tunnel (6to4)"),
        ("64:ff9b:1::/48", "a private translation to IPv4"),
        ("::/96", "an IPv4 address in an old form"),
        ("::ffff:0:0:0/96", "an IPv4 address in an old form"),
        ("100::/64", "discarded"),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Interface identifiers of ISATAP: an IPv4 address follows.
_ISATAP = (0x00005EFE, 0x02005EFE)


def why_not(address: Address) -> str:
    """In a few words, why no fetch connects to this address; "" if one may."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((why for network, why in _V4 if address in network), "")
    if address.scope_id is not None:
        return "an address of one network card"
    if address.ipv4_mapped is not None:
        return why_not(address.ipv4_mapped)
    if address in _NAT64:
        return why_not(_last_bits(address))
    if why := next((why for network, why in _V6 if address in network), ""):
        return why
    if address not in _GLOBAL_V6:
        return "reserved"
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "a tunnel (ISATAP)"
    return ""


def dialled(address: Address) -> Address:
    """The address as it is connected to: IPv4 in IPv6's clothes is plain IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _last_bits(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
