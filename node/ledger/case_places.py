"""How a case comes before a jury: announced with a bond, shown an epoch later, given a place. Pure.

Whoever copies evidence that was shown announces it too late, and has nothing of it. There are few
places, so that jurors have time: each costs more than the one before, and when all are taken a case
gives way to one with twice its bond. So whoever wants to keep another out has to put up more than
half of what that one does, in every place, and loses it; the other has it back if it is right.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from node.evidence.charges import AccusedWork, charged
from node.evidence.offences import work_of
from node.ledger.books import Draft
from node.ledger.juries import SEAT_FEE, Rows, cases_in
from node.ledger.motion_shelf import CASE, FOUND, NOTICE, SEALED
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import Malformed, WireError
from wire.evidence import Evidence, OffenceKind
from wire.jury import (
    ATTEMPTS_MAX,
    JURORS,
    CaseNotice,
    CaseRow,
    CaseState,
    NoticeRow,
    ShownCase,
    case_id,
    charge_seal,
    evidence_digest,
)
from wire.ledger import Accusation

# An accuser pays a jury that finds the answer right.
CASE_BOND_MIN = JURORS * SEAT_FEE
CASES_OPEN_MAX = 16
# A case that was announced and is not shown within so many epochs costs its bond.
NOTICE_EPOCHS = 24


def is_case(evidence: bytes) -> bool:
    """Whether a jury is asked; WireError if the evidence cannot be read."""
    return Evidence.from_bytes(evidence).offence is OffenceKind.DISPUTED_WORK


def notices_in(rows: Iterable[tuple[bytes, bytes | None]]) -> dict[bytes, NoticeRow]:
    """The cases that were announced and not shown yet, by their ids."""
    found = ((key, it) for key, it in rows if key[:1] == NOTICE and it is not None)
    return {key[1:]: NoticeRow.from_bytes(it) for key, it in found}


@dataclass(slots=True)
class CasePlaces:
    """All cases there were, and which of them somebody has found anything of."""

    cases: dict[bytes, CaseRow]
    touched: frozenset[bytes]

    @classmethod
    def of(cls, rows: Rows) -> "CasePlaces":
        """As the books have them."""
        touched = frozenset(key[1:33] for key in rows if key[:1] in (FOUND, SEALED))
        return cls(cases_in(rows), touched)

    @property
    def open(self) -> dict[bytes, CaseRow]:
        """The cases that take a place."""
        return {name: it for name, it in self.cases.items() if it.state.is_open}

    @property
    def weakest(self) -> bytes | None:
        """Which would give way: the least bond of those that nobody has found anything of."""
        there = self.open
        untouched = there.keys() - self.touched
        return min(untouched, key=lambda it: (there[it].bond, it), default=None)

    def attempts(self, act: bytes) -> list[CaseRow]:
        """The cases about one answer that did not give way."""
        about = (it for it in self.cases.values() if it.act == act)
        return [it for it in about if it.state is not CaseState.GAVE_WAY]

    def bond(self, act: bytes = b"") -> int:
        """What one more is opened with at least, in millionths; for this answer, if it is named.

        Each further attempt at one answer costs twice as much.
        """
        there = self.open
        bond = CASE_BOND_MIN * (1 + len(there))
        if len(there) >= CASES_OPEN_MAX and (weakest := self.weakest) is not None:
            bond = max(bond, 2 * there[weakest].bond)
        return bond << len(self.attempts(act))

    @property
    def are_taken(self) -> bool:
        """Whether there is no place, and none is given way."""
        return len(self.open) >= CASES_OPEN_MAX and self.weakest is None


def check_new(draft: Draft, accuser: PeerId, charge: AccusedWork) -> bytes:
    """Its act; Malformed unless a jury can be asked about this now."""
    if accuser == charge.culprit:
        raise Malformed("nobody accuses itself")
    places = CasePlaces.of(draft.books.motions.rows)
    act = work_of(charge.culprit, charge.receipt.id).act
    before = places.attempts(act)
    if act in draft.books.stakes.acts or any(not it.state.is_undecided for it in before):
        raise Malformed("this answer was accused before")
    if len(before) >= ATTEMPTS_MAX:
        raise Malformed(f"{len(before)} juries came to nothing about this answer: no more is drawn")
    if not draft.stake(charge.culprit).total:
        raise Malformed(f"{charge.culprit.short} has no stake that could be taken")
    return act


def check_notice(draft: Draft, accuser: PeerId, notice: CaseNotice) -> None:
    """Malformed unless this account may announce a case with this bond now."""
    rows = draft.books.motions.rows
    places = CasePlaces.of(rows)
    if notice.bond < (bond := places.bond()):
        raise Malformed(f"a jury is asked with a bond of {show_credits(bond)} credits now")
    if places.are_taken:
        raise Malformed(f"juries look at {CASES_OPEN_MAX} cases: no more is taken before one ends")
    announced = notices_in((*rows.items(), *draft.motions.items())).values()
    accusers = [it.accuser for it in announced] + [it.accuser for it in places.open.values()]
    if accuser in accusers:
        raise Malformed("a jury looks at a case of this account: one at a time")


def check_charge(draft: Draft, accuser: PeerId, charge: ShownCase) -> None:
    """Malformed unless this account has announced just this; KeyError if there is no notice.

    Whether there is still stake to be taken, and a place, is looked at when the epoch ends: who
    comes too late for that has the bond back.
    """
    notice = NoticeRow.from_bytes(draft.books.motions.rows[NOTICE + charge.case])
    seal = charge_seal(accuser, evidence_digest(charge.evidence), charge.salt)
    if (notice.accuser, notice.seal) != (accuser, seal):
        raise Malformed("this is not what the account has announced")
    if any(it.case == charge.case for it in _shown_in(draft)):
        raise Malformed("the evidence of this case was shown in this epoch")
    if charged(Evidence.from_bytes(charge.evidence)).culprit == accuser:
        raise Malformed("nobody accuses itself")


def _shown_in(draft: Draft) -> Iterator[ShownCase]:
    """The cases shown in this epoch: an order costs nothing, and all of it is kept for ever."""
    return (it for _, it in draft.accusations.values() if isinstance(it, ShownCase))


# The end of an epoch


def open_charges(draft: Draft, charges: dict[bytes, tuple[PeerId, ShownCase]]) -> None:
    """Begin cases of which the evidence was shown, and take bonds of those that never were."""
    rows = draft.motion_rows()
    notices = notices_in(rows.items())
    shown: dict[bytes, tuple[NoticeRow, CaseRow]] = {}
    for order in sorted(charges):
        accuser, charge = charges[order]
        notice = notices.get(charge.case)
        seal = charge_seal(accuser, evidence_digest(charge.evidence), charge.salt)
        if notice is None or (notice.accuser, notice.seal) != (accuser, seal):
            continue
        if notice.epoch >= draft.epoch:
            continue
        if (row := _row_of(draft, accuser, charge.evidence, notice.bond)) is not None:
            shown[charge.case] = (notice, row)
    # Of two about one answer the one that was announced first is heard; then the higher bond.
    of_acts: dict[bytes, bytes] = {}
    for name in sorted(shown, key=lambda it: (shown[it][0].epoch, -shown[it][1].bond, it)):
        of_acts.setdefault(shown[name][1].act, name)
    places = CasePlaces.of(rows) if shown else CasePlaces({}, frozenset())
    for name in sorted(shown, key=lambda it: (-shown[it][1].bond, it)):
        notice, row = shown[name]
        draft.motions[NOTICE + name] = None
        if of_acts[row.act] == name:
            _open(draft, places, name, notice.epoch, row)
        else:
            draft.credit(row.accuser, row.bond)
    for name, notice in sorted(notices.items()):
        if name not in shown and notice.epoch + NOTICE_EPOCHS <= draft.epoch:
            draft.motions[NOTICE + name] = None
            draft.growth += notice.bond


def _row_of(draft: Draft, accuser: PeerId, evidence: bytes, bond: int) -> CaseRow | None:
    """A case as it begins; None if this is none, which no honest member votes for."""
    try:
        work = charged(Evidence.from_bytes(evidence))
    except WireError:
        return None
    return CaseRow(
        accuser=accuser,
        culprit=work.culprit,
        asker=work.task.signer,
        act=work_of(work.culprit, work.receipt.id).act,
        digest=evidence_digest(evidence),
        bond=bond,
        begun=draft.epoch,
        until=draft.epoch,
        state=CaseState.WAITING,
        evidence=evidence,
    )


def _open(draft: Draft, places: CasePlaces, name: bytes, announced: int, row: CaseRow) -> None:
    """Give a case its place, or its bond back; who was bound to known evidence loses it."""
    before = places.attempts(row.act)
    known = [it.begun for it in before if not it.state.is_undecided]
    punished = draft.books.stakes.acts.get(row.act, draft.acts.get(row.act))
    known += [] if punished is None else [punished]
    if known and min(known) < announced:
        draft.growth += row.bond
        return
    heard = not known and len(before) < ATTEMPTS_MAX and draft.stake(row.culprit).total > 0
    if not heard or places.are_taken or row.bond < places.bond(row.act):
        draft.credit(row.accuser, row.bond)
        return
    begun = {name: replace(row, attempt=len(before) + 1)}
    if len(places.open) >= CASES_OPEN_MAX and (weakest := places.weakest) is not None:
        way = places.cases[weakest]
        draft.credit(way.accuser, way.bond)
        begun[weakest] = replace(way, state=CaseState.GAVE_WAY, evidence=b"")
    places.cases |= begun
    draft.motions.update({CASE + it: begun[it].to_bytes() for it in begun})


def open_case(draft: Draft, order: bytes, accuser: PeerId, accusation: Accusation) -> None:
    """Begin a case as it was begun before cases were announced: members vote for no such order.

    Another about the same answer costs its accuser the bond.
    """
    row = _row_of(draft, accuser, accusation.evidence, accusation.bond)
    if row is None:
        # A quorum that votes for this all the same takes the bond alone.
        draft.growth += accusation.bond
        return
    there = cases_in(draft.motion_rows())
    if any(it.act == row.act for it in there.values()):
        draft.growth += accusation.bond
        return
    if sum(it.state.is_open for it in there.values()) >= CASES_OPEN_MAX:
        # Others were taken in this epoch, in an order that nobody chose.
        draft.credit(accuser, accusation.bond)
        return
    draft.motions[CASE + case_id(order)] = row.to_bytes()
