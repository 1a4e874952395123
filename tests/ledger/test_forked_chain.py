"""A chain that keys of members sign a second time, epochs later: who has followed one keeps it."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from node.ledger import following
from node.ledger.following import FetchedEpoch, LedgerFollower
from node.ledger.header_chain import HeaderChain
from node.ledger.replica import Replica
from tests.ledger.made import ONE, THREE, TWO, Made
from tests.ledger.test_chain_file import end_epoch
from wire.checkpoint import Checkpoint
from wire.content import PeerId
from wire.errors import Malformed, Unreachable
from wire.ledger import Payment

Chain = list[list[bytes]]


def chain(epochs: int, fork_at: int | None = None) -> tuple[Made, Chain]:
    """The ends of some epochs; from `fork_at` on the members have signed others."""
    made, parts = Made(), []
    for number in range(epochs):
        amount = 2000 if fork_at is not None and number >= fork_at else 1000
        made.done(made.order(ONE, pay=(Payment(to=TWO.peer, amount=amount),)))
        parts.append(end_epoch(made))
    return made, parts


def checkpoints(parts: Chain) -> list[Checkpoint]:
    return [Checkpoint.from_bytes(it[0]) for it in parts]


def test_a_header_chain_goes_on_from_the_one_that_it_has_and_from_no_fork() -> None:
    made, honest = chain(4)
    _, forged = chain(6, fork_at=1)
    kept = HeaderChain(made.genesis)
    for one in checkpoints(honest):
        kept.accept(one)
    tip = kept.tip
    again = HeaderChain(made.genesis, tip)
    for one in checkpoints(forged):
        with pytest.raises(Malformed, match="another chain"):
            again.accept(one)
    assert again.tip == tip
    # Of another genesis with the very same keys it takes nothing at all.
    other = Made(fund=6)
    other.done(other.order(ONE))
    with pytest.raises(Malformed, match="another chain"):
        HeaderChain(made.genesis).accept(checkpoints([end_epoch(other)])[0])
    # Control: who has pinned nothing but genesis cannot tell, and takes what it is shown first.
    fresh = HeaderChain(made.genesis)
    for one in checkpoints(forged):
        fresh.accept(one)
    assert fresh.epoch == 6


def followed(
    made: Made, told: Mapping[PeerId, Chain], pinned: Any, monkeypatch: pytest.MonkeyPatch
) -> LedgerFollower:
    """A follower to whom each of these members tells its own chain."""

    async def fetch(_: Any, member: PeerId, replica: Replica) -> FetchedEpoch | None:
        if member not in told:
            raise Unreachable("away")
        parts = told[member]
        if replica.epoch >= len(parts):
            return None
        checkpoint, *certificates = parts[replica.epoch]
        found = Checkpoint.from_bytes(checkpoint)
        replica.check_checkpoint(found)
        orders = [replica.learn(it) for it in certificates]
        return FetchedEpoch(found, certificates, orders)

    monkeypatch.setattr(following, "fetch_epoch", fetch)
    peers: Any = SimpleNamespace(
        me=THREE.peer,
        view=SimpleNamespace(candidates=lambda *_: ()),
        environment=SimpleNamespace(wall_s=lambda: 0.0),
    )
    return LedgerFollower(peers, made.genesis, lambda: pinned)


@pytest.mark.parametrize("length", [2, 4, 6])
async def test_a_peer_that_starts_again_keeps_the_chain_that_it_has_followed(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, honest = chain(4)
    _, forged = chain(length, fork_at=1)
    first, second = [it.key for it in made.genesis.members][:2]
    tip = made.replicas[0].tip
    # Whoever was a member once tells the forged one, shorter or longer than what is known.
    follower = followed(made, {first: forged}, tip, monkeypatch)
    with pytest.raises(Unreachable, match=r"ends epoch 3 otherwise|ends before"):
        await follower.catch_up()
    follower = followed(made, {first: forged, second: honest}, tip, monkeypatch)
    # What was read of the forged one is thrown away.
    await follower.catch_up()
    assert follower.replica.tip == tip
    assert follower.replica.books.balance(TWO.peer) == made.balance(TWO)
    # Control: without what it has pinned it takes the first that it is shown.
    naive = followed(made, {first: forged, second: honest}, None, monkeypatch)
    await naive.catch_up()
    assert naive.replica.tip != tip
