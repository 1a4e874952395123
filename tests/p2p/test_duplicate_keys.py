"""What the neighbour of two machines with one key remembers."""

from p2p.duplicate_keys import DuplicateKeys
from tests.p2p.adverts import NOW_S, advert_of
from tests.p2p.transports import key_of
from wire.advert import Advert
from wire.signed import Signed

ME = key_of("me").peer
A, B, C = b"start  A", b"start  B", b"start  C"


def said(
    instance: bytes, number: int, name: str = "me", *, leaving: bool = False
) -> Signed[Advert]:
    return advert_of(name, instance=instance, seq=number, leaving=leaving)


def test_each_of_two_starts_hears_of_the_other_in_any_order() -> None:
    for first, second in ((1, 2), (2, 1)):
        starts = DuplicateKeys()
        a, b = said(A, first), said(B, second)
        starts.hear(b, a)
        assert starts.other(ME, A, NOW_S) == b
        assert starts.other(ME, B, NOW_S) == a
        assert starts.knows(ME, A)
        assert not starts.knows(ME, C)


def test_one_start_alone_is_not_remembered() -> None:
    starts = DuplicateKeys()
    starts.hear(said(A, 1), None)
    starts.hear(said(A, 2), said(A, 1))
    assert not starts.knows(ME, A)
    assert starts.other(ME, B, NOW_S) is None


def test_the_latest_of_each_start_counts_until_it_ends_or_leaves() -> None:
    starts = DuplicateKeys()
    starts.hear(said(B, 2), said(A, 1))
    starts.hear(said(A, 4), said(B, 2))
    starts.hear(said(A, 3), said(A, 4))
    assert starts.other(ME, B, NOW_S) == said(A, 4)
    assert starts.other(ME, B, NOW_S + 91) is None
    starts.hear(said(A, 5, leaving=True), said(A, 4))
    assert starts.other(ME, B, NOW_S) is None
    assert starts.other(ME, A, NOW_S) == said(B, 2)


def test_what_is_remembered_is_bounded() -> None:
    starts = DuplicateKeys(keys_max=3)
    for number in range(9):
        starts.hear(said(B, 2, f"peer {number}"), said(A, 1, f"peer {number}"))
    for number in range(9):
        starts.hear(said(bytes([number]) * 8, 3 + number, "peer 8"), None)
    assert len(starts._starts) == 3
    assert all(len(it) <= 2 for it in starts._starts.values())
    assert starts.knows(key_of("peer 8").peer, b"\x08" * 8)
