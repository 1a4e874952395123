"""Who gives way to newcomers, and how much of everything one key may hold: pure cores."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.gateway.connection_limits import NO_PREFIX, ConnectionTable, prefix_of
from node.gateway.shares import Shares


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2aa::1", "2001:db8:1:200::/56"),
        ("fe80::1%eth0", "fe80::/56"),
        ("", NO_PREFIX),
        ("nonsense", NO_PREFIX),
    ],
)
def test_an_address_counts_for_its_network(address: str, prefix: str) -> None:
    assert prefix_of(address) == prefix


def test_a_newcomer_takes_the_place_of_the_quietest_of_the_largest_network() -> None:
    table = ConnectionTable(4)
    honest = table.add("192.0.2.0/24", 0.0)
    crowd = [table.add("10.0.0.0/24", at_s) for at_s in (3.0, 1.0, 2.0)]
    crowd[1].at_work = True
    newcomer = table.add("198.51.100.0/24", 9.0)
    # The quietest of all is the honest one, but its network has fewer; one is at work.
    assert table.evicted(newcomer) is crowd[2]
    assert len(table) == 4
    another = table.add("203.0.113.0/24", 9.0)
    assert table.evicted(another) is crowd[0]
    assert honest in table._slots


def test_where_all_are_at_work_the_newcomer_goes() -> None:
    table = ConnectionTable(2)
    for _ in range(2):
        table.add("10.0.0.0/24", 0.0).at_work = True
    newcomer = table.add("192.0.2.0/24", 1.0)
    assert table.evicted(newcomer) is newcomer
    assert len(table) == 2


def test_a_crowd_from_one_network_never_drives_out_another() -> None:
    table, random = ConnectionTable(64), Random(4)
    honest = [table.add(f"192.0.{number}.0/24", 0.0) for number in range(20)]
    for turn in range(2000):
        newcomer = table.add("10.0.0.0/24", float(turn))
        table.evicted(newcomer)
        newcomer.at_work = random.random() < 0.01 and sum(it.at_work for it in table._slots) < 30
    assert all(it in table._slots for it in honest)
    assert len(table) == 64


def test_one_key_leaves_as_much_as_it_holds() -> None:
    shares = Shares(128, lambda: False)
    one, other, third = b"1", b"2", b"3"
    assert sum(shares.take(one) for _ in range(500)) == 64
    assert sum(shares.take(other) for _ in range(500)) == 32
    assert sum(shares.take(third) for _ in range(500)) == 16
    shares.give_back(one, 64)
    assert one not in shares.held
    assert sum(shares.take(other) for _ in range(500)) > 0


def test_the_only_caller_may_hold_everything() -> None:
    shares = Shares(10, lambda: True)
    assert [shares.take(b"", 4) for _ in range(3)] == [True, True, False]
    assert shares.take(b"", 2)
    assert not shares.take(b"")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9), st.booleans()), max_size=200))
def test_shares_add_up_whatever_comes(turns: list[tuple[int, int, bool]]) -> None:
    shares = Shares(40, lambda: False)
    held: list[tuple[bytes, int]] = []
    for number, amount, gives in turns:
        if gives and held:
            shares.give_back(*held.pop())
        elif shares.take(owner := bytes([number]), amount):
            held.append((owner, amount))
        assert shares.used == sum(amount for _, amount in held) <= shares.total
        assert sum(shares.held.values()) == shares.used
    for one in held:
        shares.give_back(*one)
    assert (shares.used, shares.held) == (0, {})


def test_somebody_who_has_nothing_yet_gets_something_after_any_number_of_greedy_ones() -> None:
    shares = Shares(128, lambda: False)
    for number in range(7):
        assert sum(shares.take(bytes([number])) for _ in range(500)) >= 1
