"""Where the peers of a devnet stand is drawn from the seed, in the shares that were asked for."""

from collections import Counter

import pytest

from node.devnet.homes import Homes, check_enough_are_open, parse
from p2p.ip_address import is_public, network_of
from wire.errors import InputError


def test_a_share_is_a_third_symmetric_and_of_every_kind() -> None:
    homes = Homes(parse("0.8"), 1000, 7)
    kinds = Counter(homes.kind_of(it) for it in range(1000))
    assert kinds["open"] == 200
    assert 266 <= kinds["symmetric"] <= 267
    assert set(kinds) == {"open", "cone", "symmetric", "carrier", "home"}
    assert homes.kind_of(0) == "open"
    sites = [homes.site_of(it) for it in range(1000)]
    assert all(is_public(it.seen()) for it in sites)
    assert len({network_of(it.seen()) for it in sites if it.router is None}) == 200
    shared = Counter(it.seen() for it in sites)
    assert set(shared.values()) == {1, 2, 4} | ({kinds["carrier"] % 4} - {0})


def test_the_same_seed_is_the_same_place_also_for_who_comes_later() -> None:
    one, two, other = (Homes(parse("0.5"), 20, seed) for seed in (7, 7, 8))
    assert [one.site_of(it).host for it in range(40)] == [two.site_of(it).host for it in range(40)]
    assert one.site_of(33) is one.site_of(33)
    assert [one.kind_of(it) for it in range(40)] != [other.kind_of(it) for it in range(40)]


def test_shares_of_each_kind_and_none() -> None:
    homes = Homes(parse("symmetric=0.5"), 10, 1)
    assert Counter(homes.kind_of(it) for it in range(10)) == {"symmetric": 5, "open": 5}
    for none in ("", "0", "cone=0"):
        assert not parse(none)


@pytest.mark.parametrize(
    "text", ["x", "1.5", "-1", "nan", "cone", "cone=2", "a=0.1", "cone=0.1,cone=0.2"]
)
def test_what_is_no_share_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert "symmetric" in error.value.todo


def test_a_network_of_which_nobody_can_be_called_is_refused() -> None:
    check_enough_are_open(parse("0.8"), 16)
    with pytest.raises(InputError, match="only 2 would be open"):
        check_enough_are_open(parse("0.8"), 12)
