"""What staking, unbonding, penalties and the end of an epoch make of stakes. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from wire.content import PeerId
from wire.kinds import Role
from wire.stake import LeavingPart, StakePart, StakeRow, table_digest

MILLION = 1_000_000


def with_more(row: StakeRow, role: Role, amount: int) -> StakeRow:
    """The stake with so much more for one role."""
    return replace(row, parts=_parts(row.parts, role, amount))


def unbonded(row: StakeRow, role: Role, amount: int, until: int) -> StakeRow:
    """The stake once so much of it leaves, at the end of the epoch `until`; never below nothing."""
    amount = min(amount, row.of_role(role))
    if not amount:
        return row
    ends = {(it.until, it.role): it.amount for it in row.leaving}
    ends[until, role] = ends.get((until, role), 0) + amount
    leaving = tuple(
        LeavingPart(role=whose, amount=ends[end, whose], until=end) for end, whose in sorted(ends)
    )
    return replace(row, parts=_parts(row.parts, role, -amount), leaving=leaving)


def released(row: StakeRow, epoch: int) -> tuple[StakeRow, int]:
    """The stake after an epoch has ended, and what is given back of it."""
    back = sum(it.amount for it in row.leaving if it.until <= epoch)
    return replace(row, leaving=tuple(it for it in row.leaving if it.until > epoch)), back


def slashed(row: StakeRow, share_millionths: int, least: int) -> tuple[StakeRow, int]:
    """The stake after a penalty, and what was taken: a share of it, at least `least`.

    A penalty that is larger than the stake takes all of it; the rest is nobody's debt. What leaves
    is taken from as what stays.
    """
    total = row.total
    taken = min(total, max(least, total * share_millionths // MILLION))
    if not taken:
        return row, 0
    amounts = [it.amount for it in row.parts] + [it.amount for it in row.leaving]
    left = _shares(amounts, total - taken)
    parts = zip(row.parts, left, strict=False)
    leaving = zip(row.leaving, left[len(row.parts) :], strict=True)
    after = replace(
        row,
        parts=tuple(replace(it, amount=amount) for it, amount in parts if amount),
        leaving=tuple(replace(it, amount=amount) for it, amount in leaving if amount),
    )
    return after, taken


def _shares(amounts: list[int], sum_wanted: int) -> list[int]:
    """These amounts made smaller alike, so that they sum up to `sum_wanted` exactly."""
    total = sum(amounts)
    found = [it * sum_wanted // total for it in amounts]
    missing = sum_wanted - sum(found)
    for at, amount in enumerate(amounts):
        more = min(missing, amount - found[at])
        found[at] += more
        missing -= more
    return found


def _parts(parts: Iterable[StakePart], role: Role, amount: int) -> tuple[StakePart, ...]:
    amounts = {it.role: it.amount for it in parts}
    amounts[role] = amounts.get(role, 0) + amount
    return tuple(StakePart(role=it, amount=amounts[it]) for it in sorted(amounts) if amounts[it])


@dataclass(slots=True)
class StakeShelf:
    """The stakes of all accounts that have any, and the acts for which stake was taken before."""

    rows: dict[bytes, StakeRow] = field(default_factory=dict)
    # Of each act the epoch in which it was punished: it is punished once.
    acts: dict[bytes, int] = field(default_factory=dict)
    total: int = 0
    _digest: bytes | None = None

    def row(self, account: bytes) -> StakeRow:
        """The stake of an account; empty if it has none."""
        return self.rows.get(account) or StakeRow(account=PeerId(account))

    def put(self, account: bytes, row: StakeRow | None) -> None:
        """Set the stake of an account, in place of what was there."""
        before = self.rows.pop(account, None)
        self.total += (row.total if row else 0) - (before.total if before else 0)
        if row is not None and row.total:
            self.rows[account] = row
        self._digest = None

    def put_act(self, act: bytes, epoch: int | None) -> None:
        """Remember an act that was punished; None takes it back."""
        if epoch is None:
            self.acts.pop(act, None)
        else:
            self.acts[act] = epoch

    @property
    def table(self) -> bytes:
        """What the rows hash to; empty if there are none."""
        if self._digest is None:
            self._digest = table_digest(self.rows.values())
        return self._digest

    def state(self) -> bytes:
        """What else the state of the ledger hashes to; empty where nobody ever staked anything."""
        acts = b"".join(act + epoch.to_bytes(8, "big") for act, epoch in sorted(self.acts.items()))
        return self.table + acts
