"""A ledger in a file holds from genesis on, or it is said which epoch does not."""

import io
from pathlib import Path

import pytest

from node.ledger.chain_file import MAGIC, framed, read_parts, replay
from node.ledger.committee import collected, proof_of
from node.ledger.judging import check_authority
from node.ledger.payment_channel import channel_name
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.simulation import GRANT
from wire.checkpoint import AgreementPhase, AgreementVote, Checkpoint, CheckpointHeader
from wire.errors import BatonError, Malformed
from wire.ledger import Opening, Payment, Redemption, TopUp, order_digest
from wire.signed import sign
from wire.signing import SigningKey


def checkpoint_of(
    made: Made, header: CheckpointHeader, signers: tuple[int, ...] = (0, 1, 2)
) -> Checkpoint:
    """How an epoch ended, signed by some members."""
    vote = AgreementVote(
        network=made.genesis.id,
        epoch=header.epoch,
        round=0,
        phase=AgreementPhase.PRECOMMIT,
        header=header.id,
    )
    proofs = {at: proof_of(AgreementVote, sign(vote, made.keys[at]).raw) for at in signers}
    return Checkpoint(header=header.to_bytes(), round=0, signatures=collected(proofs))


def end_epoch(made: Made, signers: tuple[int, ...] = (0, 1, 2)) -> list[bytes]:
    """End the epoch as all members see it; the parts of a file about it."""
    member = made.replicas[0]
    header = member.outcome(member.applied).header
    checkpoint = checkpoint_of(made, header, signers)
    parts = [checkpoint.to_bytes(), *(member.applied[it] for it in sorted(member.applied))]
    for replica in made.replicas:
        replica.turn(checkpoint, list(replica.applied))
    return parts


def ledger() -> tuple[Made, list[bytes]]:
    """Two epochs with orders, one without."""
    made = Made()
    parts = [made.genesis.to_bytes()]
    made.done(made.order(ONE))
    made.done(made.order(TWO, pay=(Payment(to=THREE.peer, amount=70_000),)))
    parts += end_epoch(made)
    parts += end_epoch(made)
    made.done(made.order(ONE))
    return made, parts + end_epoch(made)


def file_of(parts: list[bytes]) -> bytes:
    return MAGIC + b"".join(map(framed, parts))


def checked(data: bytes) -> int:
    """The balance of THREE at the end."""
    return replay(read_parts(io.BytesIO(data))).account(THREE.peer).balance


def test_a_whole_ledger_holds_and_says_what_is_in_it() -> None:
    made, parts = ledger()
    found = replay(read_parts(io.BytesIO(file_of(parts))))
    assert (found.epochs, found.orders) == (3, 3)
    assert found.account(THREE.peer).balance == GRANT + 70_000
    assert found.books.supply == made.genesis.supply
    assert found.tip == made.replicas[0].tip
    # Of each order its own signature and three votes, of each epoch three.
    assert found.signatures == 3 * 4 + 3 * 3


def test_a_ledger_with_any_byte_altered_does_not_hold() -> None:
    _, parts = ledger()
    data = file_of(parts)
    refused = 0
    # The genesis is what everything else names: another one is another network.
    for at in range(0, len(data), 31):
        altered = data[:at] + bytes((data[at] ^ 0x20,)) + data[at + 1 :]
        with pytest.raises(BatonError):
            checked(altered)
        refused += 1
    assert refused > 90


def test_a_ledger_that_is_cut_lacks_an_epoch_or_has_one_twice_does_not_hold() -> None:
    _, parts = ledger()
    data = file_of(parts)
    for end in (0, 5, len(MAGIC) + 2, len(data) // 2, len(data) - 1):
        with pytest.raises(BatonError):
            checked(data[:end])
    with pytest.raises(Malformed, match="epoch 0"):
        checked(file_of(parts[:1] + parts[4:]))
    with pytest.raises(Malformed, match="epoch 1"):
        checked(file_of(parts[:4] + parts[1:]))
    with pytest.raises(Malformed, match="epoch 0"):
        checked(file_of([parts[0], parts[1], parts[2], parts[2]]))
    with pytest.raises(BatonError):
        checked(file_of([]))


def test_a_checkpoint_of_two_members_of_four_does_not_hold() -> None:
    made = Made()
    made.done(made.order(ONE))
    parts = [made.genesis.to_bytes(), *end_epoch(made, signers=(0, 1))]
    with pytest.raises(Malformed, match="more than two thirds"):
        checked(file_of(parts))


def test_a_part_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.write_bytes(MAGIC + (1 << 30).to_bytes(4, "big") + bytes(1000))
    with path.open("rb") as source, pytest.raises(Malformed):
        replay(read_parts(source))


@pytest.mark.parametrize("signer", [TWO, ONE])
@pytest.mark.parametrize("total", [5000, 15_000, 2**62])
def test_a_quorum_takes_nothing_that_the_payer_of_a_channel_did_not_promise(
    signer: SigningKey, total: int
) -> None:
    made = Made()
    opening = Opening(payee=TWO.peer, deposit=10_000, expiry=9)
    order = made.order(ONE, open=(opening,) * 8)
    made.done(order)
    parts = [made.genesis.to_bytes(), *end_epoch(made)]
    names = [channel_name(order_digest(order), number) for number in range(8)]
    taken = made.order(
        TWO,
        redeem=tuple(
            Redemption(channel=it, voucher=made.voucher(it, total, signer), release=False)
            for it in (names[:1] if total < 2**62 else names)
        ),
    )
    raw = made.certificate(taken)
    for replica in made.replicas:
        # Three of four members are bad: they vote for, and apply, whatever they like.
        replica.votes[TWO.peer] = (taken.record.sequence, order_digest(taken))
        replica.confirm(raw)
    if signer is ONE and total == 5000:
        assert replay(read_parts(io.BytesIO(file_of(parts + end_epoch(made))))).epochs == 2
        return
    with pytest.raises(BatonError):
        replay(read_parts(io.BytesIO(file_of(parts + end_epoch(made)))))


def test_nobody_takes_from_a_channel_of_others() -> None:
    made = Made()
    opening = Opening(payee=TWO.peer, deposit=10_000, expiry=9)
    order = made.order(ONE, open=(opening,))
    made.done(order)
    name = channel_name(order_digest(order), 0)
    for bad in (
        made.order(THREE, reclaim=(name,)),
        made.order(THREE, redeem=(Redemption(channel=name, voucher=None, release=True),)),
        made.order(TWO, top_up=(TopUp(channel=name, amount=5, expiry=9),)),
    ):
        with pytest.raises(Malformed, match="channel of others"):
            check_authority(made.replicas[0].draft, bad)
