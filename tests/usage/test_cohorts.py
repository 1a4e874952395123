"""Cohorts, with a ring that pays itself among honest use: seen where credits go round, else priced.

The use is made up from a seed, so that the truth is known.
"""

import hashlib
import itertools
import tracemalloc
from random import Random

import pytest

from node.usage.cohorts import by_payer, cohorts_of, curve_of
from node.usage.history import UseHistory
from node.usage.owners import owners_of
from node.usage.page import page_of
from node.usage.report import payer_rows, report_of, sum_of
from tests.ledger.simulation import genesis_of
from wire.content import PeerId
from wire.errors import InputError
from wire.ledger import growth_of
from wire.usage import UseLine

WEEKS, HONEST, WORKERS, RING = 10, 400, 30, 200
RETURN_SHARE = 0.5


def key(name: str) -> PeerId:
    return PeerId(hashlib.sha256(name.encode()).digest())


def line(payer: PeerId, payee: PeerId, paid: int, tasks: int = 1) -> UseLine:
    return UseLine(payer=payer, payee=payee, paid=paid, growth=growth_of(paid), tasks=tasks)


def honest_week(random: Random, week: int) -> list[UseLine]:
    """Half of those who began come back in any later week."""
    found = []
    for user in range(HONEST):
        begun = user % 4
        if week < begun or (week > begun and random.random() >= RETURN_SHARE):
            continue
        worker = key(f"worker {random.randrange(WORKERS)}")
        found.append(line(key(f"user {user}"), worker, random.randint(1000, 50_000)))
    return found


def history_with_ring(seed: int, stops: int, *, outside: bool = False) -> tuple[UseHistory, int]:
    """The use, and what the ring paid the fund. Each key pays a fellow and has it back.

    The fellow's credits come back over so many stops; `outside` means by two accounts of a market
    between which the ledger sees nothing.
    """
    random = Random(seed)
    history, ring_paid = UseHistory(1), 0
    for week in range(WEEKS):
        lines, moves = honest_week(random, week), []
        for number in range(RING if stops else 0):
            payer, payee = key(f"ring {number}"), key(f"fellow {number % 7}")
            lines.append(line(payer, payee, 20_000))
            ring_paid += growth_of(20_000)
            way = [payee, *(key(f"stop {number % 5} {it}") for it in range(stops - 1)), payer]
            if outside:
                way = [payee, key("market in")]
                moves.append((key("market out"), payer))
            moves += itertools.pairwise(way)
        history.add(week, lines, moves)
    return history, ring_paid


def returned(history: UseHistory, owners: list[int] | None, later: int = 6) -> float:
    return 100 * curve_of(cohorts_of(history, owners), WEEKS)[later]


def owners(history: UseHistory) -> list[int]:
    return owners_of(len(history.accounts), history.edges())


@pytest.mark.parametrize("stops", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_ring_is_discounted_to_within_two_points_of_the_truth(seed: int, stops: int) -> None:
    truth = returned(history_with_ring(seed, 0)[0], None)
    history, _ = history_with_ring(seed, stops)
    assert returned(history, None) > truth + 10
    assert abs(returned(history, owners(history)) - truth) < 2


@pytest.mark.parametrize("seed", range(4))
def test_what_a_ring_pays_that_is_not_seen_is_the_cost_that_is_printed(seed: int) -> None:
    truth = history_with_ring(seed, 0)[0]
    history, ring_paid = history_with_ring(seed, 1, outside=True)
    genesis = genesis_of(1)
    fakes = {key(f"ring {number}") for number in range(RING)}
    assert returned(history, owners(history)) > returned(truth, None) + 10
    rows = payer_rows(history)
    assert sum(it["cost"] for it in rows if it["payer"] in set(map(str, fakes))) == ring_paid
    # And of all that is shown: the ring's on top of what the honest left there.
    honest = report_of(genesis, truth)["cost_discounted"]
    assert report_of(genesis, history)["cost_discounted"] == honest + ring_paid


def test_an_account_that_is_known_as_a_market_makes_nobody_one_owner() -> None:
    history, market = UseHistory(1), key("market")
    users = [key(f"user {number}") for number in range(20)]
    for week in range(3):
        lines = [line(user, key("worker"), 1000) for user in users]
        moves = [(market, user) for user in users] + [(key("worker"), market)]
        history.add(week, lines, moves)
    genesis = genesis_of(1)
    assert report_of(genesis, history)["weeks"][0]["discounted"] == 0
    assert report_of(genesis, history, [market])["weeks"][0]["discounted"] == 20
    with pytest.raises(InputError, match="paid nobody"):
        report_of(genesis, history, [key("nobody")])


def test_a_long_ring_is_one_owner_and_neighbours_of_it_are_not() -> None:
    count = 20_000
    ring = [(at, (at + 1) % count) for at in range(count)]
    found = owners_of(count + 2, [*ring, (count, 0), (0, count + 1)])
    assert len(set(found[:count])) == 1
    assert len(set(found)) == 3


def test_owners_are_those_that_reach_each_other() -> None:
    for seed in range(30):
        random = Random(seed)
        count = random.randint(1, 12)
        edges = [
            (random.randrange(count), random.randrange(count)) for _ in range(random.randint(0, 20))
        ]
        reach = [{at} for at in range(count)]
        for _ in range(count):
            for source, target in edges:
                reach = [it | {target} if source in it else it for it in reach]
        found = owners_of(count, edges)
        for one in range(count):
            for other in range(count):
                same = other in reach[one] and one in reach[other]
                assert (found[one] == found[other]) is same


def test_a_cohort_is_of_the_first_week_and_weeks_that_run_do_not_count() -> None:
    history = UseHistory(2)
    history.add(0, [line(key("a"), key("w"), 100), line(key("b"), key("w"), 50)], ())
    history.add(3, [line(key("a"), key("w"), 30), line(key("c"), key("w"), 10)], ())
    history.add(4, [line(key("b"), key("w"), 5)], ())
    first, second = cohorts_of(history)
    assert (first.week, first.active, first.use.paid) == (0, (2, 1, 1), 185)
    assert (second.week, second.active) == (1, (1, 0))
    assert curve_of([first, second], history.weeks_over) == [1.0, 0.5]
    assert by_payer(history)[0].paid == 130
    assert sum_of(by_payer(history).values()).paid == 195


def add_for_ever(history: UseHistory) -> None:
    for epoch in range(10_000):
        payers = (key(f"{epoch} {number}") for number in range(50))
        history.add(epoch, [line(it, key("w"), 7) for it in payers], ())


def test_more_pairs_than_are_held_are_refused_and_memory_is_bounded() -> None:
    history = UseHistory(1, pairs_max=2000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than 2000 pairs"):
            add_for_ever(history)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_the_page_says_the_numbers_and_nothing_that_was_typed_runs() -> None:
    history, _ = history_with_ring(1, 2)
    genesis = genesis_of(1)
    report = report_of(genesis, history) | {"name": "<script>alert(1)</script>"}
    page = page_of(report)
    assert "<script" not in page
    assert "http" not in page
    assert f"{100 * report['curve']['raw'][-1]:.1f} %" in page
    assert f"{100 * report['curve']['discounted'][-1]:.1f} %" in page
    empty = page_of(report_of(genesis, UseHistory(7)))
    assert "Nobody has paid" in empty


def test_transfers_of_dust_do_not_fill_the_memory_and_are_counted() -> None:
    history = UseHistory(1, pairs_max=1000)
    dust = [(key(f"payer {at % 7}"), key(f"dust {at}")) for at in range(5000)]
    history.add(0, [line(key("payer 0"), key("payer 1"), 500)], dust)
    assert (len(history.moved), history.unseen) == (1000, 4000)
    assert len(history.accounts) < 1010
    assert report_of(genesis_of(1), history)["transfers_unseen"] == 4000


def test_who_was_only_paid_is_not_counted_among_those_who_paid() -> None:
    history = UseHistory(7)
    history.add(0, [line(key("a"), key("w"), 100), line(key("b"), key("w"), 50)], ())
    history.add(1, [], [(key("giver"), key("taker"))])
    report = report_of(genesis_of(1), history)
    assert (report["accounts"], report["owners"], report["tasks"]) == (2, 2, 2)
