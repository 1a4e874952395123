"""Who may be drawn: no choice of keys gets anybody in, and one owner's keys count as one."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from node.checking.audit_owners import weights_by_owner
from node.checking.check_request import listed_of
from node.checking.known_verifiers import KnownVerifiers, SeenOwners
from tests.checking.test_contributions import mixed_answer
from tests.p2p.transports import key_of
from wire import limits
from wire.content import ContentId, PeerId
from wire.lottery import candidates_drawn
from wire.ownership import Ownership

RECEIPT, SECRET = ContentId.of(b"a receipt"), bytes(32)
OWNER = key_of("an owner")
# A third more than there is room for; the attacker made its keys so that they are the lowest.
COUNT = limits.CANDIDATES_MAX * 4 // 3
KEYS = [PeerId(at.to_bytes(2, "big") + bytes(30)) for at in range(COUNT)]
LOWEST = frozenset(KEYS[: limits.CANDIDATES_MAX])


class Crowd(KnownVerifiers):
    """More verifiers than there is room for."""

    def verifiers(self, model: ContentId | None) -> set[PeerId]:
        return set(KEYS)


def candidates(secret: bytes, weights: dict[PeerId, int]) -> list[PeerId]:
    claimed: Any = SimpleNamespace(
        doers=set(), void=set(), secret=secret, receipt=SimpleNamespace(id=RECEIPT, record=Mock())
    )
    known = Crowd(Mock(), weight=lambda it: weights.get(it, 0))
    return known.candidates(claimed, SeenOwners(lambda _: None))


def test_the_lowest_keys_are_no_likelier_to_be_among_the_candidates() -> None:
    found = candidates(SECRET, {})
    assert found == sorted(found)
    assert len(found) == limits.CANDIDATES_MAX
    # Three of four keys are the attacker's, and so are about three of four candidates, not all.
    lowest = len(LOWEST.intersection(found))
    assert 0.7 * len(found) < lowest < 0.8 * len(found)
    # Which it is cannot be known when keys are made: another secret, others.
    assert set(candidates(b"\1" * 32, {})) != set(found)


def test_who_has_weight_is_in_before_all_that_have_none() -> None:
    staked = KEYS[-50:]
    assert set(staked) <= set(candidates(SECRET, dict.fromkeys(staked, 10)))
    order = candidates_drawn(SECRET, RECEIPT, {it: 1 if it in staked else 0 for it in KEYS})
    assert set(order[:50]) == set(staked)


def test_an_answer_names_those_that_were_drawn_first_and_not_the_lowest_keys() -> None:
    order = [*reversed(KEYS)]
    assert set(listed_of(order, ())) == set(KEYS[-limits.CANDIDATES_MAX :])


def test_of_an_owners_candidates_the_audit_counts_one() -> None:
    answer = mixed_answer().record
    one, two, three = answer.candidates[:3]
    owned = tuple(Ownership.signed_by(OWNER, it) for it in (one, two))
    weights = tuple(range(1, len(answer.candidates) + 1))
    found = weights_by_owner(replace(answer, owned=owned, weights=weights))
    assert len(found) == len(answer.candidates) - 1
    assert (found[OWNER.peer], found[three]) == (1 + 2, 3)
    # Who forges an owner's word makes nobody one with others.
    forged = tuple(replace(it, signature=bytes(64)) for it in owned)
    assert len(weights_by_owner(replace(answer, owned=forged))) == len(answer.candidates)


def test_candidates_that_share_an_owner_are_told_and_others_are_not() -> None:
    shown = {it: Ownership.signed_by(OWNER, it) for it in KEYS[:2]}
    shown[KEYS[2]] = Ownership.signed_by(key_of("another"), KEYS[2])
    seen = SeenOwners(shown.get)
    assert seen.told([KEYS[5]], KEYS[:4]) == {
        KEYS[0]: shown[KEYS[0]],
        KEYS[1]: shown[KEYS[1]],
        KEYS[5]: None,
    }
