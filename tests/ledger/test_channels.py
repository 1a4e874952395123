"""Channels: one writer at a time, so that a deposit is neither spent twice nor lost."""

import itertools

import pytest

from node.ledger.books import Changes, Draft, put
from node.ledger.epoch_outcome import applied_all
from node.ledger.judging import judge
from node.ledger.payment_channel import channel_name
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.simulation import GRANT
from wire.content import ContentId
from wire.errors import Malformed, Refused, WireError
from wire.ledger import Opening, Redemption, TopUp, Voucher, order_digest

DEPOSIT = 10_000


def opened(made: Made, *, expiry: int = 0, count: int = 1) -> list[bytes]:
    """Channels from ONE to TWO; their names."""
    opening = Opening(payee=TWO.peer, deposit=DEPOSIT, expiry=expiry)
    order = made.order(open=(opening,) * count)
    made.done(order)
    return [channel_name(order_digest(order), number) for number in range(count)]


def redemption(
    made: Made, channel: bytes, total: int | None, *, release: bool = False
) -> Redemption:
    voucher = None if total is None else made.voucher(channel, total)
    return Redemption(channel=channel, voucher=voucher, release=release)


def test_a_payee_redeems_step_by_step_and_what_is_left_goes_back() -> None:
    made = Made()
    (channel,) = opened(made)
    assert made.balance(ONE) == GRANT - DEPOSIT
    made.done(made.order(TWO, redeem=(redemption(made, channel, 3000),)))
    # A twentieth of what is redeemed goes to the fund.
    assert made.balance(TWO) == GRANT + 3000 - 150
    made.done(made.order(TWO, redeem=(redemption(made, channel, 4500, release=True),)))
    assert (made.balance(ONE), made.balance(TWO)) == (GRANT - 4500, GRANT + 4500 - 225)
    with pytest.raises(Refused, match="no such channel"):
        made.replicas[0].vote(made.order(TWO, redeem=(redemption(made, channel, 5000),)))


def test_sixty_four_channels_are_opened_by_one_order_and_no_more() -> None:
    made = Made()
    assert len(set(opened(made, count=64))) == 64
    with pytest.raises(WireError):
        opened(made, count=65)


@pytest.mark.parametrize(
    ("total", "why"), [(3000, "more than"), (2999, "more than"), (DEPOSIT + 1, "at most")]
)
def test_a_voucher_that_is_lower_equal_or_beyond_the_deposit_is_refused(
    total: int, why: str
) -> None:
    made = Made()
    (channel,) = opened(made)
    made.done(made.order(TWO, redeem=(redemption(made, channel, 3000),)))
    with pytest.raises(Refused, match=why):
        made.replicas[0].vote(made.order(TWO, redeem=(redemption(made, channel, total),)))


def test_a_voucher_of_another_payer_channel_network_or_by_another_payee_is_refused() -> None:
    made = Made()
    first, second = opened(made, count=2)
    member = made.replicas[0]
    other = ContentId.of(b"another network")
    for voucher, why in (
        (made.voucher(first, 5000, THREE), "not signed by the channel's payer"),
        (made.voucher(second, 5000), "of another channel"),
        (made.voucher(first, 5000, network=other), "of another channel"),
    ):
        redeemed = Redemption(channel=first, voucher=voucher, release=False)
        with pytest.raises(Refused, match=why):
            member.vote(made.order(TWO, redeem=(redeemed,)))
    with pytest.raises(Refused, match="another payee"):
        member.vote(made.order(THREE, redeem=(redemption(made, first, 5000),)))
    with pytest.raises(WireError):
        member.vote(
            made.order(TWO, redeem=(Redemption(channel=first, voucher=b"x", release=False),))
        )


def test_a_channel_is_the_payees_until_its_epoch_is_over_and_the_payers_after_it() -> None:
    made = Made()
    (channel,) = opened(made, expiry=0)
    member = made.replicas[0]
    with pytest.raises(Refused, match="until the end of epoch 0"):
        member.vote(made.order(reclaim=(channel,)))
    kept = member.draft.channels[channel]
    later = Draft(member.books, 1, dict(member.draft.accounts), {channel: kept})
    member.draft = later
    late = made.order(TWO, redeem=(redemption(made, channel, 5000),))
    with pytest.raises(Refused, match="ended with epoch 0"):
        judge(later, late)
    reclaims = made.order(reclaim=(channel,))
    judge(later, reclaims)
    later.apply(reclaims)
    assert later.account(ONE.peer).balance == GRANT


def test_orders_that_were_certified_together_come_to_the_same_in_every_order() -> None:
    made = Made()
    (channel,) = opened(made, expiry=9)
    orders = [
        made.order(ONE, top_up=(TopUp(channel=channel, amount=7000, expiry=12),)),
        made.order(TWO, redeem=(redemption(made, channel, 6000, release=True),)),
        made.order(THREE),
    ]
    member = made.replicas[0]
    before = (dict(member.draft.accounts), dict(member.draft.channels))
    ends = set()
    for some in itertools.permutations(orders):
        draft = Draft(member.books, 0, dict(before[0]), dict(before[1]))
        for order in some:
            draft.apply(order)
        ends.add((draft.digest(), draft.sums()))
    assert len(ends) == 1
    # An opening and what rests on it, in the wrong order, sort themselves out.
    fresh = Draft(member.books, 0)
    assert applied_all(fresh, [*orders, *member.orders.values()]) == []
    assert applied_all(Draft(member.books, 0), orders[1:2]) == orders[1:2]


def test_a_closed_channel_is_gone_from_the_books_and_an_open_one_is_in_them() -> None:
    made = Made()
    first, second = opened(made, count=2)
    made.done(made.order(TWO, redeem=(redemption(made, first, 4000, release=True),)))
    changes = made.replicas[0].draft.changes()
    assert changes.channels[first] is None
    assert changes.channels[second] is not None
    assert made.replicas[0].draft.sums()[1] == DEPOSIT


def test_a_payers_channels_are_found_in_the_epoch_and_after_it() -> None:
    made = Made()
    first, _ = opened(made, expiry=9, count=2)
    draft = made.replicas[0].draft
    assert len(draft.channels_of(ONE.peer)) == 2
    made.done(made.order(TWO, redeem=(redemption(made, first, 4000, release=True),)))
    assert [it.locked for it in draft.channels_of(ONE.peer)] == [DEPOSIT]
    put(draft.books, draft.changes())
    later = Draft(draft.books, 1)
    assert [it.locked for it in later.channels_of(ONE.peer)] == [DEPOSIT]
    assert later.channels_of(TWO.peer) == []
    put(draft.books, Changes(channels=dict.fromkeys(draft.books.payers[ONE.peer].copy())))
    assert draft.books.payers == {}
    assert draft.books.deposits == 0


def test_a_redemption_without_voucher_or_end_and_a_channel_named_twice_are_none() -> None:
    with pytest.raises(Malformed):
        Redemption(channel=bytes(32), voucher=None, release=False)
    made = Made()
    with pytest.raises(Malformed):
        made.order(reclaim=(bytes(32), bytes(32)))
    with pytest.raises(WireError):
        Voucher(network=made.genesis.id, channel=bytes(32), total=0, tasks=0, receipt=None)


def test_a_voucher_that_comes_after_its_channel_was_closed_is_void_for_everybody() -> None:
    made = Made()
    (channel,) = opened(made)
    higher = redemption(made, channel, 7000)
    closing = made.order(TWO, redeem=(redemption(made, channel, 3000, release=True),))
    made.done(closing)
    late = made.order(TWO, redeem=(higher,))
    for member in made.replicas:
        with pytest.raises(Refused, match="no such channel"):
            member.vote(late)
    # What the payee closed it at is in the books, signed by both: 4,000 are the payer's again.
    assert (made.balance(ONE), made.balance(TWO)) == (GRANT - 3000, GRANT + 3000 - 150)
    assert closing.record.redeem[0].voucher is not None
