"""A million accounts with next to nothing: each costs what an account is opened with, for good."""

from random import Random

import pytest

from node.ledger import judging
from node.ledger.books import CHANGED_MAX, Draft
from tests.ledger.made import ONE, TWO, Made
from tests.ledger.simulation import GRANT
from wire.errors import Refused
from wire.ledger import Payment
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


def test_less_than_the_least_opens_no_account() -> None:
    made, (dust,) = Made(), keys(1)
    least = made.genesis.account_min
    with pytest.raises(Refused, match="a new account is opened with at least"):
        made.replicas[0].vote(made.order(ONE, pay=(Payment(to=dust.peer, amount=least - 1),)))


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
