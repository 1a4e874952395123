"""Cases that juries look at: opened by an accusation, drawn, counted, and closed. Pure.

They are rows of the books beside the motions. What a case costs anybody is taken at the end of an
epoch, as all that has no single owner.
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from node.evidence.charges import charged
from node.evidence.offences import LEAST, SHARES, work_of
from node.ledger.books import Draft
from node.ledger.motion_shelf import CASE, FOUND
from node.ledger.stake_shelf import slashed
from wire import limits
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import Malformed, WireError
from wire.evidence import Evidence, OffenceKind
from wire.jury import (
    AGREEING,
    JURORS,
    CaseRow,
    CaseState,
    DrawnJury,
    JurorFinding,
    case_id,
    evidence_digest,
)
from wire.kinds import Role
from wire.ledger import Accusation

ID_BYTES = 32
# What a seat is paid if it found what the jury did, and so what an accuser puts up at least: for
# each case that is open already as much again, so that nobody fills all places cheaply.
SEAT_FEE = 100_000
CASE_BOND_MIN = JURORS * SEAT_FEE
CASES_OPEN_MAX = 16
# A jury has so many epochs; then everybody who has staked has as many.
JURY_EPOCHS = 24

Rows = Mapping[bytes, bytes]


def is_case(accusation: Accusation) -> bool:
    """Whether a jury is asked; WireError if the evidence cannot be read."""
    return Evidence.from_bytes(accusation.evidence).offence is OffenceKind.DISPUTED_WORK


def cases_in(rows: Rows) -> dict[bytes, CaseRow]:
    """All cases by their ids, in order."""
    keys = sorted(key for key in rows if key[:1] == CASE)
    return {key[1:]: CaseRow.from_bytes(rows[key]) for key in keys}


def open_cases(rows: Rows) -> dict[bytes, CaseRow]:
    """Those about which something is still to be found out."""
    return {name: it for name, it in cases_in(rows).items() if it.state.is_open}


def found_in(rows: Rows, case: bytes) -> dict[bytes, bool]:
    """The accounts that looked at a case, and whether they found it wrong."""
    prefix = FOUND + case
    return {key[1 + ID_BYTES :]: rows[key] == b"\1" for key in rows if key.startswith(prefix)}


def bond_for(rows: Rows) -> int:
    """What one more case is opened with, in millionths."""
    return CASE_BOND_MIN * (1 + len(open_cases(rows)))


def drawn_from(draft: Draft, row: CaseRow) -> dict[bytes, int]:
    """Out of whom a jury is drawn, by what each had staked on verifying when the epoch began.

    No order of the epoch counts: the member that seals last knows what is drawn, and would choose
    among orders that it held back until the jury suits it.
    """
    parties = {row.accuser, row.culprit, row.asker}
    return {
        account: weight
        for account, stake in draft.books.stakes.rows.items()
        if account not in parties and (weight := stake.of_role(Role.VERIFY))
    }


def jurors_of(draft: Draft, row: CaseRow) -> dict[bytes, int]:
    """Who is asked where all are, by what it has staked on verifying for an epoch and still has."""
    return {
        account: weight
        for account, before in drawn_from(draft, row).items()
        if (weight := min(before, draft.stake(account).of_role(Role.VERIFY)))
    }


def seats_of(beacon: bytes, case: bytes, weights: Mapping[bytes, int]) -> tuple[PeerId, ...]:
    """Who has the seats of a case: each is drawn by weight; () where nobody has any."""
    accounts = sorted(it for it, weight in weights.items() if weight > 0)
    bounds = list(accumulate(weights[it] for it in accounts))
    if not bounds:
        return ()
    found = []
    for number in range(JURORS):
        words = b"baton/1/juror\0" + beacon + case + bytes((number,))
        point = int.from_bytes(hashlib.sha256(words).digest()) % bounds[-1]
        found.append(PeerId(accounts[bisect_right(bounds, point)]))
    return tuple(found)


# What may be ordered


def check_case(draft: Draft, accuser: PeerId, accusation: Accusation) -> None:
    """Malformed unless a jury can be asked about this now."""
    evidence = accusation.evidence
    if len(evidence) > limits.CASE_BYTES_MAX:
        raise Malformed(f"a jury is shown at most {limits.CASE_BYTES_MAX} bytes")
    charge = charged(Evidence.from_bytes(evidence))
    rows = draft.books.motions.rows
    there, bond = open_cases(rows), bond_for(rows)
    if accusation.bond < bond:
        raise Malformed(f"a jury is asked with a bond of {show_credits(bond)} credits now")
    if accuser == charge.culprit:
        raise Malformed("nobody accuses itself")
    now = any(by == accuser and is_case(it) for by, it in draft.accusations.values())
    if now or any(it.accuser == accuser for it in there.values()):
        raise Malformed("a jury looks at a case of this account: one at a time")
    if len(there) >= CASES_OPEN_MAX:
        raise Malformed(f"juries look at {CASES_OPEN_MAX} cases: no more is taken before one ends")
    act = work_of(charge.culprit, charge.receipt.id).act
    if act in draft.books.stakes.acts or any(it.act == act for it in cases_in(rows).values()):
        raise Malformed("this answer was accused before")
    if not draft.stake(charge.culprit).total:
        raise Malformed(f"{charge.culprit.short} has no stake that could be taken")


def check_finding(draft: Draft, juror: PeerId, finding: JurorFinding) -> None:
    """Malformed unless this account is asked about this case now; KeyError if there is no such."""
    rows = draft.books.motions.rows
    row = CaseRow.from_bytes(rows[CASE + finding.case])
    if row.state is CaseState.JURY:
        if juror not in row.seats:
            raise Malformed("this account has no seat in the jury")
    elif row.state is not CaseState.EVERYBODY:
        raise Malformed(f"nothing is to be found of this case: {row.state.name.lower()}")
    elif juror not in jurors_of(draft, row):
        raise Malformed("this account has staked nothing on verifying, or is a party to the case")


# The end of an epoch


def open_case(draft: Draft, order: bytes, accuser: PeerId, accusation: Accusation) -> None:
    """Begin a case; another about the same answer costs its accuser the bond."""
    try:
        charge = charged(Evidence.from_bytes(accusation.evidence))
    except WireError:
        # Members vote for no such order; a quorum that does so all the same takes the bond alone.
        draft.growth += accusation.bond
        return
    act = work_of(charge.culprit, charge.receipt.id).act
    there = cases_in(draft.motion_rows())
    if any(it.act == act for it in there.values()):
        draft.growth += accusation.bond
        return
    if sum(it.state.is_open for it in there.values()) >= CASES_OPEN_MAX:
        # Others were taken in this epoch, in an order that nobody chose.
        draft.credit(accuser, accusation.bond)
        return
    row = CaseRow(
        accuser=accuser,
        culprit=charge.culprit,
        asker=charge.task.signer,
        act=act,
        digest=evidence_digest(accusation.evidence),
        bond=accusation.bond,
        begun=draft.epoch,
        until=draft.epoch,
        state=CaseState.WAITING,
        evidence=accusation.evidence,
    )
    draft.motions[CASE + case_id(order)] = row.to_bytes()


@dataclass(frozen=True, slots=True)
class JuriesEnded:
    """What the end of an epoch made of cases: digests of the juries drawn, and who waits."""

    drawn: tuple[DrawnJury, ...] = ()
    # Whether a jury is to be drawn at the next end.
    waits: bool = False
    # Accounts whose stake stays until their cases end.
    accused: frozenset[bytes] = frozenset()


NO_JURIES = JuriesEnded()


def end_juries(draft: Draft, beacon: bytes) -> JuriesEnded:
    """Draw juries for cases that wait, and count what others have found."""
    rows = draft.motion_rows()
    if not any(key[:1] == CASE for key in rows):
        return NO_JURIES
    drawn = []
    left: list[CaseRow] = []
    for name, row in open_cases(rows).items():
        after = row
        if row.state is CaseState.WAITING:
            if beacon and row.begun < draft.epoch:
                after = _with_jury(draft, name, row, beacon)
                if after.seats:
                    jury = DrawnJury(
                        case=name, culprit=row.culprit, evidence=row.digest, seats=after.seats
                    )
                    drawn.append(jury)
        else:
            after = _counted(draft, row, found_in(rows, name))
        if after != row:
            _put(draft, rows, name, after)
        if after.state.is_open:
            left.append(after)
    return JuriesEnded(
        tuple(drawn),
        any(it.state is CaseState.WAITING for it in left),
        frozenset(bytes(it.culprit) for it in left),
    )


def _put(draft: Draft, rows: Rows, name: bytes, row: CaseRow) -> None:
    if not row.state.is_open:
        row = replace(row, evidence=b"")
        gone = [FOUND + name + it for it in found_in(rows, name)]
        draft.motions.update(dict.fromkeys(gone, None))
    draft.motions[CASE + name] = row.to_bytes()


def _with_jury(draft: Draft, name: bytes, row: CaseRow, beacon: bytes) -> CaseRow:
    seats = seats_of(beacon, name, drawn_from(draft, row))
    if not seats:
        draft.credit(row.accuser, row.bond)
        return replace(row, state=CaseState.NO_JURY)
    until = draft.epoch + JURY_EPOCHS
    return replace(row, state=CaseState.JURY, seats=seats, until=until)


def _counted(draft: Draft, row: CaseRow, found: Mapping[bytes, bool]) -> CaseRow:
    """A case after what jurors, or all stakers, have found by now."""
    if row.state is CaseState.JURY:
        weights: Mapping[bytes, int] = Counter(map(bytes, row.seats))
    else:
        weights = jurors_of(draft, row)
    total = sum(weights.values())
    wrong = sum(weights.get(account, 0) for account, it in found.items() if it)
    right = sum(weights.get(account, 0) for account, it in found.items() if not it)
    row = replace(row, wrong=wrong, right=right)
    is_over = draft.epoch >= row.until
    # Of all where not everybody has said yet; of those who did, if most have, once it is over.
    of = total
    if is_over and row.state is CaseState.EVERYBODY and (wrong + right) * 2 > total:
        of = wrong + right
    if total and wrong * JURORS >= AGREEING * of:
        return _convicted(draft, row, weights, found)
    if total and right * JURORS >= AGREEING * of:
        _pay_jurors(draft, row, weights, found, wrong=False, out_of=row.bond)
        return replace(row, state=CaseState.RIGHT)
    if not is_over:
        return row
    if row.state is CaseState.JURY:
        # What jurors have said counts among all others, by their stakes.
        return replace(row, state=CaseState.EVERYBODY, until=draft.epoch + JURY_EPOCHS)
    draft.growth += row.bond
    return replace(row, state=CaseState.HUNG)


def _convicted(
    draft: Draft, row: CaseRow, weights: Mapping[bytes, int], found: Mapping[bytes, bool]
) -> CaseRow:
    draft.credit(row.accuser, row.bond)
    share = SHARES[OffenceKind.JURY_FINDING]
    left, taken = slashed(draft.stake(row.culprit), share, LEAST)
    if taken:
        draft.stakes[row.culprit] = left
        draft.acts[row.act] = draft.epoch
        _pay_jurors(draft, row, weights, found, wrong=True, out_of=taken)
    return replace(row, state=CaseState.WRONG)


def _pay_jurors(
    draft: Draft,
    row: CaseRow,
    weights: Mapping[bytes, int],
    found: Mapping[bytes, bool],
    *,
    wrong: bool,
    out_of: int,
) -> None:
    """Pay each seat that found what the jury did; what is left is the fund's."""
    if row.state is CaseState.JURY:
        for account in sorted(it for it, said in found.items() if said is wrong):
            fee = min(out_of, SEAT_FEE * weights.get(account, 0))
            if fee:
                draft.credit(account, fee)
                out_of -= fee
    draft.growth += out_of
