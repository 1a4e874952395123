"""Proved past work: what a staker earned of others in four weeks, beside its stake. Pure.

It counts in draws of verifiers, at most as much as what is staked for that: whoever pays itself
through keys that nobody connects loses a share of each payment to the fund, and gains no more by it
than by staking the same.
"""

from collections.abc import Mapping
from dataclasses import replace

from node.ledger.books import Draft
from node.ledger.use_window import earned_of
from wire.kinds import Role
from wire.stake import StakeRow


def worked(row: StakeRow, earned: Mapping[bytes, int]) -> int:
    """What of an account's earnings counts beside its stake."""
    return min(earned.get(row.account, 0), row.of_role(Role.VERIFY))


def note_past_work(draft: Draft) -> None:
    """Write into the rows of stakes what their accounts earned, once an epoch's use is noted."""
    rows = (draft.stake(it) for it in {*draft.books.stakes.rows, *draft.stakes})
    staked = [it for it in rows if it.total]
    if not staked:
        return
    earned = earned_of(draft.motion_rows())
    for row in staked:
        if row.worked != (counts := worked(row, earned)):
            draft.stakes[row.account] = replace(row, worked=counts)
