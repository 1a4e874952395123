"""Juries: stakers who look at work that no rule alone shows to be wrong, and what they find.

Whoever accuses shows the task, its receipt, the question and the answer. Seats are drawn by stake,
from secrets of the ledger's members that nobody knew when the accusation was made.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Amount
from wire.content import PeerId
from wire.schema import Between, Digest, Int, Omitted, Record

# So many seats; what so many of them agree on is the finding.
JURORS, AGREEING = 13, 10
Seats = Annotated[tuple[PeerId, ...], Between(0, JURORS), Omitted(())]


@dataclass(frozen=True, slots=True, kw_only=True)
class JurorFinding(Record):
    """What the holder of a seat has found: the answer is wrong, or it is not."""

    case: Digest
    wrong: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnJury(Record):
    """Who sits on a case; who has more stake may have several seats.

    `evidence` is the digest of the accusation's evidence. The checkpoint with which a jury was
    drawn names it (`juries_digest`).
    """

    SIZE_BYTES_MAX: ClassVar[int] = limits.DRAWN_JURY_BYTES_MAX

    case: Digest
    culprit: PeerId
    evidence: Digest
    seats: Annotated[tuple[PeerId, ...], Between(JURORS, JURORS)]

    @property
    def digest(self) -> bytes:
        """32 bytes that name it."""
        return hashlib.sha256(b"baton/1/jury\0" + self.to_bytes()).digest()


class CaseState(IntEnum):
    """How a case stands. Append only."""

    # For the members' secrets, by which its jury is drawn.
    WAITING = 0
    JURY = 1
    # The jury did not agree: all stakers are asked.
    EVERYBODY = 2
    # Stake was taken, the bond went back.
    WRONG = 3
    # The bond paid the jurors.
    RIGHT = 4
    # They did not agree either, and the bond is the fund's.
    HUNG = 5
    # There was nobody to be drawn: the bond went back.
    NO_JURY = 6

    @property
    def is_open(self) -> bool:
        """Whether something is still to be found out."""
        return self <= CaseState.EVERYBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow(Record):
    """An accusation that a jury looks at, as the ledger keeps it.

    `evidence` is kept while the case is open, and its digest for ever. `until` is the epoch at
    whose end the state ends at the latest. `wrong` and `right` are seats, or stake in millionths
    where everybody was asked, as they were counted last.
    """

    SIZE_BYTES_MAX: ClassVar[int] = limits.CASE_BYTES_MAX + 2048

    accuser: PeerId
    culprit: PeerId
    asker: PeerId
    act: Digest
    digest: Digest
    bond: Amount
    begun: Int
    until: Int
    state: CaseState
    evidence: Annotated[bytes, Between(0, limits.CASE_BYTES_MAX), Omitted(b"")] = b""
    seats: Seats = ()
    wrong: Annotated[int, Between(0, 2**62), Omitted(0)] = 0
    right: Annotated[int, Between(0, 2**62), Omitted(0)] = 0


def case_id(order: bytes) -> bytes:
    """32 bytes that name the case which an order, given by its digest, makes."""
    return hashlib.sha256(b"baton/1/case\0" + order).digest()


def evidence_digest(evidence: bytes) -> bytes:
    """What evidence is named by where it is not shown."""
    return hashlib.sha256(b"baton/1/case_evidence\0" + evidence).digest()


def juries_digest(digests: Iterable[bytes]) -> bytes:
    """What the digests of all juries of an epoch hash to; empty if none was drawn."""
    joined = b"".join(digests)
    return hashlib.sha256(joined).digest() if joined else b""
