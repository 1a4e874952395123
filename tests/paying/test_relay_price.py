"""What passed bytes cost, and which counts of them a relay is believed."""

from random import Random

import pytest

from node.paying.channels import PaidChannel
from node.paying.relay_bytes import IN_FLIGHT_BYTES, RelayAccount
from node.paying.relay_price import ByteBill, cost_of_bytes
from p2p.transport import Moved
from tests.p2p.transports import key_of
from wire.content import ContentId
from wire.tariff import UNITS

A_PIECE = 256 << 10
ANN, BOB = key_of("ann").peer, key_of("bob").peer
# A credit for a million KiB.
PRICE = 1_000_000


@pytest.mark.parametrize("price", [1, 999, 10_000, PRICE, 10**12])
def test_pieces_of_any_size_come_to_what_the_whole_costs(price: int) -> None:
    random, bill = Random(price), ByteBill()
    pieces = [random.randrange(A_PIECE) for _ in range(300)]
    charged = sum(bill.add(it, price) for it in pieces)
    assert charged == sum(pieces) * price // (1024 * UNITS)
    assert 0 <= cost_of_bytes(sum(pieces), price) - charged <= 1


def test_what_is_needed_first_is_never_less_than_what_is_charged() -> None:
    bill = ByteBill()
    for size_bytes in (1, 1023, 1024, 1, A_PIECE):
        needed = bill.needs(size_bytes, PRICE)
        assert needed >= 1
        assert needed - 1 <= bill.add(size_bytes, PRICE) <= needed


def channel(told: int, relayed: int, tasks: int = 0) -> PaidChannel:
    found = PaidChannel(ANN, bytes(32), 10**6, 9, b"settled", charged=relayed, tasks=tasks)
    found.tariff, found.relays = ContentId.of(b"tariff"), True
    found.relayed, found.told, found.told_relayed = relayed, told, told
    found.signed, found.bytes_alone = 10**6, True
    return found


def test_a_relay_may_count_what_is_under_way_and_a_tenth_more() -> None:
    account = RelayAccount()
    account.look_at(frozenset({BOB}))
    assert account.add(100 * IN_FLIGHT_BYTES, PRICE) == 102_400
    assert not account.counts_too_much(channel(0, 0), was_kept=False)
    tolerated = 2 * 1024 + 10_240
    assert not account.counts_too_much(channel(102_400 + tolerated, 102_400), was_kept=False)
    assert account.counts_too_much(channel(102_401 + tolerated, 102_400), was_kept=False)
    # Of what it says that was for work this peer may know less; not where there was none.
    said = channel(102_401 + tolerated, 102_400)
    said.told_relayed = 0
    assert account.counts_too_much(said, was_kept=False)
    said.bytes_alone = False
    assert not account.counts_too_much(said, was_kept=False)
    said.bytes_alone, said.tasks = True, 1
    assert not account.counts_too_much(said, was_kept=False)
    account.look_at(frozenset())
    assert not account.counts_too_much(channel(102_400 + tolerated, 102_400), was_kept=False)


def test_what_an_earlier_start_forgot_is_not_the_relays_fault() -> None:
    account = RelayAccount()
    account.add(IN_FLIGHT_BYTES, PRICE)
    assert not account.counts_too_much(channel(50_000, 0), was_kept=True)
    assert not account.counts_too_much(channel(51_024, 0), was_kept=True)
    assert account.counts_too_much(channel(51_025, 0), was_kept=True)
    # Nor is there anything to forget in one that is new, or beyond what was ever promised.
    for first, was_kept in ((channel(50_000, 0), False), (channel(10**7, 0), True)):
        account = RelayAccount()
        account.add(IN_FLIGHT_BYTES, PRICE)
        assert account.counts_too_much(first, was_kept=was_kept)


def test_moved_bytes_are_counted_once_also_where_a_count_began_anew() -> None:
    account = RelayAccount()
    assert [account.count(Moved(it)) for it in (100, 100, 250, 40, 60)] == [100, 0, 150, 40, 20]


def test_charges_are_kept_with_what_was_for_bytes() -> None:
    before = channel(300, 200, tasks=2)
    before.charged, before.relayed_bytes = 250, 12_345
    after = PaidChannel.from_bytes(before.name, before.to_bytes())
    after.signed = 1000
    after.take_charges(before.charges_to_bytes())
    assert (after.charged, after.tasks, after.relayed) == (250, 2, 200)
    assert (after.relayed_bytes, after.relays) == (12_345, True)
