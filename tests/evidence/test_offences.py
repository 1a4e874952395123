"""Evidence is judged from what the culprit signed and from what anybody computes, nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from node.evidence.offences import judge, judged, lost_dispute, two_votes
from tests.checking.played_disputes import CHALLENGER, PROVER
from tests.checking.played_disputes import Stage as PlayedStage
from tests.checking.test_exact_disputes import MODEL, WRONG
from tests.checking.test_exact_disputes import ROWS as CALL_ROWS
from tests.evidence.crimes import ONE, ROWS, THREE, TWO, WORKER, Leg, fork_of, forked
from tests.ledger.made import Made
from wire.checkpoint import AgreementPhase, AgreementVote, Seal, buckets_of
from wire.content import ContentId
from wire.errors import Malformed, WireError
from wire.evidence import Evidence, OffenceKind
from wire.signed import sign

EVERY_ROW = tuple(range(ROWS))


def culprits(evidence: Evidence) -> list[Any]:
    return [it.culprit for it in judged(evidence.to_bytes()).convictions]


def test_a_verifier_is_convicted_by_a_wrong_row_that_it_lists_as_sampled_and_by_no_other() -> None:
    leg = Leg(wrong=(5,))
    assert culprits(leg.against(leg.verdict(ONE, (1, 5)))) == [ONE.peer]
    with pytest.raises(Malformed, match="no row that the verdict lists"):
        judge(leg.against(leg.verdict(ONE, (1, 4))))
    with pytest.raises(Malformed, match="says nothing of any row"):
        judge(leg.against(leg.verdict(ONE, (5,), agrees=False, could_check=False)))


def test_three_verdicts_of_an_askers_own_against_an_honest_answer_convict_these_three() -> None:
    leg = Leg()
    for verifier in (ONE, TWO, THREE):
        verdict = leg.verdict(verifier, EVERY_ROW, agrees=False)
        assert culprits(leg.against(verdict)) == [verifier.peer]
    with pytest.raises(Malformed, match="the answer is right"):
        judge(leg.against_worker())


def test_who_says_no_to_an_answer_that_is_wrong_anywhere_is_not_convicted() -> None:
    leg = Leg(wrong=(5,))
    no = leg.verdict(ONE, (0,), agrees=False)
    with pytest.raises(Malformed, match="not right in all"):
        judge(leg.against(no))
    leg = Leg()
    leg.receipt = leg.signed(units=ROWS + 1)
    with pytest.raises(Malformed, match="not right in all"):
        judge(leg.against(leg.verdict(ONE, (0,), agrees=False)))


def test_a_wrong_answer_convicts_its_signer() -> None:
    found = judge(Leg(wrong=(2,)).against_worker())
    assert [it.culprit for it in found.convictions] == [WORKER.peer]
    assert "row 2" in found.why
    misstated = Leg()
    misstated.receipt = misstated.signed(output_size_bytes=3)
    assert "it signed for 3 bytes" in judge(misstated.against_worker()).why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": ContentId.of(b"another")}, "of another task"),
        ({"stage": 1}, "no such leg"),
        ({"operation": "complete"}, "not the one that was asked for"),
        ({"output": ContentId.of(b"another")}, "not the one that was signed for"),
    ],
)
def test_a_receipt_of_something_else_convicts_nobody(changes: dict[str, Any], why: str) -> None:
    leg = Leg(wrong=(2,))
    leg.receipt = leg.signed(**changes)
    with pytest.raises(Malformed, match=why):
        judge(leg.against_worker())


def test_evidence_altered_in_any_byte_of_what_was_signed_does_not_hold() -> None:
    leg = Leg(wrong=(5,))
    whole = leg.against(leg.verdict(ONE, (5,)))
    for number, record in enumerate(whole.records):
        for at in range(0, len(record), 7):
            altered = bytearray(record)
            altered[at] ^= 1
            records = list(whole.records)
            records[number] = bytes(altered)
            with pytest.raises(WireError):
                judge(replace(whole, records=tuple(records)))


def test_two_votes_of_a_member_convict_it_and_what_it_may_sign_does_not() -> None:
    made = Made()
    key, network = made.keys[0], made.genesis.id
    vote = made.replicas[0].vote(made.order())[0]
    other = replace(vote, order=bytes(32))
    found = judge(two_votes(sign(vote, key).raw, sign(other, key).raw))
    assert (found.network, found.share_millionths) == (network, 1_000_000)
    assert [it.culprit for it in found.convictions] == [key.peer]
    ballot = AgreementVote(
        network=network, epoch=3, round=1, phase=AgreementPhase.PRECOMMIT, header=network
    )
    against = replace(ballot, header=None)
    assert culprits(two_votes(sign(ballot, key).raw, sign(against, key).raw)) == [key.peer]
    seal = Seal(network=network, epoch=3, count=0, buckets=buckets_of(()))
    more = replace(seal, count=1, buckets=buckets_of((bytes(32),)))
    sealed = judge(two_votes(sign(seal, key).raw, sign(more, key).raw))
    ends = judge(two_votes(sign(ballot, key).raw, sign(against, key).raw))
    # Both are about the end of one epoch: one act.
    assert sealed.convictions == ends.convictions
    for fine in (
        replace(ballot, round=2),
        replace(ballot, phase=AgreementPhase.PREVOTE),
        replace(ballot, epoch=4),
        ballot,
    ):
        with pytest.raises(Malformed):
            judge(two_votes(sign(ballot, key).raw, sign(fine, key).raw))
    with pytest.raises(Malformed, match="different members"):
        judge(two_votes(sign(vote, key).raw, sign(other, made.keys[1]).raw))
    with pytest.raises(Malformed):
        judge(two_votes(sign(vote, key).raw, sign(replace(vote, sequence=9), key).raw))
    with pytest.raises(Malformed, match="neither a vote"):
        judge(two_votes(sign(vote, key).raw, Leg().receipt.raw))


def test_forks_of_one_log_are_one_act_and_of_another_log_another() -> None:
    first, again, other = (
        judge(it).convictions[0].act
        for it in (forked(WORKER), forked(WORKER, number=9), forked(WORKER, began_at_ms=2))
    )
    assert first == again != other
    head = fork_of(WORKER).first
    twice = Evidence(offence=OffenceKind.FORKED_LOG, records=(head, head), content=())
    with pytest.raises(WireError, match="do not contradict"):
        judge(twice)


async def test_a_lost_dispute_convicts_who_lost_it_and_a_silence_convicts_nobody() -> None:
    honest = PlayedStage(MODEL, MODEL, WRONG, [CALL_ROWS])
    assert culprits(lost_dispute((await honest.play()).raw, MODEL.to_bytes())) == [CHALLENGER.peer]
    liar = PlayedStage(MODEL, WRONG, MODEL, [CALL_ROWS])
    record = await liar.play()
    assert culprits(lost_dispute(record.raw, MODEL.to_bytes())) == [PROVER.peer]
    with pytest.raises(Malformed, match="not the one that the manifest names"):
        judge(lost_dispute(record.raw, WRONG.to_bytes()))
    silent = PlayedStage(MODEL, MODEL, WRONG, [CALL_ROWS], silent_after={0: 0, 1: 0})
    with pytest.raises(Malformed, match="asker's word"):
        judge(lost_dispute((await silent.play()).raw, MODEL.to_bytes()))


@pytest.mark.parametrize("offence", list(OffenceKind))
def test_evidence_of_other_parts_is_refused(offence: OffenceKind) -> None:
    for records in ((b"x",), (b"x",) * 4):
        with pytest.raises(WireError):
            judge(Evidence(offence=offence, records=records, content=(b"y",) * 2))
