"""Who is a model's author: claims are voted on, the first that passed holds, and one ends it."""

import pytest

from node.ledger.model_registry import models_in
from tests.ledger.made import ONE, THREE, TWO, nobody
from tests.ledger.test_motions import MEMBER, MODEL, Network
from wire.amount import CREDIT
from wire.errors import Refused, WireError
from wire.motion import AUTHOR_SHARE_MAX, ModelClaim, MotionState, RegisteredModel
from wire.signing import SigningKey


def claim(author: SigningKey = THREE, share: int = 50_000) -> ModelClaim:
    return ModelClaim(model=MODEL, author=author.peer, share=share)


def begun() -> Network:
    """A network in which ONE alone has used anything, so that it and the member decide."""
    network = Network()
    network.use(ONE, TWO, CREDIT)
    return network


def passed(network: Network, *motions: bytes) -> None:
    """Have both houses vote for these, and end the epoch."""
    network.end()
    for motion in motions:
        network.vote(ONE, motion)
        network.vote(MEMBER, motion)
    network.end()


def models(network: Network) -> list[tuple[object, RegisteredModel]]:
    return list(models_in(network.member.books.motions.rows).items())


def test_a_claim_that_passed_is_in_every_checkpoint_and_recounted() -> None:
    network = begun()
    motion = network.propose(claims=(claim(),))
    before = network.member.books.motions.digest()
    passed(network, motion)
    assert network.row(motion).state is MotionState.PASSED
    assert models(network) == [
        (MODEL, RegisteredModel(author=THREE.peer, share=50_000, motion=motion)),
    ]
    assert network.member.books.motions.digest() != before
    network.check()


def test_of_claims_to_one_model_the_smallest_id_of_one_epoch_holds() -> None:
    network = begun()
    motions = [network.propose(claims=(claim(it),)) for it in (TWO, THREE)]
    passed(network, *motions)
    first, second = sorted(motions)
    assert network.row(first).state is MotionState.PASSED
    assert network.row(second).state is MotionState.TAKEN
    ((_, row),) = models(network)
    assert row.motion == first
    network.check()


def test_what_passed_earlier_holds_against_a_smaller_id() -> None:
    network = begun()
    motions = sorted(network.propose(claims=(claim(it),)) for it in (TWO, THREE))
    passed(network, motions[1])
    passed(network, motions[0])
    assert network.row(motions[0]).state is MotionState.TAKEN
    ((_, row),) = models(network)
    assert row.motion == motions[1]
    network.check()


def test_an_author_claimed_twice_is_refused_by_name() -> None:
    network = begun()
    motion = network.propose(claims=(claim(),))
    network.end()
    with pytest.raises(Refused, match=f"open motion {motion.hex()} claims this model"):
        network.propose(claims=(claim(share=60_000),), bond=2 * CREDIT)
    passed(network, motion)
    with pytest.raises(Refused, match="this author's already, with 50000 millionths"):
        network.propose(claims=(claim(share=60_000),))
    with pytest.raises(Refused, match=f"of {THREE.peer} already"):
        network.propose(claims=(claim(TWO),))


def test_a_registration_is_ended_by_a_motion_and_another_may_follow() -> None:
    network = begun()
    with pytest.raises(Refused, match="none of this author"):
        network.propose(claims=(claim(share=0),))
    passed(network, network.propose(claims=(claim(),)))
    with pytest.raises(Refused, match="none of this author"):
        network.propose(claims=(claim(TWO, 0),))
    ends = [network.propose(it, claims=(claim(share=0),)) for it in (ONE, TWO)]
    passed(network, *ends)
    assert models(network) == []
    assert sorted(network.row(it).state for it in ends) == [MotionState.PASSED, MotionState.TAKEN]
    again = network.propose(claims=(claim(TWO, 10_000),))
    passed(network, again)
    assert [row.author for _, row in models(network)] == [TWO.peer]
    network.check()


def test_a_share_is_bounded_and_an_author_is_a_key_that_somebody_can_have() -> None:
    assert claim(share=AUTHOR_SHARE_MAX).share == 200_000
    for share in (-1, AUTHOR_SHARE_MAX + 1):
        with pytest.raises(WireError):
            claim(share=share)
    with pytest.raises(Refused, match="nobody can have the key"):
        begun().propose(claims=(ModelClaim(model=MODEL, author=nobody(), share=1),))
    with pytest.raises(WireError):
        begun().propose(claims=(claim(), claim(TWO)))
