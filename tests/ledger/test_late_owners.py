"""An owner that hears too late that its order is settled can show it all the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.ledger.committee import collected
from node.ledger.wallet import Ordered, OrderState, Wallet
from node.paying.settled_orders import opened_by, opening_in
from tests.ledger.test_members import CREDIT, epoch, genesis_of, ledger_of, start
from tests.node.network import open_network
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.ledger import Acknowledgement, Certificate, Opening
from wire.ledger_message import Acknowledged, Confirm
from wire.signed import open_signed


async def certified(wallet: Wallet, payee: PeerId) -> Ordered:
    """An order of the epoch that runs, with votes, that no member has applied."""
    view = await wallet.look()
    opening = Opening(payee=payee, deposit=CREDIT, expiry=100)
    ordered = await wallet._sign(view, open=(opening,))
    votes = await wallet.committee_calls.votes(ordered.order, deadline_s=20)
    raw = Certificate(order=ordered.order.raw, votes=collected(votes.proofs)).to_bytes()
    ordered = replace(ordered, state=OrderState.CERTIFIED, certificate=raw)
    await wallet._keep(ordered)
    return ordered


async def confirmed(wallet: Wallet, member: PeerId, raw: bytes) -> Acknowledgement:
    async with wallet.peers.call(member, deadline_s=5) as call:
        await call.send(Confirm(certificate=raw))
        told = open_signed((await call.expect(Acknowledged)).acknowledgement, Acknowledgement)
    return told.record


async def test_an_order_that_an_epoch_ended_with_is_acknowledged_afterwards(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        members = [await start(network, genesis, number) for number in range(4)]
        owner = await start(network, genesis, 4)
        await network.settled()
        wallet, payee = ledger_of(owner).wallet, network.key(9).peer
        ordered = await certified(wallet, payee)
        # Members apply it, and what they answer is lost.
        for member in members:
            await confirmed(wallet, member.peers.me, ordered.certificate)
        for member in members:
            await epoch(member, 2)
        await wallet.resume()
        (found,) = wallet.log()
        assert (found.state, found.order.record.epoch) == (OrderState.SETTLED, 0)
        (channel,) = opened_by(found.order, found.settlement)
        opening = opening_in(
            found.settlement, wallet.committees, owner.peers.me, payee, channel.name
        )
        assert opening.deposit == CREDIT


async def test_an_order_that_no_epoch_ended_with_is_never_acknowledged(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The control: it has votes, no member applied it, and the epoch ended without it."""
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        members = [await start(network, genesis, number) for number in range(4)]
        owner = await start(network, genesis, 4)
        await network.settled()
        wallet = ledger_of(owner).wallet
        ordered = await certified(wallet, network.key(9).peer)
        for member in members:
            await epoch(member, 1)
        for member in members:
            with pytest.raises(Refused) as refused:
                await confirmed(wallet, member.peers.me, ordered.certificate)
            assert refused.value.code is RefusalCode.OTHER_EPOCH
            assert refused.value.retry_after_s is None
        # Its owner signs it again, for the epoch that runs.
        with trio.fail_after(60):
            await wallet.resume()
        (found,) = wallet.log()
        assert (found.state, found.order.record.epoch) == (OrderState.SETTLED, 1)
        assert found.settlement
