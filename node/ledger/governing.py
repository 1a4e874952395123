"""What the end of an epoch makes of motions: ballots are counted, and what passed is done. Pure.

Two houses decide: stake, and use of the last four weeks with self-dealing discounted. Ballots are
weighed when they are counted, so what has moved since counts where it is then, once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from node.ledger.books import Draft
from node.ledger.matching import BUILDER, Matched, builder_row, matched_by
from node.ledger.model_registry import outcome_of_claim
from node.ledger.motion_shelf import (
    BALLOT,
    MOTION,
    ballots_on,
    motions_in,
    parameter_row,
)
from node.ledger.seats import agreed_to, seat_row, taken_back
from node.ledger.use_window import noted, strangers_in, week_of, weights_of
from wire.amount import CREDIT
from wire.content import PeerId
from wire.ledger import Genesis
from wire.motion import HouseCount, MotionRow, MotionState
from wire.usage import UseLine

# What one unit of a first member's weight counts in the house of stake, beside what is staked.
FOUNDING_STAKE = 1000 * CREDIT
Weights = Mapping[bytes, int]


def count(ballots: Mapping[bytes, bool], weights: Weights) -> HouseCount:
    """The votes of one house."""
    found = {True: 0, False: 0}
    for account, yes in ballots.items():
        found[yes] += weights.get(account, 0)
    return HouseCount(yes=found[True], no=found[False], total=sum(weights.values()))


def stake_weights(draft: Draft, genesis: Genesis) -> dict[bytes, int]:
    """The house of stake: what is staked and does not leave, and what the first members are for."""
    found = {bytes(it.key): it.weight * FOUNDING_STAKE for it in genesis.members}
    accounts = {*draft.books.stakes.rows, *draft.stakes}
    for account in accounts:
        if bonded := draft.stake(account).bonded:
            found[account] = found.get(account, 0) + bonded
    return found


@dataclass(slots=True)
class Houses:
    """The weights by which ballots are counted at the end of an epoch."""

    stake: Weights
    using: Weights

    def counted(self, row: MotionRow, ballots: Mapping[bytes, bool]) -> MotionRow:
        """A motion with the counts of both houses."""
        return replace(row, stake=count(ballots, self.stake), using=count(ballots, self.using))


def houses_of(draft: Draft, genesis: Genesis) -> Houses:
    """Both houses as they are now."""
    return Houses(stake_weights(draft, genesis), weights_of(draft.motion_rows()))


def outcome_for(row: MotionRow, epoch: int) -> MotionState:
    """What the counts of a motion come to at the end of an epoch."""
    houses = (row.stake, row.using)
    assert row.stake is not None
    assert row.using is not None
    if all(it is not None and it.is_settled for it in houses):
        return MotionState.PASSED
    if epoch < row.until:
        return MotionState.OPEN
    if not all(it is not None and it.has_turnout for it in houses):
        return MotionState.LAPSED
    both = all(it is not None and it.is_for for it in houses)
    return MotionState.PASSED if both else MotionState.REJECTED


def end_motions(
    draft: Draft,
    genesis: Genesis,
    lines: Iterable[UseLine],
    transfers: Iterable[tuple[PeerId, PeerId]],
) -> Matched:
    """Note the epoch's use, decide what can be decided, and pay what grants are due.

    What builders were given for the use of this epoch, who were that as it began.
    """
    lines = tuple(lines)
    week = week_of(draft.epoch, genesis.epoch_s)
    draft.motions.update(noted(draft.motion_rows(), week, lines, transfers))
    rows = draft.motion_rows()
    motions = motions_in(rows)
    if any(it.state is MotionState.OPEN for it in motions.values()):
        houses = houses_of(draft, genesis)
        for name, row in motions.items():
            if row.state is MotionState.OPEN:
                motions[name] = _decided(draft, name, row, houses)
    began = draft.books.motions.rows
    matched: Matched = {}
    if any(key[:1] == BUILDER for key in began):
        matched = matched_by(began, strangers_in(rows, lines))
        for (_, builder), amount in matched.items():
            draft.growth -= amount
            draft.credit(builder, amount)
    due = {name: it for name, it in motions.items() if _has_steps_left(it)}
    if due:
        others = strangers_in(rows, lines)
        for name, row in due.items():
            _pay_steps(draft, name, row, others)
    return matched


def _decided(draft: Draft, name: bytes, row: MotionRow, houses: Houses) -> MotionRow:
    ballots = ballots_on(draft.motion_rows(), name)
    counted = houses.counted(row, ballots)
    state = outcome_for(counted, draft.epoch)
    if state is MotionState.OPEN:
        return row
    if state is MotionState.LAPSED:
        draft.growth += row.motion.bond
    else:
        draft.credit(row.author, row.motion.bond)
    paid = 0
    if state is MotionState.PASSED:
        grant, change = row.motion.grant, row.motion.change
        if change is not None:
            key, value = parameter_row(change.parameter, change.value)
            draft.motions[key] = value
        if grant is not None and _take(draft, grant.to, grant.step):
            paid = 1
        elif grant is not None:
            state = MotionState.UNFUNDED
        for claim in row.motion.claims:
            state, changed = outcome_of_claim(draft.motion_rows(), name, claim)
            draft.motions.update(changed)
        draft.motions.update(map(builder_row, row.motion.builders))
        for seat in row.motion.seats:
            if gone := taken_back(draft.motion_rows(), draft.books.members, seat):
                draft.motions.update(gone)
            elif agreed_to(seat, row.author, ballots):
                draft.motions.update((seat_row(name, seat),))
            else:
                state = MotionState.DECLINED
    ended = replace(counted, state=state, decided=draft.epoch, paid=paid)
    draft.motions[MOTION + name] = ended.to_bytes()
    # The counts stay; whoever wants the ballots finds them among the orders.
    draft.motions.update(dict.fromkeys((BALLOT + name + it for it in ballots), None))
    return ended


def _has_steps_left(row: MotionRow) -> bool:
    grant = row.motion.grant
    return row.state is MotionState.PASSED and grant is not None and row.paid < grant.steps


def _pay_steps(draft: Draft, name: bytes, row: MotionRow, lines: Iterable[UseLine]) -> None:
    grant = row.motion.grant
    assert grant is not None
    fresh = row.decided != draft.epoch
    used = row.used + sum(it.paid for it in lines if fresh and grant.to in (it.payer, it.payee))
    used, paid = min(used, grant.steps * grant.use), row.paid
    while paid < grant.steps and used >= grant.use and _take(draft, grant.to, grant.step):
        used -= grant.use
        paid += 1
    if (used, paid) != (row.used, row.paid):
        draft.motions[MOTION + name] = replace(row, used=used, paid=paid).to_bytes()


def _take(draft: Draft, to: PeerId, amount: int) -> bool:
    """Give an account so much of the fund, if the fund has it."""
    if draft.books.fund + draft.growth < amount:
        return False
    draft.growth -= amount
    draft.credit(to, amount)
    return True
