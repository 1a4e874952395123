"""Whether the verifiers that are known could check an answer, whoever makes it."""

from node.checking.enough import TooFewCanCheck, prospect_of
from p2p.joining import Joining
from wire.content import PeerId
from wire.signing import SigningKey

ME, A, B, C, OWNER = (SigningKey(bytes([number]) * 32).peer for number in range(1, 6))


def alone(peer: PeerId) -> PeerId:
    return peer


def test_nobody_checks_what_it_made_nor_what_it_asked() -> None:
    found = prospect_of({A, ME}, {ME, A, B}, ME, alone)
    assert found.left == {A: 1, ME: 2}
    assert found.most == 2
    # With two verdicts only this peer's own work can be checked.
    assert found.makers(2) == {ME}
    assert found.makers(1) == frozenset()


def test_the_peers_of_one_owner_have_one_voice_and_none_about_their_own() -> None:
    def owner_of(peer: PeerId) -> PeerId:
        return OWNER if peer in (A, B) else peer

    assert prospect_of({C}, {A, B}, ME, owner_of).left == {C: 1}
    assert prospect_of({A}, {B, C}, ME, owner_of).left == {A: 1}
    assert prospect_of({C}, {A, B}, A, owner_of).left == {C: 0}


def test_what_is_said_names_only_what_can_work() -> None:
    one = str(
        TooFewCanCheck(prospect_of({A}, {B}, ME, alone).most, 2, "hash", Joining(address="/ip4/9"))
    )
    assert "1 peer could check an answer of hash" in one
    assert "--verdicts 1/1 or, unchecked, 0/0" in one
    assert "machine check: python -m node join /ip4/9 --role verify --model hash" in one
    none = str(
        TooFewCanCheck(prospect_of({A}, {A}, ME, alone).most, 1, "hash", Joining(is_private=True))
    )
    assert "--verdicts 0/0, which nobody checks" in none
    assert "owner print an invite: python -m node invite > FILE; and" in none
    assert "join --invite-file FILE --role verify --model hash" in none
    assert "\n" not in none
