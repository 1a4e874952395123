"""One balance opens one door: what moves from account to account is held by none of them."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from node.apps.held_credits import held_by
from node.ledger import following
from node.ledger.following import FetchedEpoch, LedgerFollower
from node.ledger.replica import Replica
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.simulation import GRANT
from tests.ledger.test_chain_file import end_epoch
from wire.checkpoint import Checkpoint
from wire.errors import Refused
from wire.ledger import Payment
from wire.signing import SigningKey

HOLD = GRANT // 2


class Doors:
    """A network, and a gateway that follows its ledger."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = Made()
        self.ended: list[list[bytes]] = []
        peers = Mock(me=THREE.peer)
        self.follower = LedgerFollower(peers, self.made.genesis)
        self.follower.problem = ""

        async def fetch(_: Any, __: Any, replica: Replica) -> FetchedEpoch | None:
            if replica.epoch >= len(self.ended):
                return None
            checkpoint, *certificates = self.ended[replica.epoch]
            orders = [replica.learn(it) for it in certificates]
            return FetchedEpoch(Checkpoint.from_bytes(checkpoint), certificates, orders)

        monkeypatch.setattr(following, "fetch_epoch", fetch)
        monkeypatch.setattr(following, "nearest_first", lambda *_: [ONE.peer])

    async def end(self, *moves: tuple[SigningKey, SigningKey]) -> None:
        """End an epoch in which HOLD moved so."""
        for payer, payee in moves:
            self.made.done(self.made.order(payer, pay=(Payment(to=payee.peer, amount=HOLD),)))
        self.ended.append(end_epoch(self.made))
        await self.follower.catch_up()

    def held(self, key: SigningKey) -> int:
        return held_by(self.follower, key.peer)


def hands() -> Iterator[tuple[SigningKey, SigningKey]]:
    while True:
        yield ONE, TWO
        yield TWO, ONE


async def test_a_hold_that_moves_from_door_to_door_opens_one_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    doors = Doors(monkeypatch)
    with pytest.raises(Refused, match="no two epochs"):
        doors.held(ONE)
    await doors.end()
    await doors.end()
    # Both have GRANT. ONE and TWO pass HOLD on in each epoch: more than GRANT opens neither door.
    assert (doors.held(ONE), doors.held(TWO)) == (GRANT, GRANT)
    moving = hands()
    opened = set()
    for _ in range(6):
        await doors.end(next(moving))
        for key in (ONE, TWO):
            if doors.held(key) >= GRANT + HOLD:
                opened.add(key.peer)
        assert doors.held(ONE) + doors.held(TWO) <= 2 * GRANT
    assert not opened
    # Who keeps it for two epochs has the door open, and the other has not.
    await doors.end()
    await doors.end()
    assert (doors.held(ONE), doors.held(TWO)) == (GRANT, GRANT)
    await doors.end((TWO, ONE))
    assert doors.held(ONE) == GRANT
    await doors.end()
    assert (doors.held(ONE), doors.held(TWO)) == (GRANT + HOLD, GRANT - HOLD)
