"""Lists that members tell each other: what one makes up takes nothing from the others."""

from hashlib import sha256

import pytest

from node.ledger import order_lists
from node.ledger.order_lists import TOLD_ORDERS_MAX, OrderLists, in_bucket
from tests.ledger.simulation import KEYS
from wire.checkpoint import ORDER_BUCKETS, buckets_of

ORDERS = [sha256(bytes((number,))).digest() for number in range(40)]


def made_up(number: int) -> list[bytes]:
    return [number.to_bytes(32, "big")] * 30_000


def test_lists_that_a_member_makes_up_without_end_push_out_its_own_alone() -> None:
    lists, bad, good = OrderLists(), KEYS[0].peer, KEYS[1].peer
    for number in range(ORDER_BUCKETS):
        lists.note(in_bucket(ORDERS, number), bad)
        lists.note(in_bucket(ORDERS, number), good)
    for number in range(2 * ORDER_BUCKETS):
        lists.note(made_up(number), bad)
    kept = sum(map(len, lists._lists.values()))
    assert kept <= TOLD_ORDERS_MAX + len(ORDERS)
    found = lists.resolve(buckets_of(ORDERS), (), set(ORDERS))
    assert found.orders == tuple(sorted(ORDERS))


def test_lists_of_ones_own_from_before_are_known_and_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(order_lists, "TOLD_ORDERS_MAX", 200)
    lists = OrderLists()
    for count in range(1, len(ORDERS) + 1):
        lists.resolve(buckets_of(()), ORDERS[:count], ())
    before = lists.resolve(buckets_of(ORDERS[:-1]), ORDERS, ORDERS)
    assert before.orders == tuple(sorted(ORDERS[:-1]))
    assert sum(map(len, lists._lists.values())) <= 200


def test_an_epoch_without_orders_needs_no_list() -> None:
    assert OrderLists().resolve(buckets_of(()), (), ()).orders == ()
