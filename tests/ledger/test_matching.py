"""Builders are matched out of the growth share of what others pay; who pays itself loses."""

from itertools import pairwise, product
from pathlib import Path

import pytest

from node.commands.usage import read_history
from node.ledger.matching import BUILDER as BUILDER_ROW
from node.ledger.matching import builders_in, matched_by
from node.ledger.motion_shelf import parameter_row
from node.usage.report import report_of
from tests.ledger.made import ONE, THREE, TWO
from tests.ledger.simulation import GRANT, OWNERS
from tests.ledger.test_model_registry import begun, passed
from tests.ledger.test_motions import Network
from wire.amount import CREDIT
from wire.errors import Refused
from wire.ledger import Payment, growth_of
from wire.motion import BOUNDS, BuilderClaim, MotionState, Parameter
from wire.signing import SigningKey
from wire.usage import UseLine

BUILDER = OWNERS[4]


def with_builder() -> Network:
    network = begun()
    claim = BuilderClaim(account=BUILDER.peer, matched=True)
    motion = network.propose(builders=(claim,))
    passed(network, motion)
    assert network.row(motion).state is MotionState.PASSED
    assert builders_in(network.member.books.motions.rows) == [BUILDER.peer]
    return network


def test_a_builder_has_half_of_the_growth_share_of_what_others_pay_it() -> None:
    network = with_builder()
    fund = network.member.books.fund
    network.use(ONE, BUILDER, CREDIT)
    network.end()
    assert network.balance(BUILDER) == GRANT + CREDIT - 50_000 + 25_000
    assert network.member.books.fund == fund + 25_000
    # What others are paid is matched to nobody.
    network.use(ONE, TWO, CREDIT)
    network.end()
    assert network.balance(BUILDER) == GRANT + CREDIT - 25_000
    assert network.member.books.supply == network.made.genesis.supply
    network.check()


def test_what_faking_use_costs_is_told_without_what_came_back(tmp_path: Path) -> None:
    network = with_builder()
    network.use(ONE, BUILDER, CREDIT)
    network.end()
    file = tmp_path / "all.ledger"
    file.write_bytes(network.data)
    genesis, history = read_history(file, 7 * 24 * 3600)
    report = report_of(genesis, history)
    assert (report["paid"], report["cost"]) == (2 * CREDIT, 50_000 + 25_000)


def test_what_goes_round_is_not_matched() -> None:
    network = with_builder()
    network.do(BUILDER, pay=(Payment(to=THREE.peer, amount=CREDIT),))
    network.use(THREE, BUILDER, CREDIT)
    network.end()
    assert network.balance(BUILDER) == GRANT - 50_000
    network.check()


def test_a_motion_ends_it_and_one_that_changes_nothing_is_refused() -> None:
    network = with_builder()
    with pytest.raises(Refused, match="matched already"):
        network.propose(builders=(BuilderClaim(account=BUILDER.peer, matched=True),))
    with pytest.raises(Refused, match="is not matched"):
        network.propose(builders=(BuilderClaim(account=ONE.peer, matched=False),))
    passed(network, network.propose(builders=(BuilderClaim(account=BUILDER.peer, matched=False),)))
    assert builders_in(network.member.books.motions.rows) == []
    network.use(ONE, BUILDER, CREDIT)
    network.end()
    assert network.balance(BUILDER) == GRANT + CREDIT - 50_000
    network.check()


def steps(which: Parameter) -> list[int]:
    """A parameter's bounds, what is next to them, and what lies between."""
    low, high = BOUNDS[which]
    between = range(low, high + 1, max(1, (high - low) // 40))
    return sorted({low, low + 1, high - 1, high, *between})


def test_a_ring_ends_poorer_at_every_setting_within_the_bounds() -> None:
    """All that a ring pays itself comes back but the growth share, whoever of it is the author."""
    key = BUILDER_ROW + BUILDER.peer
    for growth, rate in product(steps(Parameter.GROWTH), steps(Parameter.MATCHING)):
        rows = dict((parameter_row(Parameter.MATCHING, rate), (key, b"\1")))
        for paid in (1, 19, 20, 21, 100, 999, CREDIT, 10**6 * CREDIT):
            taken = growth_of(paid, growth)
            line = UseLine(payer=ONE.peer, payee=BUILDER.peer, paid=paid, growth=taken, tasks=1)
            back = matched_by(rows, [line]).get((ONE.peer, BUILDER.peer), 0)
            # It loses whenever the fund had anything, and never gains.
            assert back < taken or back == taken == 0


def wealth(network: Network, ring: list[SigningKey]) -> int:
    """All that these keys have, their deposits with it."""
    books, mine = network.member.books, {it.peer for it in ring}
    deposits = (it.locked for shelf in books.channels for it in shelf.values() if it.payer in mine)
    return sum(books.balance(it) for it in mine) + sum(deposits)


def farmed(ring: list[SigningKey], *, closed: bool, growth: int, rate: int) -> None:
    """Have a ring pay itself where each of its keys is matched, with these shares: it loses."""
    network = Network()
    for at in range(0, len(ring), 32):
        some = [it for it in ring[at : at + 32] if it not in OWNERS]
        payments = tuple(Payment(to=it.peer, amount=GRANT // 45) for it in some)
        if payments:
            network.do(OWNERS[at // 32 % len(OWNERS)], pay=payments)
    network.end()
    rows = dict((parameter_row(Parameter.GROWTH, growth), parameter_row(Parameter.MATCHING, rate)))
    rows |= {BUILDER_ROW + it.peer: b"\1" for it in ring}
    network.member.books.motions.put(rows)
    before = wealth(network, ring)
    for payer, payee in pairwise([*ring, *ring[:1]] if closed else ring):
        network.use(payer, payee, CREDIT, 2 * CREDIT)
    network.end()
    assert network.member.books.supply == network.made.genesis.supply
    assert wealth(network, ring) < before


CORNERS = list(product(BOUNDS[Parameter.GROWTH], BOUNDS[Parameter.MATCHING]))


@pytest.mark.parametrize(("growth", "rate"), CORNERS)
@pytest.mark.parametrize("closed", [True, False])
def test_a_ring_loses_also_if_nobody_sees_that_it_is_one(
    *, closed: bool, growth: int, rate: int
) -> None:
    farmed(OWNERS, closed=closed, growth=growth, rate=rate)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("growth", "rate"), CORNERS)
@pytest.mark.parametrize("closed", [True, False])
def test_so_does_a_ring_of_200_keys(*, closed: bool, growth: int, rate: int) -> None:
    ring = [SigningKey(at.to_bytes(32, "big")) for at in range(1, 201)]
    farmed(ring, closed=closed, growth=growth, rate=rate)
