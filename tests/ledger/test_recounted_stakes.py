"""A recount that shares no code with the node knows what penalties and juries left of stakes."""

import io
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from node.evidence.charges import charged
from node.evidence.offences import lost_dispute, two_votes, work_of
from node.ledger.case_places import (
    CASE_BOND_MIN,
    CASES_OPEN_MAX,
    CasePlaces,
    is_case,
    notices_in,
)
from node.ledger.chain_file import read_parts, replay
from node.ledger.juries import (
    JURY_EPOCHS,
    cases_in,
    open_cases,
    salt_for,
    seal_or_find,
    to_tell,
)
from node.ledger.slashing import BOND_MIN
from tests.checking.played_disputes import CHALLENGER, PROVER
from tests.checking.played_disputes import Stage as PlayedStage
from tests.checking.test_exact_disputes import MODEL, WRONG
from tests.checking.test_exact_disputes import ROWS as CALL_ROWS
from tests.evidence.crimes import Leg, forked
from tests.evidence.disputed import Answered
from tests.ledger.made import ONE, THREE, TWO
from tests.ledger.simulation import KEYS, OWNERS
from tests.ledger.test_motions import MEMBER, Network, recount_of, recount_page
from wire.amount import CREDIT
from wire.codec import Value, pack
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Refused
from wire.evidence import Evidence, OffenceKind
from wire.jury import CaseNotice, CaseState, JurySteps, ShownCase, charge_seal, evidence_digest
from wire.kinds import Role
from wire.ledger import Accusation, Payment, Vote
from wire.motion import VOTING_EPOCHS_MIN, MotionState
from wire.signed import sign
from wire.signing import SigningKey
from wire.stake import StakePart

FOUR, FIVE, SIX = OWNERS[3:6]
Wrong = recount_page("recount").Wrong
Stakes = recount_page("recount_stakes").Stakes


def _accused(evidence: Evidence) -> tuple[PeerId, ContentId]:
    found = charged(evidence)
    return found.culprit, found.receipt.id


class Accused(Network):
    """A network in which stakers are accused."""

    def stake(self, key: SigningKey, amount: int, role: Role = Role.VERIFY) -> None:
        self.do(key, stake=(StakePart(role=role, amount=amount),))

    def unbond(self, key: SigningKey, amount: int, role: Role = Role.VERIFY) -> None:
        self.do(key, unbond=(StakePart(role=role, amount=amount),))

    def staked(self, key: SigningKey) -> int:
        return self.made.replicas[0].books.stakes.row(key.peer).total

    def __init__(self) -> None:
        super().__init__()
        # By their seals, what was announced and is shown later.
        self.announced: dict[bytes, tuple[SigningKey, bytes]] = {}

    def accuse(self, evidence: Evidence, key: SigningKey = SIX, bond: int | None = None) -> None:
        raw = evidence.to_bytes()
        if not is_case(raw):
            found = Accusation(evidence=raw, bond=BOND_MIN, with_others=True)
            self.do(key, accuse=(found,))
            return
        digest = evidence_digest(raw)
        seal = charge_seal(key.peer, digest, salt_for(key, digest))
        places = CasePlaces.of(self.member.books.motions.rows)
        bond = bond or places.bond(work_of(*_accused(evidence)).act)
        self.do(key, jury=(JurySteps(announce=(CaseNotice(seal=seal, bond=bond),)),))
        self.announced[seal] = (key, raw)

    def show(self) -> None:
        """Have all who announced a case show its evidence."""
        for name, notice in notices_in(self.member.books.motions.rows.items()).items():
            key, raw = self.announced[notice.seal]
            salt = salt_for(key, evidence_digest(raw))
            charge = ShownCase(case=name, salt=salt, evidence=raw)
            self.do(key, jury=(JurySteps(charge=(charge,)),))

    def two_votes(self, key: SigningKey, sequence: int) -> Evidence:
        votes = [
            Vote(
                network=self.made.genesis.id,
                epoch=1,
                account=TWO.peer,
                sequence=sequence,
                order=bytes((side,)) * 32,
            )
            for side in (1, 2)
        ]
        first, second = (sign(it, key).raw for it in votes)
        return two_votes(first, second)

    def find(self, random: Random) -> None:
        """Have some who are asked about a case say what they found."""
        for name, row in cases_in(self.member.books.motions.rows).items():
            is_wrong = row.act[0] % 2 > 0
            for key in OWNERS if row.state.is_open else ():
                if random.random() < 0.6:
                    wrong = is_wrong if random.random() < 0.9 else not is_wrong
                    with suppress(Refused):
                        self.do(key, **seal_or_find(key, name, row, wrong=wrong))
        for key in OWNERS:
            found = to_tell(key, self.member.books.motions.rows)
            if found and random.random() < 0.8:
                self.do(key, find=tuple(found))

    def crime(self, random: Random, number: int) -> Evidence:
        """Evidence of some kind against some owner."""
        key = random.choice(OWNERS)
        leg = Leg(worker=key, wrong=(3,), nonce=number)
        made = (
            lambda: forked(key, began_at_ms=number),
            leg.against_worker,
            lambda: Leg(wrong=(5,), nonce=number).against(
                Leg(wrong=(5,), nonce=number).verdict(key, (1, 5))
            ),
            lambda: self.two_votes(key, number),
            lambda: Answered(worker=key, nonce=number).case,
            lambda: Answered(worker=key, nonce=number).case,
        )
        return random.choice(made)()


def random_history(seed: int) -> Accused:
    """Accounts stake, unbond, vote, accuse and are convicted, by evidence and by juries."""
    random = Random(seed)
    network = Accused()
    network.use(*random.sample(OWNERS, 2), CREDIT)
    for key in OWNERS:
        for role in random.sample([Role.VERIFY, Role.INFER, Role.DATA], random.randint(1, 2)):
            network.stake(key, random.randint(CREDIT, 30 * CREDIT), role)
    motions = [network.propose()]
    network.end()
    for number in range(random.randint(12, 24)):
        key = random.choice([*OWNERS * 3, MEMBER])
        with suppress(Refused):
            network.vote(key, random.choice(motions), yes=random.random() < 0.6)
        if random.random() < 0.1:
            with suppress(Refused):
                motions.append(network.propose(random.choice(OWNERS), bond=3 * CREDIT))
        action = random.random()
        with suppress(Refused):
            if action < 0.7:
                # The same act is shown twice now and then.
                network.accuse(network.crime(random, number // 2), random.choice(OWNERS))
            elif action < 0.85:
                network.unbond(random.choice(OWNERS), random.randint(CREDIT, 5 * CREDIT))
            else:
                network.stake(random.choice(OWNERS), random.randint(CREDIT, 5 * CREDIT))
        with suppress(Refused):
            network.show()
        network.find(random)
        if random.random() < 0.7:
            network.end()
    network.end(random.choice((1, VOTING_EPOCHS_MIN, 2 * VOTING_EPOCHS_MIN)))
    return network


def convicted_in(network: Accused) -> tuple[int, set[CaseState]]:
    """How many acts were punished, and how cases ended."""
    books = network.member.books
    return len(books.stakes.acts), {it.state for it in cases_in(books.motions.rows).values()}


def test_page_and_node_agree_on_histories_in_which_stake_was_taken() -> None:
    acts, ends = 0, set[CaseState]()
    for seed in range(3):
        network = random_history(seed)
        network.check()
        more, states = convicted_in(network)
        acts, ends = acts + more, ends | states
    assert acts >= 10
    assert {CaseState.WRONG, CaseState.RIGHT} <= ends


@pytest.mark.soak
def test_page_and_node_agree_on_many_histories_with_penalties() -> None:
    ends = set[CaseState]()
    for seed in range(300):
        network = random_history(seed)
        network.check()
        ends |= convicted_in(network)[1]
    assert {*CaseState} - {CaseState.NO_JURY, CaseState.GAVE_WAY} <= ends


def test_page_and_node_agree_on_which_case_gives_way_and_on_one_that_is_brought_again() -> None:
    network = Accused()
    network.stake(ONE, 10 * CREDIT)
    network.stake(TWO, 10 * CREDIT)
    network.propose()
    strangers = KEYS[-CASES_OPEN_MAX:]
    for number, key in enumerate(strangers):
        payer = OWNERS[number % len(OWNERS)]
        network.do(payer, pay=(Payment(to=key.peer, amount=22 * CREDIT),))
    network.end()
    bond = CASES_OPEN_MAX * CASE_BOND_MIN
    for nonce, key in enumerate(strangers):
        network.accuse(Answered(worker=ONE, nonce=nonce).case, key, bond)
    network.end()
    network.show()
    network.end()
    rows = network.member.books.motions.rows
    assert len(open_cases(rows)) == CASES_OPEN_MAX
    assert CasePlaces.of(rows).bond() == 2 * bond
    network.accuse(Answered(worker=ONE, nonce=90).case, SIX, 2 * bond)
    network.end()
    network.show()
    network.end()
    ends = [it.state for it in cases_in(network.member.books.motions.rows).values()]
    assert ends.count(CaseState.GAVE_WAY) == 1
    network.check()
    network.end(2 * JURY_EPOCHS + 2)
    again = cases_in(network.member.books.motions.rows).values()
    act = next(it.act for it in again if it.accuser == SIX.peer)
    network.accuse(Answered(worker=ONE, nonce=90).case, FOUR, 2 * CASE_BOND_MIN)
    network.end()
    network.show()
    network.end(2)
    (found,) = open_cases(network.member.books.motions.rows).values()
    assert (found.act, found.attempt, found.state) == (act, 2, CaseState.JURY)
    for name in open_cases(network.member.books.motions.rows):
        network.do(TWO, **seal_or_find(TWO, name, found, wrong=True))
    network.end()
    network.do(TWO, find=tuple(to_tell(TWO, network.member.books.motions.rows)))
    network.end()
    assert network.staked(ONE) == 5 * CREDIT
    network.check()


def turned() -> tuple[Accused, bytes]:
    """A motion that would pass, had a staker that is for it not lost half of its stake."""
    network = Accused()
    network.use(ONE, TWO, 5 * CREDIT)
    for key, amount in ((ONE, 80), (TWO, 60), (THREE, 90), (FOUR, 90)):
        network.stake(key, amount * CREDIT)
    motion = network.propose(FIVE)
    network.end()
    for key, yes in ((ONE, True), (TWO, False), (THREE, True), (FOUR, False)):
        network.vote(key, motion, yes=yes)
    network.end()
    network.accuse(Leg(worker=ONE, wrong=(3,)).against_worker())
    network.end(VOTING_EPOCHS_MIN)
    return network, motion


def _nothing_taken(self: Any, epoch: int, header: Any, earned: Any) -> Any:
    """As `Stakes.end`, but without looking at the checkpoint."""
    self.earned = earned
    self.take(epoch, b"", iter(()))
    return self


def test_a_page_without_penalties_counts_otherwise_and_is_stopped_by_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, motion = turned()
    assert network.row(motion).state is MotionState.REJECTED
    assert network.staked(ONE) == 40 * CREDIT
    network.check()
    histories = [random_history(seed) for seed in range(3, 5)]
    before = [recount_of(it.data) for it in histories]
    monkeypatch.setattr(Stakes, "_slash", lambda *_: None)
    with pytest.raises(Wrong, match="epoch 2: its stakes are not those of its checkpoint"):
        recount_of(network.data)
    for history in histories:
        with pytest.raises(Wrong, match="its stakes are not those"):
            recount_of(history.data)
    monkeypatch.setattr(Stakes, "end", _nothing_taken)
    assert recount_of(network.data)[motion]["state"] == MotionState.PASSED
    after = [recount_of(it.data) for it in histories]
    assert sum(one != other for one, other in zip(before, after, strict=True)) >= 1


def test_what_leaves_is_taken_too_and_stays_while_a_jury_looks() -> None:
    network = Accused()
    for key in (ONE, TWO, THREE):
        network.stake(key, 10 * CREDIT)
    network.stake(ONE, 7 * CREDIT + 1, Role.INFER)
    motion = network.propose()
    network.end()
    network.unbond(ONE, 4 * CREDIT)
    network.end()
    network.unbond(ONE, 3 * CREDIT)
    network.accuse(forked(ONE))
    network.accuse(Answered(worker=ONE).case, FIVE)
    network.end()
    network.show()
    network.end(2)
    # Nobody finds anything: what left is given back only once the case has hung.
    network.end(VOTING_EPOCHS_MIN)
    assert network.staked(ONE) == 17 * CREDIT + 1 - (17 * CREDIT + 1) // 5
    network.check()
    network.end(VOTING_EPOCHS_MIN + 2)
    assert network.staked(ONE) < 11 * CREDIT
    assert convicted_in(network)[1] == {CaseState.HUNG}
    assert network.row(motion).state is not MotionState.OPEN
    network.check()


async def test_who_lost_a_dispute_is_found_by_what_the_checkpoint_says() -> None:
    network = Accused()
    for key in (PROVER, CHALLENGER):
        network.do(ONE, pay=(Payment(to=key.peer, amount=20 * CREDIT),))
        network.stake(key, 10 * CREDIT)
    network.propose()
    network.end()
    data = MODEL.to_bytes()
    honest = await PlayedStage(MODEL, MODEL, WRONG, [CALL_ROWS]).play()
    liar = await PlayedStage(MODEL, WRONG, MODEL, [CALL_ROWS]).play()
    network.accuse(lost_dispute(honest.raw, data))
    network.end()
    assert (network.staked(PROVER), network.staked(CHALLENGER)) == (10 * CREDIT, 5 * CREDIT)
    network.check()
    network.accuse(lost_dispute(liar.raw, data))
    network.accuse(forked(CHALLENGER), FIVE)
    network.end()
    assert (network.staked(PROVER), network.staked(CHALLENGER)) == (5 * CREDIT, 4 * CREDIT)
    network.end(VOTING_EPOCHS_MIN)
    network.check()


async def test_more_disputes_than_the_page_tells_apart_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Accused()
    network.do(ONE, pay=(Payment(to=CHALLENGER.peer, amount=20 * CREDIT),))
    network.stake(CHALLENGER, 10 * CREDIT)
    network.end()
    honest = await PlayedStage(MODEL, MODEL, WRONG, [CALL_ROWS]).play()
    for key in (TWO, THREE):
        network.accuse(lost_dispute(honest.raw, MODEL.to_bytes()), key)
    network.end()
    network.check()
    monkeypatch.setattr(recount_page("recount_stakes"), "DISPUTES_MAX", 1)
    with pytest.raises(Wrong, match="epoch 1: 2 disputes: this page tells 1 apart"):
        recount_of(network.data)


def _forged() -> list[bytes]:
    """Evidence that no honest member votes for."""
    one, other = forked(ONE), forked(TWO)
    sides: tuple[Any, ...] = (one.records[0], one.records[0]), (one.records[0], other.records[1])
    flipped = one.records[1][:-1] + bytes((one.records[1][-1] ^ 1,))
    leg = Leg(worker=ONE, wrong=(3,))
    strange = Leg(worker=ONE, wrong=(3,), nonce=1).verdict(TWO, (3,))
    fork, verdict = OffenceKind.FORKED_LOG, OffenceKind.UNTRUE_VERDICT
    shapes: list[Value] = [
        5,
        [],
        {},
        {"offence": 1},
        {"offence": 99, "records": [b"x"], "content": []},
        {"offence": 2, "records": [b"x"] * 3, "content": []},
        {"offence": 3, "records": [pack([110, b"", b"", b""])], "content": []},
        {"offence": 6, "records": [[], {}], "content": []},
    ]
    return [
        *(Evidence(offence=fork, records=it, content=()).to_bytes() for it in sides),
        Evidence(offence=fork, records=(one.records[0], flipped), content=()).to_bytes(),
        Evidence(
            offence=verdict, records=(leg.task.raw, leg.receipt.raw, strange.raw), content=(b"x",)
        ).to_bytes(),
        b"x",
        *map(pack, shapes),
    ]


@pytest.mark.parametrize("evidence", _forged())
def test_evidence_that_a_bad_quorum_certifies_is_named(evidence: bytes) -> None:
    network = Accused()
    network.stake(ONE, 10 * CREDIT)
    network.end()
    order = network.made.order(TWO, accuse=(Accusation(evidence=evidence, bond=BOND_MIN),))
    raw = network.made.certificate(order, (0,))
    network.member.votes[TWO.peer] = (0, network.member.check_certificate(raw)[0])
    network.member.confirm(raw)
    network.end()
    with pytest.raises(Wrong, match="epoch 1: "):
        recount_of(network.data)
    with pytest.raises(Malformed, match="epoch 1 does not hold"):
        replay(read_parts(io.BytesIO(network.data)))


def test_an_answer_that_is_not_wrong_takes_nothing_whatever_a_quorum_certifies() -> None:
    network = Accused()
    network.stake(ONE, 10 * CREDIT)
    network.end()
    evidence = Leg(worker=ONE).against_worker().to_bytes()
    order = network.made.order(TWO, accuse=(Accusation(evidence=evidence, bond=BOND_MIN),))
    raw = network.made.certificate(order, (0,))
    network.member.votes[TWO.peer] = (0, network.member.check_certificate(raw)[0])
    network.member.confirm(raw)
    network.end()
    # The page takes their word for the answer, and not for what the stakes are then.
    with pytest.raises(Wrong, match="epoch 1: its stakes are not those"):
        recount_of(network.data)


def test_a_history_with_penalties_altered_in_any_byte_is_named() -> None:
    network = Accused()
    network.stake(ONE, 10 * CREDIT)
    network.end()
    network.accuse(forked(ONE))
    network.end()
    data = network.data
    recount_of(data)
    for place in range(0, len(data), 7):
        altered = data[:place] + bytes((data[place] ^ 0x10,)) + data[place + 1 :]
        with pytest.raises((Wrong, StopIteration)):
            recount_of(altered)
