"""Stakes: credits that an account locks as a surety for what it does, and how they are told.

What is staked stays its owner's until evidence against it is shown. It is given back only some
epochs after it was asked for, so that nobody leaves before what it did can be found out.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Amount
from wire.content import PeerId
from wire.errors import Malformed
from wire.kinds import Kind, Role
from wire.message_base import Message
from wire.schema import Between, Int, Omitted, Record

# What is unbonded in one epoch is given back at the end of the epoch so many after it.
UNBONDING_EPOCHS = 14
# The least that may be staked for a role, so that keys that cost nothing are no stakers.
STAKE_MIN = 1_000_000
_ROLES = Between(0, len(Role))


@dataclass(frozen=True, slots=True, kw_only=True)
class StakePart(Record):
    """So much, staked for one role."""

    role: Role
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingPart(Record):
    """What was staked for a role and is given back at the end of the epoch `until`."""

    role: Role
    amount: Amount
    until: Int


StakeParts = Annotated[tuple[StakePart, ...], _ROLES, Omitted(())]
LeavingParts = Annotated[tuple[LeavingPart, ...], Between(0, limits.LEAVING_PARTS_MAX), Omitted(())]


@dataclass(frozen=True, slots=True, kw_only=True)
class StakeRow(Record):
    """The stake of one account; all of it, what leaves too, answers for what its owner does."""

    SIZE_BYTES_MAX: ClassVar[int] = limits.STAKE_ROW_BYTES_MAX

    account: PeerId
    parts: StakeParts = ()
    leaving: LeavingParts = ()
    # What it earned of others in four weeks, as far as that counts in draws of verifiers: at most
    # what is staked for that.
    worked: Annotated[Int, Omitted(0)] = 0

    def check(self) -> None:
        """Malformed unless roles, and epochs with roles, stand in order, each once."""
        roles = [it.role for it in self.parts]
        ends = [(it.until, it.role) for it in self.leaving]
        if sorted(set(roles)) != roles or sorted(set(ends)) != ends:
            raise Malformed("a stake names a role once, in order, and so what leaves")

    @property
    def bonded(self) -> int:
        """What is staked and does not leave, in millionths."""
        return sum(it.amount for it in self.parts)

    @property
    def total(self) -> int:
        """All that can be taken as a penalty, in millionths."""
        return self.bonded + sum(it.amount for it in self.leaving)

    def of_role(self, role: Role) -> int:
        """What is staked for one role and does not leave."""
        return next((it.amount for it in self.parts if it.role == role), 0)


def table_digest(rows: Iterable[StakeRow]) -> bytes:
    """What all stakes hash to, in order of their accounts; empty where nobody has any."""
    found = sorted(rows, key=lambda it: it.account)
    if not found:
        return b""
    return hashlib.sha256(b"".join(it.to_bytes() for it in found)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AskStakes(Message):
    """The stakes of the last checkpoint, those after this account; None: from the first on."""

    KIND: ClassVar[Kind] = Kind.ASK_STAKES
    after: PeerId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StakeRows(Message):
    """Rows in order of their accounts, as many as fit; `epoch` is the one that ended last.

    `rows` are StakeRow records, each after two bytes of its length. Where no epoch has ended yet
    there is none; an answer without rows is the last.
    """

    KIND: ClassVar[Kind] = Kind.STAKE_ROWS
    epoch: Int
    rows: Annotated[bytes, Between(0, limits.STAKE_ROWS_BYTES_MAX)]

    @classmethod
    def of(cls, epoch: int, rows: Iterable[StakeRow]) -> "StakeRows":
        """As many of these rows as fit, from the first on."""
        found = bytearray()
        for row in rows:
            raw = row.to_bytes()
            if len(found) + len(raw) + 2 > limits.STAKE_ROWS_BYTES_MAX:
                break
            found += len(raw).to_bytes(2, "big") + raw
        return cls(epoch=epoch, rows=bytes(found))

    def read(self) -> Iterator[StakeRow]:
        """The rows; WireError at the first that is none."""
        at = 0
        while at < len(self.rows):
            end = at + 2 + int.from_bytes(self.rows[at : at + 2], "big")
            if at + 2 >= len(self.rows) or end > len(self.rows):
                raise Malformed("the last row of stakes is cut")
            yield StakeRow.from_bytes(self.rows[at + 2 : end])
            at = end
