"""Who gets a place before a jury: nobody by copying, and nobody keeps others out cheaply."""

from dataclasses import replace

import pytest

from node.ledger.books import Draft
from node.ledger.case_places import (
    CASE_BOND_MIN,
    CASES_OPEN_MAX,
    NOTICE_EPOCHS,
    CasePlaces,
    notices_in,
    open_charges,
)
from node.ledger.juries import JURY_EPOCHS, open_cases, salt_for
from node.ledger.motion_shelf import CASE, NOTICE, SEALED
from node.ledger.slashing import end_stakes
from tests.evidence.crimes import forked
from tests.evidence.disputed import Answered
from tests.ledger.made import ONE, THREE, TWO
from tests.ledger.simulation import GRANT, KEYS
from tests.ledger.test_juries import FIVE, FOUR, SIX, STAKE, Court
from wire.content import PeerId
from wire.errors import Refused
from wire.jury import (
    ATTEMPTS_MAX,
    CaseRow,
    CaseState,
    JurySteps,
    NoticeRow,
    ShownCase,
    charge_seal,
    evidence_digest,
)
from wire.ledger import Accusation
from wire.signing import SigningKey
from wire.stake import STAKE_MIN

ANSWER = Answered(worker=ONE)


def fund_of(court: Court) -> int:
    return court.replicas[0].books.fund


# Copying


def test_whoever_copies_what_was_shown_has_nothing_of_it_and_the_first_keeps_its_bond() -> None:
    court = Court()
    case = court.announce(ANSWER.case)
    # Nobody can tell from what was announced whom it is against.
    (notice,) = notices_in(court.replicas[0].draft.motions.items()).values()
    assert evidence_digest(ANSWER.case.to_bytes()) != notice.seal
    court.end()
    court.show(ANSWER.case, case)
    # It is seen on its way, and copied at once: bound to it an epoch too late.
    copy = court.announce(ANSWER.case, SIX)
    court.end()
    court.show(ANSWER.case, copy, SIX)
    court.end()
    rows = court.replicas[0].books.motions.rows
    assert (open_cases(rows).keys(), court.row(case).accuser) == ({case}, TWO.peer)
    assert court.balance(TWO) == GRANT - CASE_BOND_MIN
    # Who was bound only after the case had begun loses the bond.
    fund = fund_of(court)
    late = court.announce(ANSWER.case, FIVE, 2 * CASE_BOND_MIN)
    court.end()
    court.show(ANSWER.case, late, FIVE)
    court.end()
    assert (fund_of(court), court.balance(FIVE)) == (
        fund + 2 * CASE_BOND_MIN,
        GRANT - STAKE - 2 * CASE_BOND_MIN,
    )
    assert open_cases(court.replicas[0].books.motions.rows).keys() == {case}
    court.check()


def test_another_cannot_show_what_was_announced_nor_its_accuser_something_else() -> None:
    court = Court()
    raw = ANSWER.case.to_bytes()
    case = court.announce(ANSWER.case)
    salt = salt_for(TWO, evidence_digest(raw))
    other = Answered(worker=ONE, nonce=5).case.to_bytes()

    def shown(key: SigningKey, **changes: bytes) -> None:
        charge = replace(ShownCase(case=case, salt=salt, evidence=raw), **changes)
        court.replicas[0].vote(court.order(key, jury=(JurySteps(charge=(charge,)),)))

    # Not in the epoch in which it was announced.
    with pytest.raises(Refused, match="no such case"):
        shown(TWO)
    court.end()
    for key, changes in (
        (SIX, {}),
        (TWO, {"evidence": other}),
        (TWO, {"salt": bytes(32)}),
    ):
        with pytest.raises(Refused, match="not what the account has announced"):
            shown(key, **changes)
    with pytest.raises(Refused, match="no such case"):
        shown(TWO, case=bytes(32))
    court.show(ANSWER.case, case)


def test_evidence_is_shown_once_so_that_no_accuser_fills_the_disks_of_members() -> None:
    court = Court()
    case = court.announce(ANSWER.case)
    court.end()
    court.show(ANSWER.case, case)
    charge = ShownCase(
        case=case,
        salt=salt_for(TWO, evidence_digest(ANSWER.case.to_bytes())),
        evidence=ANSWER.case.to_bytes(),
    )
    again = court.order(TWO, jury=(JurySteps(charge=(charge,)),))
    with pytest.raises(Refused, match="was shown in this epoch"):
        court.replicas[0].vote(again)
    # What a quorum votes for all the same opens the case once.
    court.end()
    assert open_cases(court.replicas[0].books.motions.rows).keys() == {case}
    court.check()


def test_of_two_who_show_the_same_the_one_bound_first_is_heard_and_none_loses() -> None:
    court = Court()
    first = court.announce(ANSWER.case)
    court.end()
    second = court.announce(ANSWER.case, SIX, 9 * CASE_BOND_MIN)
    court.end()
    court.show(ANSWER.case, second, SIX)
    court.show(ANSWER.case, first)
    court.end()
    assert open_cases(court.replicas[0].books.motions.rows).keys() == {first}
    assert court.balance(SIX) == GRANT - STAKE
    court.check()


def test_what_is_announced_and_never_shown_costs_its_bond() -> None:
    court = Court()
    fund = fund_of(court)
    case = court.announce(ANSWER.case)
    for _ in range(NOTICE_EPOCHS):
        court.end()
    assert fund_of(court) == fund
    court.end()
    assert (fund_of(court), court.balance(TWO)) == (fund + CASE_BOND_MIN, GRANT - CASE_BOND_MIN)
    with pytest.raises(Refused, match="no such case"):
        court.show(ANSWER.case, case)
    court.check()


@pytest.mark.parametrize("with_others", [True, False])
def test_copied_evidence_of_a_rule_takes_nobodys_bond(*, with_others: bool) -> None:
    court = Court()
    evidence = forked(ONE).to_bytes()
    accusation = Accusation(evidence=evidence, bond=CASE_BOND_MIN, with_others=with_others)
    for key in (TWO, SIX):
        court.done(court.order(key, accuse=(accusation,)))
    court.end()
    lost = sorted((GRANT - court.balance(TWO), GRANT - STAKE - court.balance(SIX)))
    # As it was before, whoever comes second by the digest of its order lost the bond.
    assert lost == [0, 0 if with_others else CASE_BOND_MIN]
    assert court.stake(ONE) == STAKE * 4 // 5
    with pytest.raises(Refused, match="taken for this act before"):
        court.done(court.order(TWO, accuse=(accusation,)))
    court.check()


# CasePlaces


def test_each_place_costs_more_and_one_account_has_one() -> None:
    court = Court()
    with pytest.raises(Refused, match=r"bond of 1\.3 credits"):
        court.accuse(ANSWER.case, bond=CASE_BOND_MIN - 1)
    court.announce(ANSWER.case)
    with pytest.raises(Refused, match="one at a time"):
        court.announce(Answered(worker=ONE, nonce=9).case)
    court.end()
    with pytest.raises(Refused, match="one at a time"):
        court.announce(Answered(worker=ONE, nonce=9).case)
    court = Court()
    court.accuse(ANSWER.case)
    court.end()
    with pytest.raises(Refused, match="one at a time"):
        court.announce(Answered(worker=ONE, nonce=1).case, bond=2 * CASE_BOND_MIN)
    with pytest.raises(Refused, match=r"bond of 2\.6 credits"):
        court.announce(Answered(worker=ONE, nonce=1).case, SIX)


class Filled:
    """Books in which an attacker takes places with cases that nobody looks at."""

    def __init__(self) -> None:
        self.court = Court()
        self.books = self.court.replicas[0].books
        self.epoch, self.number, self.lost = 1, 0, 0

    def draft(self) -> Draft:
        return Draft(self.books, self.epoch)

    def charge(self, draft: Draft, bond: int, worker: SigningKey = ONE) -> bytes:
        """Have one more case announced with this bond, and its evidence shown in this epoch."""
        self.number += 1
        key, case = KEYS[self.number % len(KEYS)], self.number.to_bytes(32, "big")
        raw = Answered(worker=worker, nonce=self.number).case.to_bytes()
        salt = bytes(32)
        seal = charge_seal(key.peer, evidence_digest(raw), salt)
        notice = NoticeRow(accuser=key.peer, seal=seal, bond=bond, epoch=self.epoch - 1)
        draft.motions[NOTICE + case] = notice.to_bytes()
        accuser = PeerId(key.peer)
        draft.accusations[case] = (accuser, ShownCase(case=case, salt=salt, evidence=raw))
        return case

    def fill(self) -> tuple[Draft, int]:
        """Every place taken, one after the other as cheaply as may be, and what that was."""
        draft, spent = self.draft(), 0
        for _ in range(CASES_OPEN_MAX):
            bond = CasePlaces.of(draft.motion_rows()).bond()
            self.charge(draft, bond)
            end_stakes(draft)
            draft.accusations.clear()
            spent += bond
        assert len(open_cases(draft.motion_rows())) == CASES_OPEN_MAX
        return draft, spent


def test_filling_all_places_is_dear_and_an_honest_accuser_still_gets_in() -> None:
    filled = Filled()
    draft, spent = filled.fill()
    # 177 credits for as long as nobody wants in, where 21 were enough.
    assert spent == CASES_OPEN_MAX * (CASES_OPEN_MAX + 1) // 2 * CASE_BOND_MIN > 170 * STAKE_MIN
    # In one epoch even more: the highest bonds come first, and the last place costs the most.
    together = filled.draft()
    for number in range(CASES_OPEN_MAX):
        filled.charge(together, (number + 1) * CASE_BOND_MIN)
    end_stakes(together)
    assert len(open_cases(together.motion_rows())) == CASES_OPEN_MAX // 2
    # One more with the next price gets in, and the case with the least bond gives way.
    bond = CasePlaces.of(draft.motion_rows()).bond()
    assert bond == (CASES_OPEN_MAX + 1) * CASE_BOND_MIN
    weakest = min(open_cases(draft.motion_rows()).items(), key=lambda it: it[1].bond)
    before = draft.account(weakest[1].accuser).balance
    honest = filled.charge(draft, bond)
    end_stakes(draft)
    rows = draft.motion_rows()
    assert honest in open_cases(rows)
    assert len(open_cases(rows)) == CASES_OPEN_MAX
    gone = CaseRow.from_bytes(rows[CASE + weakest[0]])
    assert (gone.state, gone.evidence) == (CaseState.GAVE_WAY, b"")
    assert draft.account(gone.accuser).balance == before + CASE_BOND_MIN
    # It may come again: it was not judged.
    assert CasePlaces.of(rows).attempts(gone.act) == []


def test_who_keeps_an_accuser_out_puts_up_more_than_half_of_its_bond_in_every_place() -> None:
    filled = Filled()
    draft, wanted = filled.draft(), 40 * CASE_BOND_MIN
    for _ in range(CASES_OPEN_MAX):
        filled.charge(draft, wanted // 2 + 1)
        end_stakes(draft)
        draft.accusations.clear()
    kept_out = filled.charge(draft, wanted)
    end_stakes(draft)
    assert kept_out not in open_cases(draft.motion_rows())
    # One place with half of it is enough to get in.
    name, row = next(iter(open_cases(draft.motion_rows()).items()))
    draft.motions[CASE + name] = replace(row, bond=wanted // 2).to_bytes()
    assert CasePlaces.of(draft.motion_rows()).bond() == wanted
    draft.accusations.clear()
    honest = filled.charge(draft, wanted)
    end_stakes(draft)
    assert honest in open_cases(draft.motion_rows())


def test_no_case_gives_way_once_somebody_has_found_anything_of_it() -> None:
    filled = Filled()
    draft, _ = filled.fill()
    for name in open_cases(draft.motion_rows()):
        draft.motions[SEALED + name + THREE.peer] = bytes(32)
    places = CasePlaces.of(draft.motion_rows())
    assert (places.weakest, places.are_taken) == (None, True)
    late = filled.charge(draft, 1000 * CASE_BOND_MIN)
    accuser = draft.accusations[late][0]
    before = draft.account(accuser).balance
    draft.accusations = {late: draft.accusations[late]}
    end_stakes(draft)
    # Its bond is back.
    assert late not in open_cases(draft.motion_rows())
    assert draft.account(accuser).balance == before + 1000 * CASE_BOND_MIN


# Again


def hung(court: Court, case: bytes) -> None:
    """Nobody finds anything."""
    for _ in range(2 * JURY_EPOCHS + 1):
        court.end()
    assert court.row(case).state is CaseState.HUNG


def test_a_case_that_hung_may_be_brought_again_for_more_with_another_jury() -> None:
    court = Court()
    seats = []
    for attempt in range(ATTEMPTS_MAX):
        bond = CASE_BOND_MIN << attempt
        if attempt:
            # Too little is given back.
            before = court.balance(TWO)
            cheap = court.accuse(ANSWER.case, bond=bond - 1)
            court.end()
            assert cheap not in open_cases(court.replicas[0].books.motions.rows)
            assert court.balance(TWO) == before
        case = court.accuse(ANSWER.case, bond=bond)
        court.end()
        court.end()
        row = court.row(case)
        assert (row.state, row.attempt) == (CaseState.JURY, attempt + 1)
        seats.append(row.seats)
        if attempt < ATTEMPTS_MAX - 1:
            hung(court, case)
    assert len(set(seats)) == ATTEMPTS_MAX
    court.decide(case, wrong=True)
    assert (court.row(case).state, court.stake(ONE)) == (CaseState.WRONG, STAKE // 2)
    court.check()


def test_what_hung_as_often_as_may_be_is_brought_no_more() -> None:
    court = Court()
    for attempt in range(ATTEMPTS_MAX):
        case = court.accuse(ANSWER.case, bond=CASE_BOND_MIN << attempt)
        court.end()
        hung(court, case)
    before = court.balance(TWO)
    case = court.accuse(ANSWER.case, bond=CASE_BOND_MIN << ATTEMPTS_MAX)
    court.end()
    assert case not in open_cases(court.replicas[0].books.motions.rows)
    assert court.balance(TWO) == before
    court.check()


def test_where_there_was_no_jury_an_answer_may_be_brought_again() -> None:
    court = Court()
    # All stakers are parties to this one.
    alone = Answered(worker=FOUR, asker=THREE)
    for key in (FIVE, SIX):
        parts = court.replicas[0].draft.stake(key.peer).parts
        court.done(court.order(key, unbond=parts))
    case = court.accuse(alone.case)
    court.end()
    court.end()
    assert court.row(case).state is CaseState.NO_JURY
    assert court.balance(TWO) == GRANT
    again = court.accuse(alone.case, bond=2 * CASE_BOND_MIN)
    court.end()
    assert (court.row(again).state, court.row(again).attempt) == (CaseState.WAITING, 2)
    court.check()


def test_charges_that_no_member_votes_for_open_nothing() -> None:
    filled = Filled()
    draft = filled.draft()
    case = filled.charge(draft, CASE_BOND_MIN)
    accuser, charge = draft.accusations[case]
    assert isinstance(charge, ShownCase)
    false = replace(charge, evidence=forked(ONE).to_bytes())
    seal = charge_seal(accuser, evidence_digest(false.evidence), charge.salt)
    notice = NoticeRow(accuser=accuser, seal=seal, bond=CASE_BOND_MIN, epoch=0)
    draft.motions[NOTICE + case] = notice.to_bytes()
    for number, one in enumerate((false, charge, replace(charge, case=bytes(32)))):
        open_charges(draft, {bytes((number,)): (accuser, one)})
    assert open_cases(draft.motion_rows()) == {}
    assert notices_in(draft.motions.items()) == {case: notice}
