"""Whole peers with a ledger: paying, epochs, members that are away, and peers of other networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.ledger.chain_file import read_parts, replay
from node.ledger.exporting import export_ledger
from node.ledger.member_role import UNHEARD_MAX
from node.ledger.peer_ledger import PeerLedger, pin, pinned
from node.ledger.rows import SITS_OUT
from node.ledger.wallet import Ordered, OrderState
from node.local.ledger_commands import LedgerCommands
from node.local.stake_commands import StakeCommands, stake_of
from node.peer import Node
from p2p.typed_call import TypedCall
from store import Table, open_memory_store
from tests.node.network import Network, S, open_network
from wire.checkpoint import ORDER_BUCKETS, buckets_of
from wire.content import PeerId
from wire.errors import InputError, StoreFull, Unreachable
from wire.kinds import Role
from wire.ledger import AccountOrder, Genesis, Grant, Member, Payment
from wire.ledger_message import EpochNews
from wire.message import Message
from wire.signed import sign
from wire.stake import AskStakes, StakeRow, StakeRows

CREDIT = 1_000_000
EPOCH_S = 30


def unheard(_: Mapping[str, Any]) -> None: ...


def genesis_of(network: Network, members: int, granted: int) -> Genesis:
    """Peers 0 to `members` - 1 keep the ledger, and the peer `granted` has 100 credits."""
    keys = sorted(network.key(number).peer for number in range(members))
    return Genesis(
        version=1,
        name="test",
        nonce=bytes(16),
        epoch_s=EPOCH_S,
        account_min=1000,
        fund=5 * CREDIT,
        grants=(Grant(account=network.key(granted).peer, amount=100 * CREDIT),),
        members=tuple(Member(key=it, weight=1) for it in keys),
    )


def ledger_of(node: Node) -> PeerLedger:
    assert node.ledger is not None
    return node.ledger


async def start(network: Network, genesis: Genesis, number: int, **options: Any) -> Node:
    """A peer with a ledger; it has the role of a member if it is one."""
    roles = (S, Role.LEDGER) if number < len(genesis.members) else (S,)
    return await network.start(*roles, models=(), genesis=genesis, number=number, **options)


async def epoch(node: Node, number: int) -> None:
    """Wait until this member has come to an epoch."""
    member = ledger_of(node).member
    assert member is not None
    with trio.fail_after(40 * EPOCH_S):
        while member.replica.epoch < number:
            await trio.sleep(1)


async def test_four_members_settle_payments_and_end_epochs_alike(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        members = [await start(network, genesis, number) for number in range(4)]
        payer, payee = [await start(network, genesis, number) for number in (4, 5)]
        await trio.sleep(10)
        paid = await ledger_of(payer).wallet.pay(payee.peers.me, 30 * CREDIT, unheard)
        assert paid.state is OrderState.SETTLED
        again = await ledger_of(payer).wallet.pay(payee.peers.me, 5 * CREDIT, unheard)
        assert again.order.record.sequence == 1
        back = await ledger_of(payee).wallet.pay(payer.peers.me, CREDIT, unheard)
        assert back.settlement
        await epoch(members[0], 1)
        await epoch(members[3], 1)
        views = [await ledger_of(payer).wallet.look(it.peers.me) for it in (payer, payee)]
        assert [it.balance for it in views] == [66 * CREDIT, 34 * CREDIT]
        assert all(it.agreed for it in views)
        file = trio.Path(tmp_path / "all.ledger")
        done = await export_ledger(payee.peers, ledger_of(payee).wallet.committees, file)
        assert done.orders == 3
        with (tmp_path / "all.ledger").open("rb") as source:
            replayed = replay(read_parts(source))
        assert replayed.account(payee.peers.me).balance == 34 * CREDIT
        assert replayed.books.supply == genesis.supply
        found = ledger_of(members[0]).statistics()
        assert (found["tolerates"], found["problem"]) == (1, "")


async def test_one_member_away_is_tolerated_and_catches_up_and_sits_out(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as kept:
        genesis = genesis_of(network, members=4, granted=4)
        members = [
            await start(network, genesis, number, **({"store": kept} if number == 3 else {}))
            for number in range(4)
        ]
        payer = await start(network, genesis, 4)
        await trio.sleep(10)
        await ledger_of(payer).wallet.pay(members[0].peers.me, CREDIT, unheard)
        network.kill(members[3])
        await ledger_of(payer).wallet.pay(members[0].peers.me, 2 * CREDIT, unheard)
        await epoch(members[0], 2)
        back = await start(network, genesis, 3, store=kept)
        await epoch(back, 2)
        member = ledger_of(back).member
        assert member is not None
        assert member.replica.draft.account(members[0].peers.me).balance == 3 * CREDIT
        # However long the start took, it is written which epoch it has sat out.
        row = kept.read(Table.LEDGER, SITS_OUT)
        assert row is not None
        # Three of four suffice, and in the epoch after it takes part again.
        await ledger_of(payer).wallet.pay(members[1].peers.me, CREDIT, unheard)
        await epoch(back, int.from_bytes(row, "big") + 1)
        with trio.fail_after(40 * EPOCH_S):
            while member.replica.sits_out:
                await trio.sleep(1)
        network.kill(members[2])
        await ledger_of(payer).wallet.pay(members[1].peers.me, CREDIT, unheard)


async def test_two_of_four_members_settle_nothing_and_go_on_when_a_third_is_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as kept:
        genesis = genesis_of(network, members=4, granted=4)
        members = [
            await start(network, genesis, number, **({"store": kept} if number == 3 else {}))
            for number in range(4)
        ]
        payer = await start(network, genesis, 4)
        await trio.sleep(10)
        network.kill(members[2])
        network.kill(members[3])
        with pytest.raises(Unreachable, match="2 of 4 members"):
            await ledger_of(payer).wallet.look()
        await trio.sleep(2 * EPOCH_S)
        first = ledger_of(members[0]).member
        assert first is not None
        assert first.replica.epoch == 0
        assert first.replica.seal is not None
        await start(network, genesis, 3, store=kept)
        await epoch(members[0], 1)
        paid = await ledger_of(payer).wallet.pay(members[1].peers.me, CREDIT, unheard)
        assert paid.state is OrderState.SETTLED


async def test_a_payment_that_a_crash_interrupted_is_settled_after_it_and_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as kept:
        genesis = genesis_of(network, members=1, granted=1)
        member = await start(network, genesis, 0)
        key = network.key(1)
        order = sign(
            AccountOrder(
                network=genesis.id,
                epoch=0,
                sequence=0,
                pay=(Payment(to=member.peers.me, amount=CREDIT),),
            ),
            key,
        )
        # It was signed and kept; whether it was sent is not known.
        row = Ordered(order, OrderState.SIGNED, 0)
        await kept.write(Table.WALLET, bytes(8), row.to_bytes())
        await epoch(member, 2)
        payer = await start(network, genesis, 1, store=kept)
        await trio.sleep(20)
        (found,) = ledger_of(payer).wallet.log()
        assert found.state is OrderState.SETTLED
        # Its epoch had ended without it: it was signed again, for the one that runs.
        assert found.order.record.epoch >= 2
        assert (await ledger_of(payer).wallet.look()).balance == 99 * CREDIT


async def test_a_member_whose_disk_is_full_says_so_and_signs_nothing(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=1)
        member = await start(network, genesis, 0)
        payer = await start(network, genesis, 1)
        await trio.sleep(5)
        part = ledger_of(member).member
        assert part is not None

        class Full:
            async def commit(self, _: object) -> None:
                raise StoreFull("no room left")

        before = part.signing.store
        monkeypatch.setattr(part.signing, "store", Full())
        with trio.move_on_after(5) as waited:
            await ledger_of(payer).wallet.pay(member.peers.me, CREDIT, unheard)
        assert waited.cancelled_caught
        assert part.signing.signatures == 0
        part.signing.store = before
        paid = await ledger_of(payer).wallet.pay(member.peers.me, CREDIT, unheard)
        # The payment that was waiting came first, and both were made once.
        assert paid.order.record.sequence == 1
        assert (await ledger_of(payer).wallet.look()).balance == 98 * CREDIT


async def test_a_peer_of_another_network_is_refused_with_a_reason(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=1)
        await start(network, genesis, 0)
        with pytest.raises(Unreachable, match=r"this is the network 'baf.*--genesis"):
            async with network.peer((S,), models=(), number=1):
                pass


async def test_a_folder_belongs_to_one_network_for_good(tmp_path: Path) -> None:
    async with open_network(tmp_path) as network, open_memory_store(quota_bytes=1 << 30) as store:
        assert pinned(store) is None
        first, second = (genesis_of(network, members=1, granted=number) for number in (0, 1))
        await pin(store, first)
        await pin(store, first)
        with pytest.raises(InputError, match="belongs to the network 'test'"):
            await pin(store, second)
        assert pinned(store) == first


async def test_commands_of_a_network_without_a_ledger_say_that_all_is_free(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        node = await network.start(S)
        assert node.ledger is None
        assert "ledger" not in node.status_sources
        for command in ("wallet", "pay", "wallet_log", "ledger_export"):
            arguments = {"to": str(node.peers.me), "amount": 1, "path": "/nowhere"}
            with pytest.raises(InputError, match="has no ledger"):
                await LedgerCommands(node).commands()[command](arguments, unheard)


async def test_nobody_pays_what_it_has_not_got_itself_or_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=0)
        member = await start(network, genesis, 0)
        other = network.key(7).peer
        pay = LedgerCommands(member).pay
        for arguments, why in (
            ({"to": str(other), "amount": 101 * CREDIT}, "are more"),
            ({"to": str(member.peers.me), "amount": 1}, "does not pay itself"),
            ({"to": str(other), "amount": 0}, "cannot be paid"),
            ({"to": str(other), "amount": -1}, "cannot be paid"),
            ({"to": str(other), "amount": 2**63}, "cannot be paid"),
            ({"to": str(other), "amount": 0.5}, "not a whole number"),
            ({"to": "me", "amount": 5}, "not a key"),
        ):
            with pytest.raises(InputError, match=why):
                await pay(arguments, unheard)
        assert ledger_of(member).wallet.log() == []


class _Said:
    """A call in which one member says how an epoch ends."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.answered = 0

    async def send(self, _: Message) -> None:
        self.answered += 1


async def test_a_member_that_floods_news_of_the_epoch_makes_no_more_work(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        members = [await start(network, genesis, number) for number in range(4)]
        await trio.sleep(10)
        member = ledger_of(members[0]).member
        assert member is not None
        tasks = len(member.nursery.child_tasks)
        call = _Said(members[1].peers.me)
        news = EpochNews(epoch=0, buckets=buckets_of([]), signed=(b"nothing",) * 8)
        for _ in range(1000):
            await member.on_news(call, news)  # type: ignore[arg-type]
        assert call.answered == 1000
        assert len(member.nursery.child_tasks) <= tasks + 1
        assert all(len(it) <= UNHEARD_MAX for it in member._unheard.values())
        await epoch(members[0], 1)
        assert not member._unheard


async def test_a_bucket_of_an_epoch_that_has_ended_is_read_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=0)
        member = await start(network, genesis, 0)
        other = await start(network, genesis, 1)
        await trio.sleep(10)
        await ledger_of(member).wallet.pay(other.peers.me, CREDIT, unheard)
        await epoch(member, 1)
        answers = ledger_of(member).member.answers  # type: ignore[union-attr]
        found = [answers._kept_in(0, bucket) for bucket in range(ORDER_BUCKETS)]
        assert sum(map(len, found)) == 1
        for bucket in range(ORDER_BUCKETS):
            assert answers._kept_in(0, bucket) is found[bucket]
        # What runs now, or is still to come, is not remembered.
        assert answers._kept_in(9, 0) == []
        assert (9, 0) not in answers._ended


async def test_a_stake_is_seen_by_peers_that_keep_no_ledger_and_a_claim_is_checked(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        members = [await start(network, genesis, number) for number in range(4)]
        staker, other = [await start(network, genesis, number) for number in (4, 5)]
        await trio.sleep(10)
        commands = StakeCommands(staker)
        staked = await commands.add({"amount": 50 * CREDIT, "role": "verify"}, unheard)
        assert staked["state"] == "settled"
        with pytest.raises(InputError, match="are more"):
            await commands.add({"amount": 51 * CREDIT, "role": "verify"}, unheard)
        for arguments, why in (
            ({"role": "king", "amount": 5}, "no role"),
            ({"role": "verify", "amount": 0}, "cannot be staked"),
            ({"role": "verify", "amount": "5"}, "not a whole number"),
        ):
            with pytest.raises(InputError, match=why):
                await commands.add(arguments, unheard)
        with pytest.raises(InputError, match="nothing is staked for infer"):
            await commands.unbond({"role": "infer"}, unheard)
        shown = await StakeCommands(other).show({"account": str(staker.peers.me)}, unheard)
        assert (shown["staked"], shown["counts"]) == (50 * CREDIT, None)
        await epoch(members[0], 1)
        table = ledger_of(other).stakes
        with trio.fail_after(10 * EPOCH_S):
            while not table.of_role(staker.peers.me, Role.VERIFY):
                await trio.sleep(1)
        assert (table.epoch, table.problem) == (0, "")
        assert table.of_role(staker.peers.me, Role.INFER) == 0
        with trio.fail_after(20 * EPOCH_S):
            while (heard := other.peers.view.advert_of(staker.peers.me)) is None or (
                not heard.record.stake
            ):
                await trio.sleep(1)
        assert stake_of(other, heard) == {"claimed": 50 * CREDIT, "known": 50 * CREDIT}
        back = await commands.unbond({"role": "verify", "amount": 20 * CREDIT}, unheard)
        assert back["back_after_epoch"] == back["epoch"] + 14
        shown = await StakeCommands(other).show({"account": str(staker.peers.me)}, unheard)
        assert (shown["staked"], shown["leaving"][0]["amount"]) == (30 * CREDIT, 20 * CREDIT)
        wallet = await LedgerCommands(staker).wallet({}, unheard)
        assert (wallet["balance"], wallet["staked"]) == (50 * CREDIT, 30 * CREDIT)


async def test_stakes_that_do_not_hash_to_the_checkpoint_are_not_believed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=1, granted=1)
        member, staker = [await start(network, genesis, number) for number in (0, 1)]
        await trio.sleep(10)
        await StakeCommands(staker).add({"amount": 5 * CREDIT, "role": "verify"}, unheard)
        rows = (StakeRow(account=staker.peers.me),)

        async def lie(call: TypedCall, message: Message) -> None:
            assert isinstance(message, AskStakes)
            await call.send(StakeRows.of(0, () if message.after else rows))

        member.peers.handlers[AskStakes] = lie
        await epoch(member, 1)
        await trio.sleep(EPOCH_S / 2)
        table = ledger_of(staker).stakes
        assert "not those that the checkpoint says" in table.problem
        assert not table.rows
        assert table.epoch is None
