"""Peers that are seated and removed by vote begin and stop by themselves, and owners follow."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.ledger import loading
from node.ledger.books import Books
from node.ledger.chain_file import read_parts, replay
from node.ledger.exporting import export_ledger
from node.ledger.motion_shelf import MOTION
from node.ledger.rows import MOTIONS, RowChange
from node.ledger.seats import seat_row
from node.ledger.wallet import OrderState
from node.peer import Node
from store import open_memory_store
from tests.ledger.test_members import epoch, genesis_of, ledger_of, start, unheard
from tests.node.network import Network, S, open_network
from wire.errors import Refused
from wire.kinds import Role
from wire.ledger import AccountOrder, Genesis, Payment
from wire.ledger_message import SubmitOrder, Voted
from wire.motion import (
    VOTING_EPOCHS_MIN,
    HouseCount,
    Motion,
    MotionRow,
    MotionState,
    SeatClaim,
)
from wire.signed import sign

COME, GO = 2, 3


def passed(*claims: SeatClaim) -> dict[bytes, bytes]:
    """The rows of motions that have passed, and what they change."""
    rows: dict[bytes, bytes] = {}
    for at, claim in enumerate(claims):
        name, counts = bytes((at,)) * 32, HouseCount(yes=1, no=0, total=1)
        motion = Motion(
            title="a seat",
            why="",
            epochs=VOTING_EPOCHS_MIN,
            bond=1,
            change=None,
            grant=None,
            seats=(claim,),
        )
        row = MotionRow(
            author=claim.member,
            motion=motion,
            begun=0,
            until=VOTING_EPOCHS_MIN,
            state=MotionState.PASSED,
            decided=0,
            stake=counts,
            using=counts,
        )
        rows |= {MOTION + name: row.to_bytes(), **dict([seat_row(name, claim)])}
    return rows


def with_changes(rows: Mapping[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every ledger begin as if motions had passed: voting takes a day of epochs."""
    first, begun = loading.first_rows, Books.of

    def with_rows(genesis: Genesis) -> list[RowChange]:
        return [*first(genesis), *((MOTIONS + key, it) for key, it in rows.items())]

    def books(genesis: Genesis) -> Books:
        made = begun(genesis)
        made.motions.put(rows)
        return made

    monkeypatch.setattr("node.ledger.peer_ledger.first_rows", with_rows)
    monkeypatch.setattr(Books, "of", staticmethod(books))


async def keeper(network: Network, genesis: Genesis, number: int) -> Node:
    """A peer that keeps the ledger though it has no seat."""
    return await network.start(S, Role.LEDGER, models=(), genesis=genesis, number=number)


async def test_a_new_member_sits_in_a_removed_one_stops_and_owners_go_on(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        new, old = network.key(6).peer, network.key(1).peer
        claims = (
            SeatClaim(member=new, weight=1, since=COME),
            SeatClaim(member=old, weight=0, since=GO),
        )
        with_changes(passed(*claims), monkeypatch)
        members = [await start(network, genesis, number) for number in range(4)]
        payer, payee = [await start(network, genesis, number) for number in (4, 5)]
        await epoch(members[0], 1)
        # It begins an epoch late, and reads what has happened.
        newcomer = await keeper(network, genesis, 6)
        await epoch(newcomer, GO + 1)
        wallet = ledger_of(payer).wallet
        for sequence in range(2):
            paid = await wallet.pay(payee.peers.me, 1_000_000, unheard)
            assert (paid.state, paid.order.record.sequence) == (OrderState.SETTLED, sequence)
        for node in (newcomer, members[0], payer):
            ledger = ledger_of(node)
            assert new in ledger.wallet.committees.latest.index
            assert old not in ledger.wallet.committees.latest.index
        member = ledger_of(newcomer).member
        assert member is not None
        # With one of the other three gone, nothing is settled without the new member's vote.
        network.kill(members[2])
        paid = await wallet.pay(payee.peers.me, 1_000_000, unheard)
        assert (paid.state, paid.order.record.sequence) == (OrderState.SETTLED, 2)
        assert member.answers.votes > 0
        assert ledger_of(newcomer).statistics()["member"] is True
        await is_refused(members[1], payer)
        await epoch(newcomer, GO + 2)
        # Whoever has a seat no longer follows all the same, and gives others the ledger.
        await epoch(members[1], GO + 2)
        file = trio.Path(tmp_path / "all.ledger")
        await export_ledger(payee.peers, ledger_of(payee).wallet.committees, file)
        with (tmp_path / "all.ledger").open("rb") as source:
            replayed = replay(read_parts(source))
        assert replayed.orders >= 3
        assert replayed.tip is not None
        before = {it.key for it in genesis.members}
        assert {it.key for it in replayed.tip.members} == before - {old} | {new}


async def test_who_is_off_stops_no_ledger_and_sits_in_once_it_is_there(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        # A committee of two ends no epoch without both.
        genesis = genesis_of(network, members=1, granted=2)
        new = network.key(6).peer
        claim = SeatClaim(member=new, weight=1, since=1)
        with_changes(passed(claim), monkeypatch)
        member = await start(network, genesis, 0)
        with trio.fail_after(20 * genesis.epoch_s):
            await epoch(member, 4)
        assert new not in ledger_of(member).wallet.committees.latest.index
        newcomer = await keeper(network, genesis, 6)
        with trio.fail_after(20 * genesis.epoch_s):
            while new not in ledger_of(member).wallet.committees.latest.index:
                await trio.sleep(1)
        now = ledger_of(member).statistics()["epoch"]
        for node in (member, newcomer):
            await epoch(node, now + 2)
        assert ledger_of(newcomer).statistics()["member"] is True


async def is_refused(removed: Node, payer: Node) -> None:
    """Who was removed votes for nothing."""
    ledger = ledger_of(removed)
    assert ledger.statistics()["member"] is False
    wallet = ledger_of(payer).wallet
    view = await wallet.look()
    await epoch(removed, view.epoch)
    record = AccountOrder(
        network=wallet.genesis.id,
        epoch=view.epoch,
        sequence=view.sequence,
        pay=(Payment(to=removed.peers.me, amount=1_000_000),),
    )
    order = sign(record, wallet.key)
    async with payer.peers.call(removed.peers.me, deadline_s=10) as call:
        await call.send(SubmitOrder(order=order.raw))
        with pytest.raises(Refused, match="is no member"):
            await call.expect(Voted)


async def test_who_was_removed_while_it_was_away_learns_of_it(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as kept:
        genesis = genesis_of(network, members=4, granted=4)
        old = network.key(1).peer
        with_changes(passed(SeatClaim(member=old, weight=0, since=1)), monkeypatch)
        others = [await start(network, genesis, number) for number in (0, 2, 3)]
        away = await start(network, genesis, 1, store=kept)
        await network.settled()
        network.kill(away)
        await epoch(others[0], 2)
        # It takes itself for a member, and those that are say nothing to it as to one.
        back = await start(network, genesis, 1, store=kept)
        await epoch(back, 3)
        assert ledger_of(back).statistics()["member"] is False
