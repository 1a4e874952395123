"""A million accounts with next to nothing: each costs what an account is opened with, for good."""

from random import Random

import pytest

from node.ledger import judging
from node.ledger.books import CHANGED_MAX, Draft
from node.ledger.payment_channel import channel_name
from tests.ledger.made import ONE, TWO, Made
from tests.ledger.simulation import GRANT
from wire.errors import Refused
from wire.ledger import Opening, Payment, Redemption, order_digest
from wire.signing import SigningKey


def keys(count: int) -> list[SigningKey]:
    random = Random(14)
    return [SigningKey(random.randbytes(32)) for _ in range(count)]


def relayed(made: Made, count: int) -> int:
    """How many accounts one sum opens that is passed on from each to the next."""
    before, least = ONE, made.genesis.account_min
    for number, key in enumerate(keys(count)):
        try:
            made.done(made.order(before, pay=(Payment(to=key.peer, amount=least),)))
        except Refused:
            return number
        before = key
    return count


def test_one_sum_opens_one_account_and_no_chain_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made()
    assert relayed(made, 20) == 1
    # Control: without that, one thousandth of a credit fills the books of all members.
    monkeypatch.setattr(judging, "check_kept", lambda *_: None)
    assert relayed(Made(), 20) == 20


def test_less_than_the_least_opens_none_by_a_payment_or_out_of_a_channel() -> None:
    made, (dust, other) = Made(), keys(2)
    least = made.genesis.account_min
    with pytest.raises(Refused, match="a new account is opened with at least"):
        made.replicas[0].vote(made.order(ONE, pay=(Payment(to=dust.peer, amount=least - 1),)))
    opening = made.order(ONE, open=(Opening(payee=dust.peer, deposit=10 * least, expiry=5),) * 1)
    made.done(opening)
    name = channel_name(order_digest(opening), 0)
    for total, release in ((1, False), (least, False), (None, True)):
        voucher = None if total is None else made.voucher(name, total)
        take = (Redemption(channel=name, voucher=voucher, release=release),)
        with pytest.raises(Refused, match="a new account is opened with at least"):
            made.replicas[0].vote(made.order(dust, redeem=take))
    # What is left after the growth share is what counts.
    take = (Redemption(channel=name, voucher=made.voucher(name, 2 * least), release=False),)
    made.done(made.order(dust, redeem=take))
    assert made.balance(dust) >= least
    # From then on it takes as little as it likes.
    take = (Redemption(channel=name, voucher=made.voucher(name, 2 * least + 1), release=True),)
    made.done(made.order(dust, redeem=take))
    assert other.peer not in made.replicas[0].draft.accounts


def test_an_account_spends_all_but_the_least() -> None:
    made = Made()
    least = made.genesis.account_min
    with pytest.raises(Refused, match="an account keeps"):
        made.replicas[0].vote(made.order(ONE, pay=(Payment(to=TWO.peer, amount=GRANT),)))
    made.done(made.order(ONE, pay=(Payment(to=TWO.peer, amount=GRANT - least),)))
    assert made.balance(ONE) == least


def test_an_epoch_changes_so_many_accounts_and_no_more() -> None:
    made = Made()
    draft: Draft = made.replicas[0].draft
    first = draft.account(ONE.peer)
    for number in range(CHANGED_MAX):
        draft.accounts[number.to_bytes(32, "big")] = first
    with pytest.raises(Refused, match="this epoch is full") as refused:
        made.replicas[0].vote(made.order(ONE))
    assert refused.value.retry_after_s
