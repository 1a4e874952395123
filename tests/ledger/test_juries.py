"""Juries: who is asked when no rule decides, drawn by nobody's choice, and what it costs."""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from typing import Any

import pytest

from node.evidence.charges import charged, jury_finding, shown_finding
from node.evidence.offences import judge, judged
from node.ledger.books import Draft
from node.ledger.case_places import CASE_BOND_MIN
from node.ledger.chain_file import read_parts, replay
from node.ledger.epoch_end import EpochEnd
from node.ledger.juries import (
    JURY_EPOCHS,
    SEAT_FEE,
    TELL_EPOCHS,
    cases_in,
    end_juries,
    found_in,
    salt_for,
    seal_or_find,
    sealed_in,
    seats_of,
    to_tell,
)
from node.ledger.jury_draw import drawn_by, secret_for
from tests.evidence.crimes import Leg
from tests.evidence.disputed import MANIFEST, Answered
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.simulation import GRANT, KEYS, OWNERS, Plan, Simulation
from tests.ledger.test_chain_file import checkpoint_of, file_of
from wire.checkpoint import AgreementPhase, AgreementVote, Proposal, Seal
from wire.errors import Malformed, Refused, WireError
from wire.evidence import Evidence, OffenceKind
from wire.jury import (
    AGREEING,
    JURORS,
    CaseNotice,
    CaseRow,
    CaseState,
    DrawnJury,
    JurorFinding,
    JurySteps,
    SealedFinding,
    ShownCase,
    case_id,
    charge_seal,
    evidence_digest,
    finding_seal,
)
from wire.kinds import Role
from wire.ledger import AccountOrder, Accusation, order_digest
from wire.signed import Signed, open_signed, sign
from wire.signing import SigningKey
from wire.stake import STAKE_MIN, StakePart

FOUR, FIVE, SIX = OWNERS[3:6]
STAKE = 10 * STAKE_MIN
# ONE answers, TWO accuses, the others are the stakers out of whom juries are drawn.
STAKERS = (THREE, FOUR, FIVE, SIX)


class Court(Made):
    """A network of four members with stakers, and the file of what has happened."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [self.genesis.to_bytes()]
        # Of each case with a jury: the checkpoint, and all juries that were drawn with it.
        self.drawn: dict[bytes, tuple[bytes, tuple[DrawnJury, ...]]] = {}
        for key in (ONE, *STAKERS):
            role = Role.INFER if key is ONE else Role.VERIFY
            self.done(self.order(key, stake=(StakePart(role=role, amount=STAKE),)))
        self.end()

    def end(self, sealed: Sequence[int] = (0, 1, 2, 3)) -> None:
        """End the epoch with the seals of these members."""
        member = self.replicas[0]
        seals = {}
        for at in sealed:
            made = self.replicas[at].make_seal()
            assert made is not None
            seals[at] = made[0]
        by = drawn_by(seals, member.tip, self.committee)
        outcome = member.outcome(member.applied, by)
        checkpoint = checkpoint_of(self, outcome.header)
        for jury in outcome.juries.drawn:
            self.drawn[jury.case] = checkpoint.to_bytes(), outcome.juries.drawn
        self.parts += [
            checkpoint.to_bytes(),
            *(member.applied[it] for it in sorted(member.applied)),
        ]
        for replica in self.replicas:
            replica.turn(checkpoint, list(replica.applied))

    def announce(
        self, evidence: Evidence, key: SigningKey = TWO, bond: int = CASE_BOND_MIN
    ) -> bytes:
        """Announce a case; its id."""
        digest = evidence_digest(evidence.to_bytes())
        seal = charge_seal(key.peer, digest, salt_for(key, digest))
        step = JurySteps(announce=(CaseNotice(seal=seal, bond=bond),))
        order = self.order(key, jury=(step,))
        self.done(order)
        return case_id(order_digest(order))

    def show(self, evidence: Evidence, case: bytes, key: SigningKey = TWO) -> None:
        """Show the evidence of a case that was announced."""
        raw = evidence.to_bytes()
        charge = ShownCase(case=case, salt=salt_for(key, evidence_digest(raw)), evidence=raw)
        self.done(self.order(key, jury=(JurySteps(charge=(charge,)),)))

    def accuse(self, evidence: Evidence, key: SigningKey = TWO, bond: int = CASE_BOND_MIN) -> bytes:
        """Announce a case, and show its evidence in the next epoch."""
        case = self.announce(evidence, key, bond)
        self.end()
        self.show(evidence, case, key)
        return case

    def seal(self, key: SigningKey, case: bytes, *, wrong: bool) -> None:
        self.done(self.order(key, **seal_or_find(key, case, self.row(case), wrong=wrong)))

    def tell(self, key: SigningKey) -> bytes:
        """Tell all that this account has sealed, and has to tell now."""
        rows = self.replicas[0].books.motions.rows
        order = self.order(key, find=tuple(to_tell(key, rows)))
        self.done(order)
        return order.raw

    def decide(self, case: bytes, *, wrong: bool) -> list[bytes]:
        """Have all who are asked seal this, and tell it; their orders."""
        asked = self.jurors(case) if self.row(case).state is CaseState.JURY else list(STAKERS)
        for juror in asked:
            self.seal(juror, case, wrong=wrong)
        self.end()
        assert self.row(case).state.is_telling
        raws = [self.tell(juror) for juror in asked]
        self.end()
        return raws

    def row(self, case: bytes) -> CaseRow:
        return cases_in(self.replicas[0].books.motions.rows)[case]

    def stake(self, key: SigningKey) -> int:
        return self.replicas[0].books.stakes.row(key.peer).total

    def opened(self, answered: Answered | None = None) -> bytes:
        """A case with its jury drawn."""
        case = self.accuse((answered or Answered(worker=ONE)).case)
        self.end()
        self.end()
        assert self.row(case).state is CaseState.JURY
        return case

    def jurors(self, case: bytes) -> list[SigningKey]:
        """Those with seats, who has most first."""
        by_peer = {it.peer: it for it in STAKERS}
        return [by_peer[it] for it, _ in Counter(self.row(case).seats).most_common()]

    def checked(self, evidence: Evidence) -> None:
        """As `judge`; the signatures of the checkpoint are for its committee to check."""
        judge(evidence)
        shown = shown_finding(evidence)
        self.committee.check_checkpoint(shown.checkpoint, shown.header)

    def check(self) -> None:
        """The whole file holds, and is what the members have."""
        found = replay(read_parts(io.BytesIO(file_of(self.parts))))
        assert found.books.digest() == self.replicas[0].books.digest()
        assert found.books.supply == self.genesis.supply


def binomial(bad: float) -> float:
    """How often enough seats are bad to convict anybody."""
    seats = range(AGREEING, JURORS + 1)
    return sum(comb(JURORS, it) * bad**it * (1 - bad) ** (JURORS - it) for it in seats)


def bad_juries(bad: float, draws: int) -> int:
    """Of so many draws, those in which the bad part of the stake has ten seats."""
    weights = {hashlib.sha256(bytes((at,))).digest(): 1 for at in range(30)}
    culprits = set(sorted(weights)[: round(30 * bad)])
    found = 0
    for number in range(draws):
        beacon = hashlib.sha256(number.to_bytes(8, "big")).digest()
        seats = seats_of(beacon, bytes(32), weights)
        found += sum(it in culprits for it in seats) >= AGREEING
    return found


def test_a_jury_is_bad_as_often_as_the_table_says() -> None:
    assert (round(binomial(0.2), 6), round(binomial(1 / 3), 4)) == (0.000016, 0.0016)
    # 10,000 draws; `python -m tests.bench stake` makes 100,000 at both shares.
    expected = 10_000 * binomial(1 / 3)
    assert abs(bad_juries(1 / 3, 10_000) - expected) < 4 * expected**0.5


def test_a_wrong_answer_costs_half_the_stake_and_pays_who_found_it() -> None:
    court = Court()
    fund = court.replicas[0].books.fund
    case = court.accuse(Answered(worker=ONE).case)
    court.end()
    # The bond is neither the accuser's nor the fund's, and nothing is drawn yet.
    header = court.replicas[0].tip
    assert header is not None
    assert (header.bonds, header.jury_draw.secrets_of, header.jury_draw.beacon) == (
        CASE_BOND_MIN,
        0b1111,
        b"",
    )
    assert court.row(case).state is CaseState.WAITING
    court.end()
    assert court.row(case).state is CaseState.JURY
    assert set(court.row(case).seats) <= {it.peer for it in STAKERS}
    with pytest.raises(Refused, match="no seat"):
        court.seal(ONE, case, wrong=False)
    court.decide(case, wrong=True)
    row = court.row(case)
    assert (row.state, row.wrong, row.evidence) == (CaseState.WRONG, JURORS, b"")
    assert (court.stake(ONE), court.balance(TWO)) == (STAKE // 2, GRANT)
    assert court.replicas[0].books.fund == fund + STAKE // 2 - JURORS * SEAT_FEE
    paid = {it: court.balance(it) - (GRANT - STAKE) for it in STAKERS}
    assert paid == {it: SEAT_FEE * Counter(row.seats)[it.peer] for it in STAKERS}
    rows = court.replicas[0].books.motions.rows
    assert (found_in(rows, case), sealed_in(rows, case)) == ({}, {})
    # It is punished once, whoever asks again; who is bound to it after it was shown has no bond.
    before = court.balance(SIX)
    court.accuse(Answered(worker=ONE).case, SIX, 10 * CASE_BOND_MIN)
    court.end()
    assert court.balance(SIX) == before - 10 * CASE_BOND_MIN
    court.check()


def test_an_asker_with_three_verifiers_of_his_own_gets_nobody_slashed() -> None:
    court = Court()
    # He asked, he accuses, and what his verifiers say is no part of it.
    answered = Answered(worker=ONE, asker=TWO, answer=b"Paris")
    case = court.opened(answered)
    court.decide(case, wrong=False)
    assert court.row(case).state is CaseState.RIGHT
    assert (court.stake(ONE), court.balance(TWO)) == (STAKE, GRANT - CASE_BOND_MIN)
    court.check()


def test_what_the_jury_would_not_see_is_not_laid_before_it() -> None:
    court, answered = Court(), Answered(worker=ONE)
    whole = answered.case
    manifest = MANIFEST.to_bytes()
    other = Answered(worker=ONE, nonce=1)
    hashed = Leg(worker=ONE, wrong=(1,))
    rule = replace(hashed.against_worker(), offence=OffenceKind.DISPUTED_WORK)
    for evidence, why in (
        (replace(whole, content=(manifest, answered.question)), "an input and an output"),
        (replace(whole, content=(manifest, b"x", answered.answer)), "not the one"),
        (replace(whole, content=(manifest, answered.question, b"Paris")), "not the one"),
        (replace(whole, records=(other.task.raw, answered.receipt.raw)), "another task"),
        (replace(whole, records=(answered.task.raw, answered.signed(stage=1).raw)), "stage"),
        (rule, "everybody computes this"),
        (Answered(worker=TWO).case, "nobody accuses itself"),
    ):
        with pytest.raises(Refused, match=why):
            court.accuse(evidence)
        # What was announced is forgotten: another court has to look at the next.
        court = Court()
    with pytest.raises(Malformed, match="convicts nobody"):
        judge(whole)
    assert charged(whole).culprit == ONE.peer


def test_stake_under_accusation_does_not_leave() -> None:
    court = Court()
    court.done(court.order(ONE, unbond=(StakePart(role=Role.INFER, amount=STAKE),)))
    for _ in range(12):
        court.end()
    case = court.accuse(Answered(worker=ONE).case)
    for _ in range(4):
        court.end()
    # Its time was over two epochs ago.
    assert court.stake(ONE) == STAKE
    court.decide(case, wrong=True)
    # Half is taken, and the rest is given back at once.
    assert (court.stake(ONE), court.balance(ONE)) == (0, GRANT - STAKE // 2)
    court.check()


def test_a_hung_jury_leaves_it_to_all_stakers_and_then_the_bond_is_lost() -> None:
    court = Court()
    case = court.opened()
    first, *others = court.jurors(case)
    court.seal(first, case, wrong=False)
    # Of several words of one juror the last counts.
    court.seal(first, case, wrong=True)
    for _ in range(JURY_EPOCHS):
        court.end()
    assert court.row(case).state is CaseState.JURY_TELLS
    court.tell(first)
    court.end()
    row = court.row(case)
    assert (row.state, row.wrong, row.right) == (
        CaseState.EVERYBODY,
        Counter(row.seats)[first.peer],
        0,
    )
    with pytest.raises(Refused, match="has told what it found"):
        court.seal(first, case, wrong=False)
    court.seal(others[0], case, wrong=False)
    for _ in range(JURY_EPOCHS):
        court.end()
    court.tell(others[0])
    court.end()
    assert court.row(case).state is CaseState.HUNG
    assert (court.stake(ONE), court.balance(TWO)) == (STAKE, GRANT - CASE_BOND_MIN)
    for order in (
        court.order(first, **seal_or_find(first, case, court.row(case), wrong=True)),
        court.order(first, find=(JurorFinding(case=case, wrong=True),)),
    ):
        with pytest.raises(Refused, match=r"nothing is (to be found|told)"):
            court.replicas[0].vote(order)
    with pytest.raises(Refused, match="no such case"):
        court.done(court.order(first, find=(JurorFinding(case=bytes(32), wrong=True),)))
    court.check()


def test_all_stakers_convict_by_their_stakes() -> None:
    court = Court()
    case = court.opened()
    for _ in range(JURY_EPOCHS):
        court.end()
    # Nobody has sealed anything: nobody is waited for to tell it.
    assert court.row(case).state is CaseState.EVERYBODY
    with pytest.raises(Refused, match="staked nothing"):
        court.seal(ONE, case, wrong=False)
    for staker in STAKERS[:3]:
        court.seal(staker, case, wrong=True)
    court.end()
    assert court.row(case).state is CaseState.EVERYBODY
    court.seal(STAKERS[3], case, wrong=True)
    court.end()
    assert court.row(case).state is CaseState.EVERYBODY_TELLS
    for staker in STAKERS[:3]:
        court.tell(staker)
    for _ in range(TELL_EPOCHS):
        court.end()
    # Three of four are enough of those who told.
    assert (court.row(case).state, court.stake(ONE)) == (CaseState.WRONG, STAKE // 2)
    court.check()


# Nobody copies another


def test_what_jurors_found_is_told_once_all_are_bound_and_cannot_be_copied() -> None:
    court = Court()
    case = court.opened()
    first, second, *others = court.jurors(case)
    told = JurorFinding(case=case, wrong=True, salt=salt_for(first, case))
    court.seal(first, case, wrong=True)
    # Nobody tells while others may still seal.
    with pytest.raises(Refused, match="it is sealed first"):
        court.done(court.order(first, find=(told,)))
    # A seal is its juror's own: another's opens with no salt that its owner will ever tell.
    rows = court.replicas[0].draft.motions
    (copied,) = (it for key, it in rows.items() if key.endswith(first.peer) and it is not None)
    step = JurySteps(commit=(SealedFinding(case=case, seal=copied),))
    court.done(court.order(second, jury=(step,)))
    for juror in others:
        court.seal(juror, case, wrong=False)
    court.end()
    assert court.row(case).state is CaseState.JURY_TELLS
    court.tell(first)
    for finding in (
        told,
        replace(told, salt=salt_for(second, case)),
        replace(told, salt=b""),
        JurorFinding(case=case, wrong=False, salt=salt_for(second, case)),
    ):
        with pytest.raises(Refused, match="not what the account has sealed"):
            court.done(court.order(second, find=(finding,)))
    # Nor does anybody who knows what others found change what it has sealed.
    with pytest.raises(Refused, match="nothing is sealed any more"):
        court.seal(second, case, wrong=True)
    juror = others[0]
    changed = JurorFinding(case=case, wrong=True, salt=salt_for(juror, case))
    with pytest.raises(Refused, match="not what the account has sealed"):
        court.done(court.order(juror, find=(changed,)))


def test_a_juror_that_does_not_tell_is_absent_and_not_paid() -> None:
    court = Court()
    case = court.opened()
    silent, *others = court.jurors(case)[::-1]
    for juror in (silent, *others):
        court.seal(juror, case, wrong=True)
    court.end()
    for juror in others:
        court.tell(juror)
    court.end()
    # It is waited for as long as it may tell.
    assert court.row(case).state is CaseState.JURY_TELLS
    for _ in range(TELL_EPOCHS):
        court.end()
    row = court.row(case)
    seats = Counter(row.seats)
    assert JURORS - seats[silent.peer] >= AGREEING
    assert (row.state, row.wrong) == (CaseState.WRONG, JURORS - seats[silent.peer])
    assert court.balance(silent) == GRANT - STAKE
    assert all(court.balance(it) == GRANT - STAKE + SEAT_FEE * seats[it.peer] for it in others)
    court.check()


def test_a_seal_tells_nothing_and_binds_to_one_finding() -> None:
    salt = salt_for(THREE, bytes(32))
    assert salt == salt_for(THREE, bytes(32)) != salt_for(FOUR, bytes(32))
    seals = {
        finding_seal(juror.peer, case, one, wrong=wrong)
        for juror in (THREE, FOUR)
        for case in (bytes(32), bytes(31) + b"x")
        for one in (salt, bytes(32))
        for wrong in (False, True)
    }
    assert len(seals) == 16


# Who draws

CASE_ROW = CaseRow(
    accuser=TWO.peer,
    culprit=ONE.peer,
    asker=TWO.peer,
    act=bytes(32),
    digest=bytes(32),
    bond=CASE_BOND_MIN,
    begun=0,
    until=0,
    state=CaseState.WAITING,
    attempt=1,
)


def sealed(court: Court) -> dict[int, Signed[Seal]]:
    seals = {}
    for at, replica in enumerate(court.replicas):
        made = replica.make_seal()
        assert made is not None
        seals[at] = made[0]
    return seals


def test_a_leader_that_tries_all_sets_of_seals_has_one_draw_or_none() -> None:
    court = Court()
    court.accuse(Answered(worker=ONE).case)
    court.end()
    seals, tip = sealed(court), court.replicas[0].tip
    whole = drawn_by(seals, tip, court.committee)
    assert len(whole.beacon) == 32
    for count in range(5):
        for chosen in combinations(seals, count):
            by = drawn_by({at: seals[at] for at in chosen}, tip, court.committee)
            assert by.beacon == (whole.beacon if count == 4 else b"")
    # What is sealed beside changes nothing: other orders, another number of them.
    more = replace(seals[1].record, count=9, buckets=seals[1].record.buckets[::-1])
    other = seals | {1: sign(more, court.keys[1])}
    assert drawn_by(other, tip, court.committee).beacon == whole.beacon
    # And a secret of another epoch, or made by another key, is none.
    for secret in (
        b"",
        bytes(80),
        secret_for(court.keys[1], court.genesis.id, 1),
        secret_for(court.keys[2], court.genesis.id, 2),
    ):
        false = sign(replace(seals[1].record, secret=secret), court.keys[1])
        end = EpochEnd(court.replicas[0])
        with pytest.raises(WireError):
            end.receive(false.raw)
        with pytest.raises(WireError):
            drawn_by(seals | {1: false}, tip, court.committee)


def test_who_seals_last_chooses_no_jury_by_orders_that_it_held_back() -> None:
    court = Court()
    case = court.accuse(Answered(worker=ONE).case)
    court.end()
    seats = []
    for held_back in ((), (THREE,), (FOUR, SIX)):
        # All others have sealed: it knows what is drawn, and puts in what it likes of these.
        draft = Draft(court.replicas[0].books, court.replicas[0].epoch)
        for key in held_back:
            part = StakePart(role=Role.VERIFY, amount=STAKE - STAKE_MIN)
            draft.apply(court.order(key, unbond=(part,)))
        end_juries(draft, bytes(range(32)))
        seats.append(cases_in(draft.motion_rows())[case].seats)
    assert seats[0] == seats[1] == seats[2]
    assert len(seats[0]) == JURORS


def test_who_withholds_its_secret_wins_one_draw_and_is_left_out_of_the_next() -> None:
    court = Court()
    case = court.accuse(Answered(worker=ONE).case)
    court.end()
    court.end(sealed=(0, 1, 2))
    tip = court.replicas[0].tip
    assert tip is not None
    assert (tip.jury_draw.beacon, tip.jury_draw.secrets_of) == (b"", 0b0111)
    assert court.row(case).state is CaseState.WAITING
    # It seals again, and its word counts no more for this draw.
    court.end()
    tip = court.replicas[0].tip
    assert tip is not None
    assert (len(tip.jury_draw.beacon), tip.jury_draw.secrets_of) == (32, 0)
    assert court.row(case).state is CaseState.JURY
    court.check()


def votes_on(
    court: Court, leader: int, chosen: Sequence[int], known: Sequence[int] = range(4)
) -> list[Any]:
    """What a member that has these seals votes on the leader's proposal with some of them."""
    seals, voter = sealed(court), court.replicas[(leader + 1) % 4]
    by = drawn_by({at: seals[at] for at in chosen}, voter.tip, court.committee)
    proposal = Proposal(
        network=court.genesis.id,
        epoch=voter.epoch,
        round=0,
        header=voter.outcome(voter.applied, by).header.to_bytes(),
        seals=tuple(seals[at].raw for at in chosen),
        valid_round=None,
        prevotes=None,
    )
    end = EpochEnd(voter)
    end.seal_now()
    for at in known:
        end.receive(seals[at].raw)
    end.receive(sign(proposal, court.keys[leader]).raw)
    votes = [open_signed(it, AgreementVote).record for it in end.take().signed if it[1] == 65]
    return [it.header for it in votes if it.phase is AgreementPhase.PREVOTE]


def test_members_that_know_a_secret_vote_against_a_leader_that_leaves_it_out() -> None:
    court = Court()
    leader = court.replicas[0].epoch % 4
    others = [at for at in range(4) if at != leader]
    # As long as no jury waits, three seals are as good as four.
    assert votes_on(court, leader, others)[0] is not None
    court = Court()
    court.accuse(Answered(worker=ONE).case)
    court.end()
    leader = court.replicas[0].epoch % 4
    others = [at for at in range(4) if at != leader]
    assert votes_on(court, leader, (0, 1, 2, 3))[0] is not None
    assert votes_on(court, leader, others) == [None]
    # Who has not heard of it either votes for what it has.
    assert votes_on(court, leader, others, others)[0] is not None


def test_every_epoch_ends_alike_while_juries_wait_and_messages_are_lost() -> None:
    drawn = 0
    for seed in range(3):
        simulation = Simulation(Plan(seed=seed, members=4, bad=seed % 2, epochs=4, case=CASE_ROW))
        found = simulation.run()
        assert found.epochs_ended >= 4
        (row,) = cases_in(simulation.honest[0].replica.books.motions.rows).values()
        # Nobody has staked there: a draw finds nobody, and gives the bond back.
        drawn += row.state is CaseState.NO_JURY
    assert drawn >= 2


# The finding as a record


def test_a_finding_is_judged_by_a_stranger_and_altered_in_any_byte_it_is_none() -> None:
    court = Court()
    answered = Answered(worker=ONE)
    case = court.opened(answered)
    raws = court.decide(case, wrong=True)
    checkpoint, drawn = court.drawn[case]
    (jury,) = drawn
    evidence = jury_finding(checkpoint, answered.case.to_bytes(), raws, jury, drawn)
    found = judged(evidence.to_bytes())
    assert [it.culprit for it in found.convictions] == [ONE.peer]
    assert found.convictions[0].act in court.replicas[0].books.stakes.acts
    assert (found.network, "13 of 13 seats" in found.why) == (court.genesis.id, True)
    court.checked(evidence)
    # The ledger has taken what it costs, and takes no finding as an accusation.
    accusation = Accusation(evidence=evidence.to_bytes(), bond=CASE_BOND_MIN)
    with pytest.raises(Refused, match="taken by itself"):
        court.done(court.order(SIX, accuse=(accusation,)))
    with pytest.raises(Malformed, match="seats found it wrong"):
        judge(replace(evidence, records=evidence.records[:3]))
    again = (*evidence.records[:3], *evidence.records[2:3] * 9)
    with pytest.raises(Malformed, match="seats found it wrong"):
        judge(replace(evidence, records=again))
    for name in ("records", "content"):
        parts = getattr(evidence, name)
        for number, part in enumerate(parts):
            for at in range(0, len(part), 29):
                altered = bytearray(part)
                altered[at] ^= 1
                changed = (*parts[:number], bytes(altered), *parts[number + 1 :])
                with pytest.raises(WireError):
                    court.checked(replace(evidence, **{name: changed}))


def test_orders_of_others_and_of_before_the_draw_are_no_part_of_a_finding() -> None:
    court, answered = Court(), Answered(worker=ONE)
    case = court.opened(answered)
    checkpoint, drawn = court.drawn[case]
    finding = JurorFinding(case=case, wrong=True)
    network, raw = court.genesis.id, answered.case.to_bytes()

    def orders(**changes: Any) -> list[bytes]:
        fields = {"network": network, "epoch": 4, "sequence": 1, "find": (finding,)}
        return [sign(AccountOrder(**(fields | changes)), it).raw for it in STAKERS]

    judge(jury_finding(checkpoint, raw, orders(), drawn[0], drawn))
    for changes, why in (
        ({"epoch": 1}, "before the jury"),
        ({"network": MANIFEST.id}, "another network"),
        ({"find": (JurorFinding(case=case, wrong=False),)}, "0 seats"),
        ({"find": (JurorFinding(case=bytes(32), wrong=True),)}, "0 seats"),
    ):
        with pytest.raises(Malformed, match=why):
            judge(jury_finding(checkpoint, raw, orders(**changes), drawn[0], drawn))
    strangers = [
        sign(AccountOrder(network=network, epoch=4, sequence=at, find=(finding,)), it).raw
        for at, it in enumerate(KEYS[:13])
    ]
    with pytest.raises(Malformed, match="0 seats"):
        judge(jury_finding(checkpoint, raw, strangers, drawn[0], drawn))
    other = Answered(worker=ONE, nonce=1).case.to_bytes()
    with pytest.raises(Malformed, match="another case"):
        judge(jury_finding(checkpoint, other, orders(), drawn[0], drawn))
    made_up = replace(drawn[0], seats=(THREE.peer,) * JURORS)
    with pytest.raises(Malformed, match="does not name this jury"):
        judge(jury_finding(checkpoint, raw, orders(), made_up, [made_up]))
