"""Lines of use follow from the orders of an epoch, and a checkpoint names them."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from node.commands.usage import read_history
from node.ledger.books import Draft
from node.ledger.chain_file import read_parts, replay
from node.ledger.use_lines import lines_of
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.test_chain_file import end_epoch, file_of
from tests.ledger.test_channels import opened
from wire.errors import InputError, Malformed
from wire.ledger import Redemption, growth_of
from wire.usage import UseLine, lines_digest


def redeem(made: Made, channel: bytes, total: int, tasks: int) -> None:
    voucher = made.voucher(channel, total, tasks=tasks)
    redemption = Redemption(channel=channel, voucher=voucher, release=False)
    made.done(made.order(TWO, redeem=(redemption,)))


def used() -> tuple[Made, list[bytes]]:
    """Two channels of ONE to TWO, redeemed twice in one epoch and once in the next."""
    made = Made()
    parts = [made.genesis.to_bytes()]
    first, second = opened(made, expiry=9, count=2)
    redeem(made, first, 3000, 3)
    redeem(made, first, 4500, 5)
    redeem(made, second, 1000, 1)
    parts += end_epoch(made)
    redeem(made, first, 7777, 6)
    made.done(made.order(THREE))
    parts += end_epoch(made)
    return made, parts


def test_lines_sum_up_what_was_redeemed_by_payer_and_payee() -> None:
    _, parts = used()
    lines: list[tuple[UseLine, ...]] = []
    found = replay(
        read_parts(io.BytesIO(file_of(parts))), lambda _, outcome: lines.append(outcome.lines)
    )
    (one,), (two,) = lines
    assert (one.payer, one.payee) == (ONE.peer, TWO.peer)
    assert (one.paid, one.tasks) == (5500, 6)
    assert one.growth == growth_of(4500) + growth_of(1000)
    assert (two.paid, two.tasks) == (3277, 1)
    assert found.tip is not None
    assert found.tip.usage == lines_digest((two,))
    assert found.books.fund == 5 + one.growth + two.growth


def test_an_epoch_without_use_has_no_digest() -> None:
    made = Made()
    made.done(made.order(ONE))
    draft = made.replicas[0].draft
    assert lines_of(Draft(draft.books, 0)) == lines_of(draft) == ()
    end_epoch(made)
    assert made.replicas[0].tip is not None
    assert made.replicas[0].tip.usage == b""


def test_a_voucher_that_counts_fewer_tasks_than_before_takes_none_away() -> None:
    made = Made()
    (channel,) = opened(made, expiry=9)
    redeem(made, channel, 3000, 9)
    redeem(made, channel, 4000, 2)
    (line,) = lines_of(made.replicas[0].draft)
    assert (line.paid, line.tasks) == (4000, 9)


def test_the_whole_file_is_summed_up(tmp_path: Path) -> None:
    _, parts = used()
    file = tmp_path / "all.ledger"
    file.write_bytes(file_of(parts))
    genesis, history = read_history(file, 100)
    assert (history.week_epochs, history.epochs, genesis.name) == (1, 2, "test")
    assert [sum(it.paid for it in week.values()) for week in history.weeks.values()] == [5500, 3277]
    assert (history.number(THREE.peer), history.number(TWO.peer)) in map(
        tuple, map(list, history.edges())
    )


def _without(parts: list[bytes]) -> list[bytes]:
    return parts[:2] + parts[3:]


def _doubled(parts: list[bytes]) -> list[bytes]:
    return [*parts[:3], parts[2], *parts[3:]]


def _of_another(parts: list[bytes]) -> list[bytes]:
    return [Made(7).genesis.to_bytes(), *parts[1:]]


@pytest.mark.parametrize("spoil", [_without, _doubled, _of_another])
def test_lines_that_are_missing_doubled_or_of_another_network_do_not_hold(
    tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]]
) -> None:
    _, parts = used()
    file = tmp_path / "all.ledger"
    file.write_bytes(file_of(spoil(parts)))
    with pytest.raises(InputError, match="does not hold: epoch 0"):
        read_history(file, 100)


def test_a_huge_file_is_refused_where_it_stops_to_be_a_ledger(tmp_path: Path) -> None:
    _, parts = used()
    file = tmp_path / "all.ledger"
    file.write_bytes(file_of(parts))
    with file.open("r+b") as hole:
        # 10 GB, of which the disk holds nothing.
        hole.truncate(10 << 30)
    with pytest.raises(InputError, match="cut, or no ledger"):
        read_history(file, 100)


def test_a_line_of_which_the_fund_got_more_than_was_paid_is_none() -> None:
    with pytest.raises(Malformed):
        UseLine(payer=ONE.peer, payee=TWO.peer, paid=5, growth=6, tasks=1)
