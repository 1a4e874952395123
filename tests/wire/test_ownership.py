"""An owner's word: for one peer, by one key, in a form that older peers pass on."""

import pytest

from p2p.ip_address import Scope, may_call
from tests.p2p.transports import key_of
from wire import limits
from wire.errors import BadSignature, InputError
from wire.ownership import Ownership, own_addresses, read_line, shown_in

OWNER, PEER, OTHER = key_of("owner"), key_of("peer").peer, key_of("other").peer
SIGNED = Ownership.signed_by(OWNER, PEER)
PLACE = "/ip4/203.0.113.7/tcp/4747"


def test_a_line_is_read_as_it_was_written_also_over_two_lines() -> None:
    assert read_line(SIGNED.line, PEER) == SIGNED
    assert read_line(f"  {SIGNED.line[:40]}\n{SIGNED.line[40:]}\n", PEER) == SIGNED
    SIGNED.verify()


@pytest.mark.parametrize("at", range(0, len(SIGNED.line), 13))
def test_a_line_with_another_letter_is_refused(at: int) -> None:
    letter = "b" if SIGNED.line[at] != "b" else "c"
    with pytest.raises(InputError):
        read_line(SIGNED.line[:at] + letter + SIGNED.line[at + 1 :], PEER)


@pytest.mark.parametrize("line", ["", "batonowner1", "batonowner1" + "a" * 300, "x" * 10_000, "é"])
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(InputError, match="no owner's word"):
        read_line(line, PEER)


def test_a_line_for_another_peer_is_refused_and_the_page_says_what_to_do() -> None:
    with pytest.raises(InputError) as caught:
        read_line(SIGNED.line, OTHER)
    assert caught.value.todo.endswith(f"owner sign {OTHER}")
    with pytest.raises(BadSignature):
        Ownership(peer=OTHER, owner=OWNER.peer, signature=SIGNED.signature).verify()


def test_it_stands_last_among_the_addresses_and_nobody_calls_it() -> None:
    assert len(SIGNED.address) <= limits.ADDRESS_BYTES_MAX
    assert not may_call(SIGNED.address, Scope.LOOPBACK)
    addresses = (PLACE, SIGNED.address)
    assert own_addresses(addresses) == (PLACE,)
    assert shown_in(addresses, PEER) == SIGNED


@pytest.mark.parametrize(
    "addresses",
    [
        (),
        (PLACE,),
        (SIGNED.address, PLACE),
        ("/dns/batonowner1.owner",),
        (f"/dns/{SIGNED.line}aa.owner",),
        (f"/dns/{SIGNED.line.upper()}.owner",),
        (".owner",),
    ],
)
def test_what_is_no_word_of_an_owner_shows_nothing(addresses: tuple[str, ...]) -> None:
    assert shown_in(addresses, PEER) is None


def test_another_peers_word_shows_nothing() -> None:
    assert shown_in((SIGNED.address,), OTHER) is None
