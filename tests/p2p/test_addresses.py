"""Addresses come from anybody: each is read in full or refused, whatever it is made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr.protocols import PROTOCOLS

from p2p.over_libp2p.addresses import (
    MEMORY_FORMS,
    TCP_FORMS,
    Forms,
    read_dialable,
    read_listenable,
)
from tests.p2p.transports import key_of
from wire.errors import InputError

ME = key_of("me").peer
NAMES = sorted(protocol.name for protocol in PROTOCOLS)
VALUES = (
    "1",
    "0",
    "-1",
    "9" * 40,
    "::",
    "%",
    "\x01",
    "é",
    "a..b",
    "xn--a",
    "x" * 100,
    "\ud800",
    "",
)


@pytest.mark.parametrize("name", NAMES)
def test_an_address_of_any_protocol_is_read_in_full_or_refused(name: str) -> None:
    for value in VALUES:
        for shape in ("/{it}/tcp/1", "/ip4/192.0.2.1/{it}", "/{it}", "/{it}/{it}"):
            _read(shape.replace("{it}", f"{name}/{value}"))
            _read(shape.replace("{it}", f"{name}/{value}") + f"/p2p/{ME}")


@given(st.lists(st.sampled_from((*NAMES, *VALUES, str(ME), "/", "192.0.2.1")), max_size=9))
def test_an_address_of_odd_parts_is_read_in_full_or_refused(parts: list[str]) -> None:
    _read("/" + "/".join(parts))


@given(st.text())
def test_any_text_is_read_in_full_or_refused(text: str) -> None:
    _read(text)


@pytest.mark.parametrize(
    ("forms", "where"),
    [
        (TCP_FORMS, "/ip4/192.0.2.7/tcp/4710"),
        (TCP_FORMS, "/ip6/2001:db8::1/tcp/4710"),
        (TCP_FORMS, "/dns4/peer-1.example.org/tcp/1"),
        (MEMORY_FORMS, "/memory/7"),
    ],
)
def test_the_addresses_we_use_are_read(forms: Forms, where: str) -> None:
    read = read_dialable(f"{where}/p2p/{ME}", forms)
    assert (str(read.where), read.peer) == (where, ME)


def test_the_address_that_ended_every_peer_is_refused() -> None:
    with pytest.raises(InputError, match="of a kind this peer does not dial"):
        read_dialable(f"/ip6zone/1/tcp/1/p2p/{ME}", TCP_FORMS)


def _read(text: str) -> None:
    for forms in (TCP_FORMS, MEMORY_FORMS):
        try:
            read = read_dialable(text, forms)
        except InputError:
            pass
        else:
            assert read.peer == ME
            assert tuple(it.name for it in read.where.protocols()) in forms.dial
        try:
            where = read_listenable(text, forms)
        except InputError:
            pass
        else:
            assert tuple(it.name for it in where.protocols()) in forms.listen
