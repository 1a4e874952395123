"""Which address of a peer is printed for a neighbour to join by."""

import socket

import pytest

from p2p.ip_address import for_neighbours
from p2p.routes import outgoing_hosts

END = "/tcp/4710/p2p/me"
LAN, DOCKER, LOOP = f"/ip4/192.168.1.5{END}", f"/ip4/172.17.0.1{END}", f"/ip4/127.0.0.1{END}"
PUBLIC, LINK, LOOP6 = f"/ip4/8.8.8.8{END}", f"/ip6/fe80::1{END}", f"/ip6/::1{END}"


@pytest.mark.parametrize(
    ("addresses", "outgoing", "best"),
    [
        # Docker's bridge may come first in the system's list.
        ((DOCKER, LAN, LOOP), ("192.168.1.5",), LAN),
        ((LOOP, DOCKER, LAN), ("192.168.1.5", "2001:db8::1"), LAN),
        # No way out is known: whatever reaches further.
        ((LOOP, LINK, DOCKER), (), DOCKER),
        ((DOCKER, PUBLIC, LOOP), (), PUBLIC),
        ((LAN, PUBLIC), ("192.168.1.5",), LAN),
        ((LOOP6, LINK), (), LINK),
        # It listens on nothing else.
        ((LOOP,), ("192.168.1.5",), LOOP),
        ((LOOP, LOOP6), ("127.0.0.1",), LOOP),
        (("/memory/1/p2p/me",), (), "/memory/1/p2p/me"),
        ((), ("192.168.1.5",), ""),
    ],
)
def test_the_address_that_a_neighbour_would_use_comes_first(
    addresses: tuple[str, ...], outgoing: tuple[str, ...], best: str
) -> None:
    assert for_neighbours(addresses, outgoing) == best


def test_the_ways_out_of_this_machine_are_its_own_addresses() -> None:
    for host in outgoing_hosts():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as own:
            own.bind((host, 0))
