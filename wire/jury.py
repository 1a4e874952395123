"""Juries: stakers who look at work that no rule alone shows to be wrong, and what they find.

Whoever accuses is bound to its evidence an epoch before anybody sees it, and then shows the task,
its receipt, the question and the answer. Seats are drawn by stake, from secrets of the ledger's
members that nobody knew then. Jurors are bound to what they found before any of them tells it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from wire import limits
from wire.amount import Amount
from wire.content import PeerId
from wire.errors import Malformed
from wire.schema import Between, Digest, Int, Omitted, Record

# So many seats; what so many of them agree on is the finding.
JURORS, AGREEING = 13, 10
Seats = Annotated[tuple[PeerId, ...], Between(0, JURORS), Omitted(())]


# How often one answer may be brought before juries, while they do not agree or nobody is there.
ATTEMPTS_MAX = 3
Salt = Annotated[bytes, Between(32, 32)]
STEPS = ("announce", "charge", "commit")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseNotice(Record):
    """That evidence will be shown which nobody sees yet, and what its accuser stands to lose.

    `seal` is `charge_seal` of it, so whoever copies what is shown later was bound to it too late.
    """

    seal: Digest
    bond: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCase(Record):
    """The evidence that was announced in an epoch before, and the salt of its seal."""

    case: Digest
    salt: Salt
    evidence: Annotated[bytes, Between(1, limits.CASE_BYTES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFinding(Record):
    """That somebody who is asked has found something, which it tells once all are bound."""

    case: Digest
    seal: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class JurorFinding(Record):
    """What the holder of a seat has found: the answer is wrong, or it is not.

    `salt` opens its seal; it is empty in cases from before findings were sealed.
    """

    case: Digest
    wrong: bool
    salt: Annotated[bytes, Between(0, 32), Omitted(b"")] = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class JurySteps(Record):
    """A step of an accuser or of jurors that an order makes; exactly one of the lists is not empty.

    A case is announced, then its evidence is shown; what jurors have found is sealed, then told,
    which is a list of the order itself.
    """

    announce: Annotated[tuple[CaseNotice, ...], Between(0, 1), Omitted(())] = ()
    charge: Annotated[tuple[ShownCase, ...], Between(0, 1), Omitted(())] = ()
    commit: Annotated[tuple[SealedFinding, ...], Between(0, limits.ACTIONS_MAX), Omitted(())] = ()

    def check(self) -> None:
        """Malformed unless it is of one kind, and names a case once."""
        if sum(bool(getattr(self, it)) for it in STEPS) != 1:
            raise Malformed(f"an order makes one step in a case: {', '.join(STEPS)}")
        if len({it.case for it in self.commit}) != len(self.commit):
            raise Malformed("an order seals of a case once what was found")

    @property
    def step(self) -> str:
        """Which of its lists is not empty."""
        return next(it for it in STEPS if getattr(self, it))


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
    # Jurors look, and seal what they find.
    JURY = 1
    # The jury did not agree: all stakers are asked, in the same two steps.
    EVERYBODY = 2
    # Stake was taken, the bond went back.
    WRONG = 3
    # The bond paid the jurors.
    RIGHT = 4
    # They did not agree either, and the bond is the fund's.
    HUNG = 5
    # There was nobody to be drawn: the bond went back.
    NO_JURY = 6
    # Nobody seals any more, and who did tells what.
    JURY_TELLS = 7
    EVERYBODY_TELLS = 8
    # All places were taken, and another accuser put up twice as much: the bond went back.
    GAVE_WAY = 9

    @property
    def is_open(self) -> bool:
        """Whether something is still to be found out."""
        return self <= CaseState.EVERYBODY or self.is_telling

    @property
    def is_telling(self) -> bool:
        """Whether what was sealed is told now."""
        return self in (CaseState.JURY_TELLS, CaseState.EVERYBODY_TELLS)

    @property
    def asks_all(self) -> bool:
        """Whether all stakers are asked."""
        return self in (CaseState.EVERYBODY, CaseState.EVERYBODY_TELLS)

    @property
    def is_undecided(self) -> bool:
        """Whether it ended without a finding, so that the answer may be brought again."""
        return self in (CaseState.HUNG, CaseState.NO_JURY)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeRow(Record):
    """A case that was announced and not shown yet, as the ledger keeps it."""

    accuser: PeerId
    seal: Digest
    bond: Amount
    epoch: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRow(Record):
    """An accusation that a jury looks at, as the ledger keeps it.

    `evidence` is kept while the case is open, and its digest for ever. `until` is the epoch at
    whose end the state ends at the latest. `wrong` and `right` are seats, or stake in millionths
    where everybody was asked, as they were counted last. `attempt` counts how often this answer was
    brought; it is 0 in cases from before findings were sealed.
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
    attempt: Annotated[int, Between(0, ATTEMPTS_MAX), Omitted(0)] = 0


def case_id(order: bytes) -> bytes:
    """32 bytes that name the case which an order, given by its digest, makes."""
    return hashlib.sha256(b"baton/1/case\0" + order).digest()


def evidence_digest(evidence: bytes) -> bytes:
    """What evidence is named by where it is not shown."""
    return hashlib.sha256(b"baton/1/case_evidence\0" + evidence).digest()


def charge_seal(accuser: PeerId, evidence: bytes, salt: bytes) -> bytes:
    """What binds an accuser to evidence, given by its digest, before it is shown."""
    return hashlib.sha256(b"baton/1/case_seal\0" + accuser + evidence + salt).digest()


def finding_seal(juror: PeerId, case: bytes, salt: bytes, *, wrong: bool) -> bytes:
    """What binds a juror to what it found before any of them tells."""
    words = b"baton/1/finding_seal\0" + juror + case + bytes((wrong,)) + salt
    return hashlib.sha256(words).digest()


def juries_digest(digests: Iterable[bytes]) -> bytes:
    """What the digests of all juries of an epoch hash to; empty if none was drawn."""
    joined = b"".join(digests)
    return hashlib.sha256(joined).digest() if joined else b""
