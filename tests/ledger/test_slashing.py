"""Stake is taken at the end of an epoch, once for each act, on evidence that anybody can judge."""

import io
from contextlib import suppress
from unittest.mock import Mock

import pytest

from node.evidence.offences import OffenceFinding, judged, lost_dispute, work_of
from node.ledger import slashing
from node.ledger.chain_file import read_parts, replay
from node.ledger.member_answers import ACCUSATIONS_MAX, FALSE_COUNTS, MemberAnswers
from node.ledger.slashing import BOND_MIN
from tests.checking.played_disputes import PROVER
from tests.checking.played_disputes import Stage as PlayedStage
from tests.checking.test_exact_disputes import MODEL, WRONG
from tests.checking.test_exact_disputes import ROWS as CALL_ROWS
from tests.evidence.crimes import Leg, forked
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.simulation import GRANT
from tests.ledger.test_chain_file import end_epoch, file_of
from tests.ledger.test_stakes import part
from wire.errors import Malformed, Refused
from wire.evidence import Evidence
from wire.kinds import RefusalCode
from wire.ledger import Accusation, Payment
from wire.ledger_message import SubmitOrder
from wire.message import Message, Refuse
from wire.receipt import Receipt
from wire.signed import open_signed
from wire.signing import SigningKey
from wire.stake import STAKE_MIN, UNBONDING_EPOCHS

STAKE = 10 * STAKE_MIN


def accused(evidence: Evidence, bond: int = BOND_MIN) -> tuple[Accusation, ...]:
    return (Accusation(evidence=evidence.to_bytes(), bond=bond),)


def network(*stakers: SigningKey) -> Made:
    """A network in which these have staked."""
    made = Made()
    for key in stakers or (ONE,):
        made.done(made.order(key, stake=(part(STAKE),)))
    end_epoch(made)
    return made


def stake_of(made: Made, key: SigningKey) -> int:
    return made.replicas[0].books.stakes.row(key.peer).total


def test_a_fork_costs_a_fifth_to_the_fund_and_the_bond_comes_back() -> None:
    made = Made()
    parts = [made.genesis.to_bytes()]
    made.done(made.order(stake=(part(STAKE),)))
    parts += end_epoch(made)
    fund = made.replicas[0].books.fund
    made.done(made.order(TWO, accuse=accused(forked(ONE))))
    # Nothing is taken before the epoch ends.
    assert made.replicas[0].draft.stake(ONE.peer).total == STAKE
    assert made.balance(TWO) == GRANT - BOND_MIN
    parts += end_epoch(made)
    assert stake_of(made, ONE) == STAKE * 4 // 5
    assert made.balance(TWO) == GRANT
    assert made.replicas[0].books.fund == fund + STAKE // 5
    found = replay(read_parts(io.BytesIO(file_of(parts))))
    assert found.books.stakes.total == STAKE * 4 // 5
    assert found.books.supply == made.genesis.supply


def test_the_same_act_is_punished_once_however_it_is_shown() -> None:
    made = network()
    # Two accusers in one epoch: the second gets nothing for it, and its bond is the fund's.
    made.done(made.order(TWO, accuse=accused(forked(ONE))))
    made.done(made.order(THREE, accuse=accused(forked(ONE, number=9))))
    end_epoch(made)
    assert stake_of(made, ONE) == STAKE * 4 // 5
    assert sorted((made.balance(TWO), made.balance(THREE))) == [GRANT - BOND_MIN, GRANT]
    for again in (forked(ONE), forked(ONE, number=2)):
        with pytest.raises(Refused, match="taken for this act before"):
            made.replicas[0].vote(made.order(TWO, accuse=accused(again)))
    # Another log is another act.
    made.done(made.order(TWO, accuse=accused(forked(ONE, began_at_ms=7))))
    end_epoch(made)
    assert stake_of(made, ONE) == STAKE * 4 // 5 * 4 // 5


def test_who_shows_what_is_true_of_whom_others_took_all_from_in_that_epoch_keeps_its_bond() -> None:
    made = Made()
    made.done(made.order(stake=(part(STAKE_MIN),)))
    end_epoch(made)
    for key, began_at_ms in ((TWO, 1000), (THREE, 2000)):
        raw = forked(ONE, began_at_ms=began_at_ms).to_bytes()
        found = Accusation(evidence=raw, bond=BOND_MIN, with_others=True)
        made.done(made.order(key, accuse=(found,)))
    fund = made.replicas[0].books.fund
    end_epoch(made)
    # The first takes all there is; of both acts one is punished, and neither accuser pays for it.
    assert (stake_of(made, ONE), len(made.replicas[0].books.stakes.acts)) == (0, 1)
    assert (made.balance(TWO), made.balance(THREE)) == (GRANT, GRANT)
    assert made.replicas[0].books.fund == fund + STAKE_MIN
    with pytest.raises(Refused, match="no stake that could be taken"):
        made.replicas[0].vote(made.order(TWO, accuse=accused(forked(ONE, began_at_ms=3000))))


async def test_two_kinds_of_evidence_for_one_act_cost_it_once() -> None:
    leg = Leg(wrong=(3,))
    # Evidence of either kind names the act by who did it and by the receipt.
    (by_rule,) = judged(leg.against_worker().to_bytes()).convictions
    assert by_rule == work_of(leg.receipt.signer, leg.receipt.id)
    record = await PlayedStage(MODEL, WRONG, MODEL, [CALL_ROWS]).play()
    receipt = open_signed(record.record.receipt, Receipt)
    dispute = lost_dispute(record.raw, MODEL.to_bytes())
    made = Made()
    made.done(made.order(ONE, pay=(Payment(to=receipt.signer, amount=2 * STAKE),)))
    end_epoch(made)
    made.done(made.order(PROVER, stake=(part(STAKE),)))
    end_epoch(made)
    for replica in made.replicas:
        # As if what the receipt names had convicted it before.
        replica.books.stakes.put_act(work_of(receipt.signer, receipt.id).act, 0)
    with pytest.raises(Refused, match="taken for this act before"):
        made.replicas[0].vote(made.order(TWO, accuse=accused(dispute)))
    for replica in made.replicas:
        replica.books.stakes.put_act(work_of(receipt.signer, receipt.id).act, None)
    made.done(made.order(TWO, accuse=accused(dispute)))
    end_epoch(made)
    assert made.replicas[0].books.stakes.row(receipt.signer).total == STAKE // 2


def test_a_wrong_answer_costs_once_and_another_one_again() -> None:
    made = network()
    leg = Leg(worker=ONE, wrong=(3,))
    made.done(made.order(TWO, accuse=accused(leg.against_worker())))
    end_epoch(made)
    assert stake_of(made, ONE) == STAKE // 2
    with pytest.raises(Refused, match="before"):
        made.replicas[0].vote(made.order(TWO, accuse=accused(leg.against_worker())))
    other = Leg(worker=ONE, wrong=(3,), nonce=1)
    made.done(made.order(TWO, accuse=accused(other.against_worker())))
    end_epoch(made)
    assert stake_of(made, ONE) == STAKE // 4


def test_a_lazy_verifier_loses_half_and_one_that_did_not_sample_the_row_nothing() -> None:
    made = network(ONE, TWO)
    leg = Leg(wrong=(5,))
    lazy, unlucky = leg.verdict(ONE, (1, 5)), leg.verdict(TWO, (1, 2))
    made.done(made.order(THREE, accuse=accused(leg.against(lazy))))
    with pytest.raises(Refused, match="no row that the verdict lists"):
        made.replicas[0].vote(made.order(THREE, accuse=accused(leg.against(unlucky))))
    end_epoch(made)
    assert (stake_of(made, ONE), stake_of(made, TWO)) == (STAKE // 2, STAKE)


def test_what_was_asked_back_an_order_before_the_evidence_is_taken_and_not_an_epoch_after() -> None:
    made = network()
    made.done(made.order(ONE, unbond=(part(STAKE),)))
    made.done(made.order(TWO, accuse=accused(forked(ONE))))
    end_epoch(made)
    assert stake_of(made, ONE) == STAKE * 4 // 5
    for _ in range(UNBONDING_EPOCHS - 1):
        end_epoch(made)
    # The last epoch in which it still answers.
    made.done(made.order(TWO, accuse=accused(forked(ONE, began_at_ms=7))))
    end_epoch(made)
    left = STAKE * 4 // 5 * 4 // 5
    assert (stake_of(made, ONE), made.balance(ONE)) == (0, GRANT - STAKE + left)
    with pytest.raises(Refused, match="no stake that could be taken"):
        made.replicas[0].vote(made.order(TWO, accuse=accused(forked(ONE, began_at_ms=8))))


def test_penalties_larger_than_the_stake_take_all_of_it_and_never_more() -> None:
    made = Made()
    made.done(made.order(stake=(part(STAKE_MIN),)))
    end_epoch(made)
    # A fifth would be less than the least penalty, which is all that there is.
    made.done(made.order(TWO, accuse=accused(forked(ONE))))
    made.done(made.order(THREE, accuse=accused(forked(ONE, began_at_ms=7))))
    end_epoch(made)
    assert stake_of(made, ONE) == 0
    assert made.balance(ONE) == GRANT - STAKE_MIN
    books = made.replicas[0].books
    assert (books.stakes.total, books.supply) == (0, made.genesis.supply)
    # One of the two found nothing left, and has lost its bond.
    assert sorted((made.balance(TWO), made.balance(THREE))) == [GRANT - BOND_MIN, GRANT]


def test_what_convicts_nobody_is_not_voted_for() -> None:
    made = network()
    honest = Leg(worker=ONE)
    for evidence, bond, why in (
        (honest.against_worker(), BOND_MIN, "the answer is right"),
        (forked(TWO), BOND_MIN, "no stake that could be taken"),
        (forked(ONE), BOND_MIN - 1, "puts up at least"),
        (forked(ONE), GRANT + 1, "the account has"),
    ):
        with pytest.raises(Refused, match=why):
            made.replicas[0].vote(made.order(TWO, accuse=accused(evidence, bond)))
    order = made.order(TWO, accuse=(Accusation(evidence=b"x", bond=BOND_MIN),))
    with pytest.raises(Refused, match="does not hold"):
        made.replicas[0].vote(order)


def test_a_quorum_that_certifies_false_evidence_takes_nothing_and_is_found_offline() -> None:
    made = Made()
    parts = [made.genesis.to_bytes()]
    made.done(made.order(stake=(part(STAKE),)))
    parts += end_epoch(made)
    order = made.order(TWO, accuse=accused(Leg(worker=ONE).against_worker()))
    raw = made.certificate(order)
    for replica in made.replicas:
        replica.votes[TWO.peer] = (order.record.sequence, replica.check_certificate(raw)[0])
        replica.confirm(raw)
    parts += end_epoch(made)
    assert stake_of(made, ONE) == STAKE
    assert made.balance(TWO) == GRANT - BOND_MIN
    with pytest.raises(Malformed, match=r"epoch 1 does not hold.*the answer is right"):
        replay(read_parts(io.BytesIO(file_of(parts))))


def test_members_that_have_heard_accusations_in_any_order_end_the_epoch_alike() -> None:
    made = network(ONE, THREE)
    orders = [
        made.order(TWO, accuse=accused(forked(ONE))),
        made.order(ONE, unbond=(part(STAKE),)),
        made.order(THREE, accuse=accused(forked(ONE, number=3))),
    ]
    certificates = [made.certificate(it) for it in orders]
    for order in orders:
        for replica in made.replicas:
            replica.vote(order)
    for at, replica in enumerate(made.replicas):
        for raw in certificates if at % 2 else reversed(certificates):
            replica.confirm(raw)
    ends = {it.outcome(it.applied).header.to_bytes() for it in made.replicas}
    assert len(ends) == 1


async def test_evidence_that_does_not_hold_is_looked_at_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, looks, told = network(), list[bytes](), list[Message]()
    answers = MemberAnswers(made.replicas[0], Mock(), Mock())

    def look(raw: bytes) -> OffenceFinding:
        looks.append(raw)
        return judged(raw)

    monkeypatch.setattr(slashing, "judged", look)

    async def send(message: Message) -> None:
        told.append(message)

    call = Mock(send=send)
    for number in range(ACCUSATIONS_MAX):
        honest = Leg(worker=ONE, nonce=number).against_worker()
        order = made.order(TWO, accuse=accused(honest))
        await answers.on_submit(call, SubmitOrder(order=order.raw))
    codes = [it.code for it in told if isinstance(it, Refuse)]
    assert len(looks) == ACCUSATIONS_MAX // FALSE_COUNTS
    assert codes[: len(looks)] == [RefusalCode.MALFORMED] * len(looks)
    assert set(codes[len(looks) :]) == {RefusalCode.BUSY}
    assert len(codes) == ACCUSATIONS_MAX
    # Another account is heard.
    await answers.on_submit(call, SubmitOrder(order=made.order(THREE, accuse=accused(honest)).raw))
    assert len(looks) == ACCUSATIONS_MAX // FALSE_COUNTS + 1


async def test_many_accounts_with_little_do_not_close_an_epoch_for_one_that_has_more() -> None:
    made, told = network(), list[Message]()
    answers = MemberAnswers(made.replicas[0], Mock(), Mock())
    crowd = [SigningKey(number.to_bytes(32, "big")).peer for number in range(1, 129)]
    for _ in range(ACCUSATIONS_MAX):
        for account in crowd:
            with suppress(Refused):
                answers._count_accusation(account, BOND_MIN)
    # They have had 1024 looks, and one more is refused to any of them.
    with pytest.raises(Refused, match="bond of 2 credits is needed now"):
        answers._count_accusation(crowd[0], BOND_MIN)

    async def send(message: Message) -> None:
        told.append(message)

    for bond, code in ((BOND_MIN, RefusalCode.BUSY), (2 * BOND_MIN, RefusalCode.MALFORMED)):
        order = made.order(TWO, accuse=accused(Leg(worker=ONE).against_worker(), bond))
        await answers.on_submit(Mock(send=send), SubmitOrder(order=order.raw))
        assert isinstance(told[-1], Refuse)
        assert told[-1].code == code
