"""What a member votes for, applies and refuses: each hostile order and certificate, by itself."""

from dataclasses import replace

import pytest

from node.ledger.committee import collected, proof_of
from node.ledger.loading import first_rows, load
from tests.ledger.made import ONE, THREE, TWO, Made, nobody
from tests.ledger.simulation import GRANT, KEYS, Disk
from wire.amount import AMOUNT_MAX
from wire.checkpoint import AgreementPhase, AgreementVote, Checkpoint
from wire.content import ContentId
from wire.errors import BadSignature, Malformed, Oversize, Refused, WireError
from wire.kinds import RefusalCode
from wire.ledger import AccountOrder, Certificate, Payment, Signatures, order_digest
from wire.signed import sign


def test_of_two_orders_with_one_number_a_member_votes_for_the_first_it_sees() -> None:
    made = Made()
    member = made.replicas[0]
    first = made.order(pay=(Payment(to=TWO.peer, amount=2000),))
    second = made.order(pay=(Payment(to=THREE.peer, amount=2000),))
    vote, row = member.vote(first)
    assert member.vote(first) == (vote, row)
    with pytest.raises(Refused, match="another order of this account"):
        member.vote(second)
    # Others are not concerned.
    member.vote(made.order(TWO))


@pytest.mark.parametrize(
    ("changes", "why", "code"),
    [
        ({"network": ContentId.of(b"another")}, "another network", RefusalCode.STRANGER),
        ({"epoch": 1}, "epoch 0 runs, not 1", RefusalCode.OTHER_EPOCH),
        ({"sequence": 1}, "sequence number 0", RefusalCode.NOT_COVERED),
        ({"pay": (Payment(to=TWO.peer, amount=GRANT + 1),)}, "has 100", RefusalCode.NOT_COVERED),
        ({"pay": (Payment(to=ONE.peer, amount=5),)}, "pay itself", RefusalCode.MALFORMED),
        ({"pay": (Payment(to=KEYS[9].peer, amount=999),)}, "at least", RefusalCode.MALFORMED),
        ({"pay": (Payment(to=nobody(), amount=1000),)}, "nobody", RefusalCode.MALFORMED),
    ],
)
def test_an_order_that_cannot_hold_is_refused_by_its_own_reason(
    changes: dict[str, object], why: str, code: RefusalCode
) -> None:
    made = Made()
    with pytest.raises(Refused, match=why) as found:
        made.replicas[0].vote(made.order(**changes))
    assert found.value.code is code
    assert not made.replicas[0].votes


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_MAX + 1, 2**63, 2**64])
def test_an_amount_out_of_bounds_is_no_payment(amount: int) -> None:
    with pytest.raises(WireError):
        Payment(to=TWO.peer, amount=amount)


def test_a_sum_out_of_bounds_and_no_or_two_kinds_of_action_are_no_order() -> None:
    made = Made()
    network = made.genesis.id
    much = (Payment(to=TWO.peer, amount=AMOUNT_MAX),) * 64
    with pytest.raises(Oversize):
        AccountOrder(network=network, epoch=0, sequence=0, pay=much)
    with pytest.raises(Oversize):
        AccountOrder(network=network, epoch=0, sequence=0, pay=much + much[:1])
    with pytest.raises(Malformed):
        AccountOrder(network=network, epoch=0, sequence=0)
    with pytest.raises(Malformed):
        AccountOrder(network=network, epoch=0, sequence=0, pay=much[:1], reclaim=(bytes(32),))


def test_a_certificate_needs_votes_of_more_than_two_thirds_of_the_members_each_once() -> None:
    made = Made(members=3)
    order = made.order()
    member = made.replicas[0]
    # Two of three are exactly two thirds.
    with pytest.raises(BadSignature, match="more than two thirds"):
        member.confirm(made.certificate(order, (0, 1)))
    whole = Certificate.from_bytes(made.certificate(order, (0, 1, 2)))
    signatures = whole.votes
    beyond = replace(signatures, members=0b1011)
    with pytest.raises(Malformed, match="more than 3 members"):
        member.confirm(replace(whole, votes=beyond).to_bytes())
    twice = replace(signatures, proofs=(signatures.proofs[0],) * 2 + signatures.proofs[2:])
    with pytest.raises(BadSignature):
        member.confirm(replace(whole, votes=twice).to_bytes())
    with pytest.raises(Malformed):
        replace(signatures, members=0b11)
    assert member.applied == {}
    made.replicas[0].vote(order)
    member.confirm(whole.to_bytes())


def test_a_certificate_of_another_epoch_network_or_member_is_none() -> None:
    made, member = Made(), Made().replicas[0]
    order = made.order()
    other = ContentId.of(b"another network")
    for raw in (
        made.certificate(order, epoch=1),
        made.certificate(order, network=other),
        made.certificate(order, sequence=1),
        made.certificate(order, account=TWO.peer),
        made.certificate(made.order(network=other)),
        made.certificate(made.order(epoch=1)),
    ):
        with pytest.raises((WireError, Refused)):
            member.confirm(raw)
    assert member.applied == {}


def test_a_certificate_with_any_bit_flipped_is_refused() -> None:
    made = Made()
    order = made.order()
    raw = made.certificate(order)
    for at in range(len(raw)):
        altered = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
        with pytest.raises((WireError, Refused)):
            made.replicas[3].confirm(altered)
    assert made.replicas[3].applied == {}


def test_a_certificate_is_applied_once_and_in_order_however_often_it_is_shown() -> None:
    made = Made()
    member = made.replicas[3]
    first = made.order()
    second = made.order(sequence=1)
    with pytest.raises(Refused, match="before this one") as found:
        member.confirm(made.certificate(second))
    assert found.value.retry_after_s is not None
    _, rows = member.confirm(made.certificate(first))
    # The one that waited is applied with it.
    assert len(rows) == 2
    for _ in range(50):
        for order in (second, first):
            member.confirm(made.certificate(order))
    assert member.draft.account(ONE.peer) == (GRANT - 2000, 2)
    assert member.draft.account(TWO.peer).balance == GRANT + 2000


def test_what_an_account_has_not_yet_received_here_is_spent_there_and_sums_up_at_the_end() -> None:
    made = Made()
    new = KEYS[20]
    receives = made.order(pay=(Payment(to=new.peer, amount=5000),))
    member = made.replicas[3]
    spends = made.order(new, sequence=0, pay=(Payment(to=TWO.peer, amount=4000),))
    with pytest.raises(Refused, match="has 0") as found:
        member.vote(spends)
    assert found.value.retry_after_s is not None
    # Enough others have seen both: here the balance is below zero for a while.
    member.confirm(made.certificate(spends))
    assert member.draft.overdrawn() == [new.peer]
    with pytest.raises(Malformed, match="not complete"):
        member.outcome([order_digest(spends)])
    member.confirm(made.certificate(receives))
    assert member.draft.overdrawn() == []
    header = member.outcome([order_digest(spends), order_digest(receives)]).header
    assert header.balances + header.deposits + header.fund == made.genesis.supply


def test_a_vote_that_was_written_is_the_same_after_a_crash_and_one_that_was_not_binds_nobody() -> (
    None
):
    made, disk = Made(), Disk()
    disk.write(first_rows(made.genesis))
    key = made.keys[0]
    first, second = made.order(), made.order(pay=(Payment(to=THREE.peer, amount=1000),))
    member = load(made.genesis, key, disk.scan).replica
    member.sure = True
    _, row = member.vote(first)
    lost = load(made.genesis, key, disk.scan).replica
    lost.sure = True
    lost.vote(second)
    disk.write([row])
    again = load(made.genesis, key, disk.scan).replica
    again.sure = True
    assert again.vote(first)[0].order == order_digest(first)
    with pytest.raises(Refused, match="another order"):
        again.vote(second)


def test_a_member_that_is_shown_a_vote_of_its_own_which_it_forgot_sits_the_epoch_out() -> None:
    made = Made()
    member = made.replicas[0]
    raw = made.certificate(made.order())
    # Its signature is in there, and nothing is written here: an older copy of its folder runs.
    with pytest.raises(Refused, match="lost its memory"):
        member.confirm(raw)
    assert member.sits_out
    with pytest.raises(Refused, match="sits this epoch out"):
        member.vote(made.order(TWO))
    assert member.make_seal() is None


def test_a_member_that_has_just_started_votes_when_a_quorum_says_that_its_epoch_runs() -> None:
    made = Made()
    member = made.replicas[0]
    member.sure = False
    with pytest.raises(Refused, match="waits for others") as found:
        member.vote(made.order())
    assert found.value.retry_after_s is not None
    member.note_running(made.keys[1].peer, 0)
    member.note_running(made.keys[2].peer, 7)
    assert not member.confirmed
    member.note_running(made.keys[2].peer, 0)
    member.vote(made.order())


def test_a_sealed_epoch_takes_no_order_and_acknowledges_nothing() -> None:
    made = Made()
    member = made.replicas[0]
    order = made.order()
    member.vote(order)
    member.make_seal()
    with pytest.raises(Refused, match="ending"):
        member.vote(made.order(TWO))
    with pytest.raises(Refused, match="ending"):
        member.confirm(made.certificate(order))


def test_a_member_whose_books_are_off_by_one_says_so_and_stops() -> None:
    made = Made()
    member = made.replicas[0]
    made.done(made.order())
    member.books.balances += 1
    with pytest.raises(Malformed, match="supply"):
        member.outcome(member.applied)
    with pytest.raises(Refused, match="has stopped"):
        member.vote(made.order(TWO))
    assert member.make_seal() is None


def test_an_owner_that_signed_two_orders_is_free_in_the_next_epoch() -> None:
    made = Made()
    one, two = made.order(), made.order(pay=(Payment(to=THREE.peer, amount=1000),))
    for member, order in zip(made.replicas, (one, one, two, two), strict=True):
        member.vote(order)
    sealed = [it.outcome(()) for it in made.replicas]
    assert len({it.header.id for it in sealed}) == 1
    vote = AgreementVote(
        network=made.genesis.id,
        epoch=0,
        round=0,
        phase=AgreementPhase.PRECOMMIT,
        header=sealed[0].header.id,
    )
    proofs = {at: proof_of(AgreementVote, sign(vote, made.keys[at]).raw) for at in range(3)}
    checkpoint = Checkpoint(
        header=sealed[0].header.to_bytes(), round=0, signatures=collected(proofs)
    )
    for member in made.replicas:
        member.check_checkpoint(checkpoint)
        member.turn(checkpoint, ())
    made.done(made.order())
    assert made.balance(TWO) == GRANT + 1000


def test_a_checkpoint_that_its_orders_do_not_lead_to_changes_nothing() -> None:
    made = Made()
    member = made.replicas[0]
    made.done(made.order())
    whole = member.outcome(member.applied).header
    for altered in (
        replace(whole, balances=whole.balances + 1),
        replace(whole, state=bytes(32)),
        replace(whole, count=0),
        member.outcome(()).header,
    ):
        signed = Signatures(members=1, proofs=(bytes(64),))
        checkpoint = Checkpoint(header=altered.to_bytes(), round=0, signatures=signed)
        with pytest.raises(Malformed, match="do not lead"):
            member.turn(checkpoint, list(member.applied))
        with pytest.raises(BadSignature):
            member.check_checkpoint(checkpoint)
    assert member.epoch == 0
    assert len(member.applied) == 1


def test_who_comes_out_of_an_epoch_late_is_asked_again_and_is_no_reason_to_give_up() -> None:
    made = Made()
    late, order = made.replicas[0], made.order(epoch=1)
    for ask in (lambda: late.vote(order), lambda: late.confirm(made.certificate(order))):
        with pytest.raises(Refused, match="epoch 0 runs, not 1") as caught:
            ask()
        assert caught.value.retry_after_s == 1.0


def test_while_the_end_of_an_epoch_is_written_orders_wait_and_are_not_refused_for_good() -> None:
    made = Made()
    member, order = made.replicas[0], made.order()
    member.writing = True
    for ask in (lambda: member.vote(order), lambda: member.confirm(made.certificate(order))):
        with pytest.raises(Refused, match="epoch 0 is beginning") as caught:
            ask()
        assert (caught.value.code, caught.value.retry_after_s) == (RefusalCode.OTHER_EPOCH, 1.0)
    assert member.make_seal() is None
    assert member.catch_up() == []
    member.writing = False
    member.vote(order)
