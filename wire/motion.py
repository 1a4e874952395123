"""Motions: what stakers and users decide together, and their ballots, both as orders of accounts.

A motion changes a parameter within its bounds, grants something out of the fund, says who is the
author of a model or who is matched, or who is a member of the ledger. Its name is `motion_id`, of
the order that made it.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import CREDIT, Amount, Balance
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.schema import Between, Digest, Int, Name, Omitted, Reason, Record

# A motion is open for so many epochs at least and at most.
VOTING_EPOCHS_MIN, VOTING_EPOCHS_MAX = 24, 1000
STEPS_MAX = 100
# All steps together are an amount.
STEP_AMOUNT_MAX = 2**55
# The most that a model's author has of what is redeemed for it, in millionths.
AUTHOR_SHARE_MAX = 200_000
AuthorShare = Annotated[int, Between(0, AUTHOR_SHARE_MAX)]
SeatWeight = Annotated[int, Between(0, 2**32)]


class Parameter(IntEnum):
    """What can be changed. Append only."""

    # Of what is redeemed out of channels that are opened from then on, millionths to the fund.
    GROWTH = 0
    # What a motion's author puts up, in millionths of a credit.
    MOTION_BOND = 1
    # Of the growth share of what others pay a builder, millionths that the fund gives it: less than
    # all of that share, so that who pays itself loses by it.
    MATCHING = 2


# The bounds, both inclusive, and what holds as long as nothing else was decided.
BOUNDS = {
    Parameter.GROWTH: (10_000, 200_000),
    Parameter.MOTION_BOND: (CREDIT // 100, 1_000_000 * CREDIT),
    Parameter.MATCHING: (0, 900_000),
}
FIRST = {
    Parameter.GROWTH: 50_000,
    Parameter.MOTION_BOND: CREDIT,
    Parameter.MATCHING: 500_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterChange(Record):
    """One parameter is to have this value."""

    parameter: Parameter
    value: Balance

    def check(self) -> None:
        """Malformed unless the value is within the parameter's bounds."""
        low, high = BOUNDS[self.parameter]
        if not low <= self.value <= high:
            name = self.parameter.name.lower()
            raise Malformed(f"{name} is {low} to {high}, not {self.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FundGrant(Record):
    """`step` millionths out of the fund to an account, at once and then `steps` - 1 times more.

    Each further step is paid once `use` millionths more were paid for tasks by `to`, or to it, by
    others than itself.
    """

    to: PeerId
    step: Annotated[int, Between(1, STEP_AMOUNT_MAX)]
    steps: Annotated[int, Between(1, STEPS_MAX)]
    use: Annotated[int, Between(0, STEP_AMOUNT_MAX)]

    def check(self) -> None:
        """Malformed if later steps rest on nothing."""
        if self.steps > 1 and not self.use:
            raise Malformed("a grant in steps says which use each of them rests on")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelClaim(Record):
    """A model is to be `author`'s, who has `share` millionths of what is redeemed for it.

    A share of 0 ends what was registered of this model and this author.
    """

    model: ContentId
    author: PeerId
    share: AuthorShare


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderClaim(Record):
    """An account is to be matched out of the fund for what others pay it, or no longer."""

    account: PeerId
    matched: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatClaim(Record):
    """From the epoch `since` on `member` is to keep the ledger with this weight; with 0, no longer.

    That epoch is the first that it can be: it may be too early for a motion, and of several changes
    that are due at once some wait.
    """

    member: PeerId
    weight: SeatWeight
    since: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion(Record):
    """What is to be decided, by the end of so many epochs after the one in which it was made."""

    SIZE_BYTES_MAX: ClassVar[int] = limits.MOTION_BYTES_MAX

    title: Name
    why: Reason
    epochs: Annotated[int, Between(VOTING_EPOCHS_MIN, VOTING_EPOCHS_MAX)]
    bond: Amount
    change: ParameterChange | None
    grant: FundGrant | None
    # At most one, that says who is the author of a model.
    claims: Annotated[tuple[ModelClaim, ...], Between(0, 1), Omitted(())] = ()
    # At most one, that says who is matched.
    builders: Annotated[tuple[BuilderClaim, ...], Between(0, 1), Omitted(())] = ()
    # At most one, that says who is a member of the ledger.
    seats: Annotated[tuple[SeatClaim, ...], Between(0, 1), Omitted(())] = ()

    def check(self) -> None:
        """Malformed unless it is about one thing."""
        single = self.change is not None, self.grant is not None
        listed = len(self.claims), len(self.builders), len(self.seats)
        if sum((*single, *listed)) != 1:
            raise Malformed(
                "a motion changes one parameter, or makes one grant, or names one model's author,"
                " or one builder, or one member of the ledger"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot(Record):
    """For or against a motion; of an account's ballots on one the last counts."""

    motion: Digest
    yes: bool


def motion_id(order: bytes) -> bytes:
    """32 bytes that name the motion which an order, given by its digest, makes."""
    return hashlib.sha256(b"baton/1/motion\0" + order).digest()


class MotionState(IntEnum):
    """How a motion stands. Append only."""

    OPEN = 0
    PASSED = 1
    REJECTED = 2
    # Too few voted: its bond went to the fund.
    LAPSED = 3
    # It passed, and the fund had not enough.
    UNFUNDED = 4
    # It passed, and another about the same model had passed before it.
    TAKEN = 5
    # It passed, and who was to keep the ledger had not agreed to that.
    DECLINED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseCount(Record):
    """What was counted in one house: of stake, or of use, in millionths."""

    yes: Balance
    no: Balance
    total: Balance

    @property
    def has_turnout(self) -> bool:
        """Whether a fifth of the house has voted."""
        return self.total > 0 and (self.yes + self.no) * 5 >= self.total

    @property
    def is_for(self) -> bool:
        """Whether more than half of the votes are for it."""
        return self.yes > self.no

    @property
    def is_settled(self) -> bool:
        """Whether more than half of the house is for it, so that no further vote matters."""
        return self.yes * 2 > self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionRow(Record):
    """A motion as the ledger keeps it.

    `until` is the epoch at whose end it is decided at the latest. `stake` and `using` are as they
    were when it was decided; `paid` of the grant's steps are paid, and `used` counts towards the
    next ones.
    """

    SIZE_BYTES_MAX: ClassVar[int] = limits.MOTION_BYTES_MAX + 1024

    author: PeerId
    motion: Motion
    begun: Int
    until: Int
    state: MotionState
    decided: Int | None
    stake: HouseCount | None
    using: HouseCount | None
    paid: Annotated[int, Between(0, STEPS_MAX), Omitted(0)] = 0
    used: Annotated[int, Between(0, 2**62), Omitted(0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel(Record):
    """Whose a model is as the ledger keeps it, and by which motion."""

    author: PeerId
    share: AuthorShare
    motion: Digest
