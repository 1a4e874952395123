"""Stakes: locked, given back some epochs later, counted in the supply, and told to everybody."""

import io
from dataclasses import replace

import pytest

from node.ledger.books import Books
from node.ledger.chain_file import read_parts, replay
from node.ledger.header_chain import HeaderChain
from node.ledger.loading import load
from node.ledger.rows import CHECKPOINTS, STAKES, account_row, of_epoch
from node.ledger.stake_shelf import slashed, unbonded, with_more
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.simulation import GRANT, Disk
from tests.ledger.test_chain_file import checkpoint_of, end_epoch, file_of
from wire.checkpoint import Checkpoint, CheckpointHeader
from wire.errors import BadSignature, Corrupt, Malformed, Refused
from wire.kinds import Role
from wire.stake import (
    STAKE_MIN,
    UNBONDING_EPOCHS,
    LeavingPart,
    StakePart,
    StakeRow,
    table_digest,
)

STAKE = 10 * STAKE_MIN


def part(amount: int = STAKE, role: Role = Role.VERIFY) -> StakePart:
    return StakePart(role=role, amount=amount)


def staked(made: Made, amount: int = STAKE, role: Role = Role.VERIFY) -> None:
    made.done(made.order(stake=(part(amount, role),)))


def books(made: Made) -> Books:
    return made.replicas[0].books


def test_a_stake_is_locked_counted_and_given_back_fourteen_epochs_after_it_was_asked_for() -> None:
    made = Made()
    parts = [made.genesis.to_bytes()]
    staked(made)
    assert made.balance(ONE) == GRANT - STAKE
    parts += end_epoch(made)
    tip = made.replicas[0].tip
    assert tip is not None
    assert (tip.stakes, tip.supply) == (STAKE, made.genesis.supply)
    assert tip.stake_table == table_digest(books(made).stakes.rows.values())
    made.done(made.order(unbond=(part(4 * STAKE_MIN),)))
    row = made.replicas[0].draft.stake(ONE.peer)
    assert row.of_role(Role.VERIFY) == 6 * STAKE_MIN
    # What leaves still answers for what its owner did.
    assert row.total == STAKE
    for _ in range(UNBONDING_EPOCHS):
        assert made.balance(ONE) == GRANT - STAKE
        parts += end_epoch(made)
    assert made.balance(ONE) == GRANT - STAKE
    parts += end_epoch(made)
    assert made.balance(ONE) == GRANT - 6 * STAKE_MIN
    assert books(made).stakes.rows[ONE.peer].total == 6 * STAKE_MIN
    found = replay(read_parts(io.BytesIO(file_of(parts))))
    assert found.books.stakes.total == 6 * STAKE_MIN
    assert found.books.supply == made.genesis.supply


def test_a_ledger_without_stakes_hashes_as_before_there_were_any() -> None:
    before = Made()
    end_epoch(before)
    header = before.replicas[0].tip
    assert header is not None
    assert b"stake" not in header.to_bytes()
    staked(before)
    end_epoch(before)
    before.done(before.order(unbond=(part(),)))
    for _ in range(UNBONDING_EPOCHS + 1):
        end_epoch(before)
    assert not books(before).stakes.rows
    assert books(before).stakes.state() == b""


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ({"stake": (part(STAKE_MIN - 1, Role.INFER),)}, "at least 1 credits are staked"),
        ({"stake": (part(GRANT + 1),)}, "the account has"),
        ({"unbond": (part(STAKE + 1),)}, "are more"),
        ({"unbond": (part(STAKE - 1),)}, "unbond all of it, or leave as much"),
        ({"unbond": (part(1, Role.INFER),)}, "0 credits are staked for infer"),
    ],
)
def test_what_cannot_be_staked_or_unbonded_is_refused_with_its_reason(
    action: dict[str, tuple[StakePart, ...]], why: str
) -> None:
    made = Made()
    staked(made)
    with pytest.raises(Refused, match=why):
        made.replicas[0].vote(made.order(**action))


def test_an_order_names_a_role_once_and_does_one_thing() -> None:
    made = Made()
    with pytest.raises(Malformed, match="a role once"):
        made.order(stake=(part(), part()))
    with pytest.raises(Malformed, match="one kind of action"):
        made.order(stake=(part(),), unbond=(part(),))


def test_a_stake_survives_a_restart_and_a_row_altered_on_the_disk_is_found() -> None:
    made, disk = Made(), Disk()
    staked(made)
    member = made.replicas[0]
    header = member.outcome(member.applied).header
    end_epoch(made)
    now = books(made)
    disk.write([account_row(key, it) for shelf in now.accounts for key, it in shelf.items()])
    disk.write([(STAKES + key, row.to_bytes()) for key, row in now.stakes.rows.items()])
    disk.write([(of_epoch(CHECKPOINTS, 0), checkpoint_of(made, header).to_bytes())])
    assert load(made.genesis, made.keys[0], disk.scan).replica.books.stakes.total == STAKE
    altered = replace(now.stakes.rows[ONE.peer], parts=(part(STAKE + 1),))
    disk.write([(STAKES + ONE.peer, altered.to_bytes())])
    with pytest.raises(Corrupt):
        load(made.genesis, made.keys[0], disk.scan)


def test_a_penalty_takes_its_share_of_what_stays_and_of_what_leaves_and_never_more_than_all() -> (
    None
):
    row = with_more(with_more(StakeRow(account=ONE.peer), Role.VERIFY, 900), Role.INFER, 100)
    row = unbonded(row, Role.VERIFY, 300, until=14)
    assert row == StakeRow(
        account=ONE.peer,
        parts=(part(100, Role.INFER), part(600)),
        leaving=(LeavingPart(role=Role.VERIFY, amount=300, until=14),),
    )
    after, taken = slashed(row, 200_000, 1)
    assert (taken, after.total, after.leaving[0].amount) == (200, 800, 240)
    after, taken = slashed(row, 200_000, 5000)
    assert (taken, after) == (1000, StakeRow(account=ONE.peer))
    assert slashed(after, 1_000_000, 5000) == (after, 0)
    for share in range(0, 1_000_001, 37_003):
        after, taken = slashed(row, share, 0)
        assert after.total + taken == row.total
        assert taken == row.total * share // 1_000_000


def test_a_chain_of_headers_is_followed_only_by_signatures_of_its_members() -> None:
    made = Made()
    staked(made)
    checkpoints = [Checkpoint.from_bytes(end_epoch(made)[0]) for _ in range(3)]
    chain = HeaderChain(made.genesis)
    header = chain.accept(checkpoints[0])
    assert header.stakes == STAKE
    for wrong in (checkpoints[0], checkpoints[2]):
        with pytest.raises(Malformed, match="not of epoch 1"):
            chain.accept(wrong)
    forged = CheckpointHeader.from_bytes(checkpoints[1].header)
    more = replace(forged, stakes=forged.stakes + 5, fund=forged.fund - 5)
    with pytest.raises(BadSignature):
        chain.accept(replace(checkpoints[1], header=more.to_bytes()))
    with pytest.raises(Malformed, match="supply"):
        chain.accept(replace(checkpoints[1], header=replace(forged, stakes=5).to_bytes()))
    chain.accept(checkpoints[1])
    chain.accept(checkpoints[2])
    assert chain.epoch == 3


def test_two_owners_that_stake_and_unbond_at_once_come_to_the_same_in_either_order() -> None:
    made = Made()
    staked(made)
    one, two = made.replicas[:2]
    orders = [made.order(unbond=(part(),)), made.order(TWO, stake=(part(),)), made.order(THREE)]
    for order in orders:
        one.draft.apply(order)
    for order in reversed(orders):
        two.draft.apply(order)
    assert one.draft.digest() == two.draft.digest()
    assert one.draft.staked == 2 * STAKE
