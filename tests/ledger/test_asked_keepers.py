"""Whom a peer asks for the ends of epochs: nobody is always first, and no key is a better one."""

from random import Random
from types import SimpleNamespace
from typing import Any

from node.ledger.committee import Committee
from node.ledger.following import nearest_first
from node.ledger.sync import OTHERS_MAX, other_keepers
from tests.ledger.simulation import KEYS
from tests.ledger.test_seats import members_of
from wire.content import PeerId

COMMITTEE = Committee(members_of(4))
HONEST = PeerId(b"\xff" * 32)


def peers_with(keepers: list[PeerId], me: PeerId) -> Any:
    heard = [SimpleNamespace(signer=it) for it in keepers]
    return SimpleNamespace(
        me=me,
        view=SimpleNamespace(candidates=lambda *_: heard),
        environment=SimpleNamespace(random=Random(1), wall_s=lambda: 0.0),
    )


def test_keys_that_come_first_are_not_asked_instead_of_others() -> None:
    low = [PeerId(bytes((at,)) * 32) for at in range(1, 33)]
    peers = peers_with([*low, HONEST, KEYS[0].peer], me=KEYS[9].peer)
    asked = [other_keepers(peers, COMMITTEE) for _ in range(30)]
    assert {len(it) for it in asked} == {OTHERS_MAX}
    assert any(HONEST in it for it in asked)
    assert not any(KEYS[0].peer in it for it in asked)


def test_a_member_that_says_nothing_new_is_not_always_asked_first() -> None:
    peers = peers_with([], me=KEYS[9].peer)
    assert {nearest_first(peers, COMMITTEE)[0] for _ in range(40)} == set(COMMITTEE.index)
    # Who is a member asks itself first.
    mine = peers_with([], me=KEYS[2].peer)
    assert {nearest_first(mine, COMMITTEE)[0] for _ in range(10)} == {KEYS[2].peer}
