"""How an account stands, from what members say of it, some of whom may lie. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from node.ledger.committee import Committee
from wire.ledger_message import AccountState
from wire.stake import LeavingPart, StakePart


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account as a quorum of members says it is.

    `agreed` is False while the members that answered are not in step; then the balance is the
    lowest that they say.
    """

    epoch: int
    sequence: int
    balance: int
    deposits: int
    channels: int
    agreed: bool
    answered: int
    stake: tuple[StakePart, ...] = ()
    leaving: tuple[LeavingPart, ...] = ()


def agreed_view(committee: Committee, told: Mapping[int, AccountState]) -> AccountView | None:
    """What a quorum says word for word; None as long as there is none."""
    for state in told.values():
        alike = [at for at, other in told.items() if other == state]
        if committee.is_quorum(alike):
            return _view(state, agreed=True, answered=len(told))
    return None


def likely_view(committee: Committee, told: Mapping[int, AccountState]) -> AccountView | None:
    """What to go by if no quorum agrees; None unless a quorum has answered.

    The epoch and the sequence are the highest that at least one honest member must have reached.
    """
    if not committee.is_quorum(told):
        return None
    epoch = _reached(committee, {at: it.epoch for at, it in told.items()})
    there = {at: it for at, it in told.items() if it.epoch == epoch} or dict(told)
    sequence = _reached(committee, {at: it.sequence for at, it in told.items()})
    lowest = min(there.values(), key=lambda it: it.balance)
    return replace(_view(lowest, agreed=False, answered=len(told)), epoch=epoch, sequence=sequence)


def _reached(committee: Committee, said: Mapping[int, int]) -> int:
    """The highest number that members of more than a third of the weight have reached."""
    for number in sorted(set(said.values()), reverse=True):
        if committee.has_honest([at for at, it in said.items() if it >= number]):
            return number
    return min(said.values())


def _view(state: AccountState, *, agreed: bool, answered: int) -> AccountView:
    return AccountView(
        state.epoch,
        state.sequence,
        state.balance,
        state.deposits,
        state.channels,
        agreed,
        answered,
        state.stake,
        state.leaving,
    )
