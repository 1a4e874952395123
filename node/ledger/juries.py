"""Cases that juries look at: how a jury is drawn, how it is counted, and what that costs. Pure.

They are rows of the books beside the motions. What a case costs anybody is taken at the end of an
epoch, as all that has no single owner. Who is asked seals what it found, and tells it once all have
sealed or the time for that is over: nobody copies another. How a case gets its place is in
`case_places`.
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from node.evidence.offences import LEAST, SHARES
from node.ledger.books import Draft
from node.ledger.motion_shelf import CASE, FOUND, SEALED
from node.ledger.stake_shelf import slashed
from wire.content import PeerId
from wire.errors import Malformed
from wire.evidence import OffenceKind
from wire.jury import (
    AGREEING,
    JURORS,
    CaseRow,
    CaseState,
    DrawnJury,
    JurorFinding,
    JurySteps,
    SealedFinding,
    finding_seal,
)
from wire.kinds import Role
from wire.signing import SigningKey
from wire.vrf import prove

ID_BYTES = 32
# What a seat is paid if it found what the jury did.
SEAT_FEE = 100_000
# A jury has so many epochs to seal what it finds, and so many to tell it; then everybody who has
# staked has as many.
JURY_EPOCHS, TELL_EPOCHS = 24, 12

Rows = Mapping[bytes, bytes]


def cases_in(rows: Rows) -> dict[bytes, CaseRow]:
    """All cases by their ids, in order."""
    keys = sorted(key for key in rows if key[:1] == CASE)
    return {key[1:]: CaseRow.from_bytes(rows[key]) for key in keys}


def open_cases(rows: Rows) -> dict[bytes, CaseRow]:
    """Those about which something is still to be found out."""
    return {name: it for name, it in cases_in(rows).items() if it.state.is_open}


def _of_case(rows: Rows, kind: bytes, case: bytes) -> dict[bytes, bytes]:
    prefix = kind + case
    return {key[1 + ID_BYTES :]: rows[key] for key in rows if key.startswith(prefix)}


def found_in(rows: Rows, case: bytes) -> dict[bytes, bool]:
    """The accounts that told what they found of a case, and whether that is wrong."""
    return {account: it == b"\1" for account, it in _of_case(rows, FOUND, case).items()}


def sealed_in(rows: Rows, case: bytes) -> dict[bytes, bytes]:
    """The accounts that are bound to what they found of a case, and their seals."""
    return _of_case(rows, SEALED, case)


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


def salt_for(key: SigningKey, about: bytes) -> bytes:
    """The salt of this key's seal: always the same, so it is not kept, and nobody guesses it."""
    return hashlib.sha256(prove(key, b"baton/1/seal_salt\0" + about)).digest()


def seal_or_find(key: SigningKey, case: bytes, row: CaseRow, *, wrong: bool) -> dict[str, Any]:
    """What an account that is asked orders, once it has looked."""
    if not row.attempt:
        return {"find": (JurorFinding(case=case, wrong=wrong),)}
    seal = finding_seal(key.peer, case, salt_for(key, case), wrong=wrong)
    return {"jury": (JurySteps(commit=(SealedFinding(case=case, seal=seal),)),)}


def to_tell(key: SigningKey, rows: Rows) -> list[JurorFinding]:
    """What this account has sealed, and has to tell now."""
    found = []
    for case, row in open_cases(rows).items():
        seal = rows.get(SEALED + case + key.peer)
        if row.state.is_telling and seal is not None and FOUND + case + key.peer not in rows:
            salt = salt_for(key, case)
            found += [
                JurorFinding(case=case, wrong=wrong, salt=salt)
                for wrong in (True, False)
                if finding_seal(key.peer, case, salt, wrong=wrong) == seal
            ]
    return found


def is_asked(draft: Draft, juror: PeerId, row: CaseRow) -> bool:
    """Whether this account is to look at a case now."""
    if row.state is CaseState.JURY:
        return juror in row.seats
    return row.state is CaseState.EVERYBODY and juror in jurors_of(draft, row)


def check_sealed(draft: Draft, juror: PeerId, sealed: SealedFinding) -> None:
    """Malformed unless this account may seal what it found now; KeyError if there is no case."""
    rows = draft.books.motions.rows
    row = CaseRow.from_bytes(rows[CASE + sealed.case])
    if not row.attempt:
        raise Malformed("what is found of this case is told in the open: it is from before seals")
    if row.state.is_telling:
        raise Malformed("nothing is sealed any more: who did tells now what it found")
    _check_asked(draft, juror, row)
    if FOUND + sealed.case + juror in rows:
        raise Malformed("this account has told what it found, and that counts on")


def check_finding(draft: Draft, juror: PeerId, finding: JurorFinding) -> None:
    """Malformed unless this account may tell this now; KeyError if there is no such case."""
    rows = draft.books.motions.rows
    row = CaseRow.from_bytes(rows[CASE + finding.case])
    if not row.attempt:
        _check_asked(draft, juror, row)
        return
    if not row.state.is_telling:
        what = "it is sealed first" if row.state.is_open else row.state.name.lower()
        raise Malformed(f"nothing is told of this case: {what}")
    seal = finding_seal(juror, finding.case, finding.salt, wrong=finding.wrong)
    if rows.get(SEALED + finding.case + juror) != seal:
        raise Malformed("this is not what the account has sealed")


def _check_asked(draft: Draft, juror: PeerId, row: CaseRow) -> None:
    if row.state is CaseState.JURY:
        if juror not in row.seats:
            raise Malformed("this account has no seat in the jury")
    elif row.state is not CaseState.EVERYBODY:
        raise Malformed(f"nothing is to be found of this case: {row.state.name.lower()}")
    elif juror not in jurors_of(draft, row):
        raise Malformed("this account has staked nothing on verifying, or is a party to the case")


# The end of an epoch


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
        after = _after(draft, rows, name, row, beacon)
        if after.seats and not row.seats:
            jury = DrawnJury(case=name, culprit=row.culprit, evidence=row.digest, seats=after.seats)
            drawn.append(jury)
        if after != row:
            put_case(draft, rows, name, after)
        if after.state.is_open:
            left.append(after)
    return JuriesEnded(
        tuple(drawn),
        any(it.state is CaseState.WAITING for it in left),
        frozenset(bytes(it.culprit) for it in left),
    )


def put_case(draft: Draft, rows: Rows, name: bytes, row: CaseRow) -> None:
    """Keep a case as it is now, and of it only what is still needed."""
    found, gone = found_in(rows, name), set[bytes]()
    if not row.state.is_open:
        row = replace(row, evidence=b"")
        gone = {FOUND + name + it for it in found}
        gone |= {SEALED + name + it for it in sealed_in(rows, name)}
    elif row.state is CaseState.EVERYBODY and row.attempt:
        # Who did not tell what it had sealed may look again.
        gone = {SEALED + name + it for it in sealed_in(rows, name) if it not in found}
    draft.motions.update(dict.fromkeys(gone, None))
    draft.motions[CASE + name] = row.to_bytes()


def _after(draft: Draft, rows: Rows, name: bytes, row: CaseRow, beacon: bytes) -> CaseRow:
    """A case after this epoch."""
    if row.state is CaseState.WAITING:
        return _with_jury(draft, name, row, beacon) if beacon and row.begun < draft.epoch else row
    found, is_over = found_in(rows, name), draft.epoch >= row.until
    if not row.attempt:
        return _counted(draft, row, found, is_over=is_over)
    sealed = sealed_in(rows, name)
    told = {account: it for account, it in found.items() if account in sealed}
    has_all_told = told.keys() == sealed.keys()
    if row.state.is_telling:
        return _counted(draft, row, told, is_over=True) if has_all_told or is_over else row
    if not is_over and not _have_sealed(draft, row, sealed):
        return row
    if has_all_told:
        # Nobody who is asked now has found anything.
        return _counted(draft, row, told, is_over=True)
    telling = CaseState.EVERYBODY_TELLS if row.state.asks_all else CaseState.JURY_TELLS
    return replace(row, state=telling, until=draft.epoch + TELL_EPOCHS)


def _have_sealed(draft: Draft, row: CaseRow, sealed: Collection[bytes]) -> bool:
    asked = jurors_of(draft, row).keys() if row.state.asks_all else {*row.seats}
    return bool(asked) and asked <= {*sealed}


def _with_jury(draft: Draft, name: bytes, row: CaseRow, beacon: bytes) -> CaseRow:
    seats = seats_of(beacon, name, drawn_from(draft, row))
    if not seats:
        draft.credit(row.accuser, row.bond)
        return replace(row, state=CaseState.NO_JURY)
    until = draft.epoch + JURY_EPOCHS
    return replace(row, state=CaseState.JURY, seats=seats, until=until)


def _counted(draft: Draft, row: CaseRow, found: Mapping[bytes, bool], *, is_over: bool) -> CaseRow:
    """A case after what jurors, or all stakers, have told by now."""
    weights: Mapping[bytes, int] = Counter(map(bytes, row.seats))
    if row.state.asks_all:
        weights = jurors_of(draft, row)
    total = sum(weights.values())
    wrong = sum(weights.get(account, 0) for account, it in found.items() if it)
    right = sum(weights.get(account, 0) for account, it in found.items() if not it)
    row = replace(row, wrong=wrong, right=right)
    # Of all where not everybody has said yet; of those who did, if most have, once it is over.
    of = total
    if is_over and row.state.asks_all and (wrong + right) * 2 > total:
        of = wrong + right
    if total and wrong * JURORS >= AGREEING * of:
        return _convicted(draft, row, weights, found)
    if total and right * JURORS >= AGREEING * of:
        _pay_jurors(draft, row, weights, found, wrong=False, out_of=row.bond)
        return replace(row, state=CaseState.RIGHT)
    if not is_over:
        return row
    if not row.state.asks_all:
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
    if not row.state.asks_all:
        for account in sorted(it for it, said in found.items() if said is wrong):
            fee = min(out_of, SEAT_FEE * weights.get(account, 0))
            if fee:
                draft.credit(account, fee)
                out_of -= fee
    draft.growth += out_of
