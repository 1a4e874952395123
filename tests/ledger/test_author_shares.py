"""What an author has of what is redeemed for its model: taken at redemption, and never too much."""

from random import Random

import pytest

from node.ledger.model_registry import models_in
from node.ledger.use_window import owners_in
from node.usage.history import UseHistory
from node.usage.owners import owners_of
from tests.ledger.made import ONE, THREE, TWO
from tests.ledger.simulation import GRANT, OWNERS
from tests.ledger.test_model_registry import begun, claim, passed
from tests.ledger.test_motions import MODEL, Network
from wire.amount import CREDIT
from wire.content import ContentId
from wire.errors import Malformed, Refused, WireError
from wire.ledger import GROWTH_MILLIONTHS, ModelPart, Opening, Payment, Redemption
from wire.usage import ModelUse

OTHER = ContentId.of(b"another model")
AUTHOR = THREE


def registered(share: int = 50_000) -> Network:
    network = begun()
    passed(network, network.propose(claims=(claim(share=share),)))
    assert models_in(network.member.books.motions.rows)[MODEL].share == share
    return network


def parts(amounts: dict[ContentId, int]) -> tuple[ModelPart, ...]:
    return tuple(ModelPart(model=it, amount=amounts[it]) for it in sorted(amounts))


def redeem(network: Network, total: int, amounts: dict[ContentId, int]) -> None:
    """Have TWO redeem a voucher of ONE that names these models."""
    name, _ = network.channels[ONE.peer, TWO.peer]
    voucher = network.made.voucher(name, total, models=parts(amounts))
    network.do(TWO, redeem=(Redemption(channel=name, voucher=voucher, release=False),))


def last_line(network: Network) -> tuple[ModelUse, ...]:
    member = network.member
    (line,) = member.outcome(member.applied).lines
    return tuple(line.models)


def test_a_redemption_is_divided_between_payee_fund_and_author() -> None:
    network = registered()
    payee, author, fund = (network.balance(TWO), network.balance(AUTHOR), network.member.books.fund)
    # A credit was redeemed before.
    redeem(network, 2 * CREDIT, {MODEL: 600_000, OTHER: 400_000})
    assert network.balance(AUTHOR) - author == 30_000
    assert network.balance(TWO) - payee == CREDIT - 50_000 - 30_000
    assert set(last_line(network)) == {
        ModelUse(model=MODEL, paid=600_000, author=30_000),
        ModelUse(model=OTHER, paid=400_000, author=0),
    }
    network.end()
    assert network.member.books.fund - fund == 50_000
    assert network.member.books.supply == network.made.genesis.supply
    network.check()


def test_what_was_used_before_a_model_was_registered_has_no_share() -> None:
    network = begun()
    redeem(network, 2 * CREDIT, {MODEL: 900_000})
    assert network.balance(AUTHOR) == GRANT
    passed(network, network.propose(claims=(claim(),)))
    redeem(network, 3 * CREDIT, {MODEL: 1_900_000})
    assert network.balance(AUTHOR) == GRANT + 50_000
    network.check()


def test_a_voucher_that_names_more_than_it_adds_is_counted_as_more_is_redeemed() -> None:
    network = registered(200_000)
    # All of this was promised ahead, for work that had no model yet.
    redeem(network, 2 * CREDIT, {})
    author = network.balance(AUTHOR)
    redeem(network, 2 * CREDIT + 100, {MODEL: 1_000_000})
    assert network.balance(AUTHOR) - author == 20
    redeem(network, 3 * CREDIT, {MODEL: 1_000_000})
    assert network.balance(AUTHOR) - author == 200_000
    network.end()
    network.check()


def test_shares_that_exceed_the_total_name_five_or_one_twice_are_no_voucher() -> None:
    network = begun()
    names = [ContentId.of(b"%d" % at) for at in range(5)]
    for total, models in (
        (99, parts({MODEL: 50, OTHER: 50})),
        (999, parts(dict.fromkeys(names, 1))),
        (999, (*parts({MODEL: 1}), *parts({MODEL: 1}))),
        (999, tuple(reversed(parts({MODEL: 1, OTHER: 1})))),
    ):
        with pytest.raises(WireError):
            network.made.voucher(bytes(32), total, models=models)
    with pytest.raises(Malformed):
        ModelUse(model=MODEL, paid=1, author=2)


def test_a_voucher_that_takes_back_what_it_named_is_refused() -> None:
    network = registered()
    redeem(network, 2 * CREDIT, {MODEL: 600_000})
    for amounts in ({}, {OTHER: 600_000}, {MODEL: 599_999}):
        with pytest.raises(Refused, match="names less for a model than was redeemed"):
            redeem(network, 3 * CREDIT, amounts)
    with pytest.raises(Refused, match="adds 16 millionths or more"):
        redeem(network, 2 * CREDIT + 15, {MODEL: 600_001})


def test_a_redemption_that_leaves_the_author_out_is_seen_in_the_lines() -> None:
    network = registered()
    redeem(network, 3 * CREDIT, {MODEL: 500_000})
    member = network.member
    (line,) = member.outcome(member.applied).lines
    named = sum(it.paid for it in line.models)
    assert (line.paid, named) == (2 * CREDIT, 500_000)


@pytest.mark.parametrize("seed", range(12))
def test_nobody_gets_less_than_nothing_and_credits_stay_as_many(seed: int) -> None:
    random = Random(seed)
    network = registered(random.choice((1, 50_000, 199_999, 200_000)))
    _, total = network.channels[ONE.peer, TWO.peer]
    named = {MODEL: 0, OTHER: 0}
    for _ in range(25):
        before = network.balance(TWO)
        total += random.choice((16, 17, 23, random.randint(16, 5000)))
        for model in named:
            room = total - sum(named.values())
            named[model] += random.randint(0, max(0, room))
        redeem(network, total, {it: paid for it, paid in named.items() if paid})
        assert network.balance(TWO) >= before
        if random.random() < 0.2:
            network.end()
    network.end()
    network.check()


def test_how_often_a_payee_redeems_changes_nothing() -> None:
    found = []
    for steps in ((20_000,), (7_001, 13_333, 20_000), tuple(range(100, 20_001, 100))):
        network = registered(33_333)
        for total in steps:
            redeem(network, CREDIT + total, {MODEL: total * 3 // 4})
        found.append((network.balance(AUTHOR), network.balance(TWO)))
    assert len(set(found)) == 1


def test_an_author_of_whom_nobody_heard_gets_an_account() -> None:
    network = begun()
    author = OWNERS[5]
    passed(network, network.propose(claims=(claim(author, 200_000),)))
    opening = Opening(payee=TWO.peer, deposit=CREDIT, expiry=99)
    assert opening.deposit * GROWTH_MILLIONTHS
    redeem(network, CREDIT + 1000, {MODEL: 1000})
    assert network.balance(author) == GRANT + 200


def test_an_author_who_pays_back_its_share_is_one_owner_with_the_payer() -> None:
    network = registered(200_000)
    redeem(network, 2 * CREDIT, {MODEL: 600_000})
    member = network.member
    outcome = member.outcome(member.applied)
    assert (ONE.peer, AUTHOR.peer) in outcome.moved
    history = UseHistory(1)
    history.add(outcome.draft.epoch, outcome.lines, outcome.moved)
    owners = owners_of(len(history.accounts), history.edges())
    assert owners[history.number(ONE.peer)] != owners[history.number(AUTHOR.peer)]
    network.end()
    of = owners_in(network.member.books.motions.rows)
    assert of[ONE.peer] != of[AUTHOR.peer]
    network.do(AUTHOR, pay=(Payment(to=ONE.peer, amount=1000),))
    network.end()
    of = owners_in(network.member.books.motions.rows)
    assert of[ONE.peer] == of[AUTHOR.peer] != of[TWO.peer]
    # The recount without our code has the same.
    network.check()


def test_an_author_who_has_nothing_of_a_redemption_moves_no_credits() -> None:
    network = registered(1)
    redeem(network, 2 * CREDIT, {OTHER: 900_000})
    member = network.member
    assert member.outcome(member.applied).moved == ()
