"""An owner that hears too late that its order is settled can show it all the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.ledger.committee import collected, proof_of
from node.ledger.committees import Committees
from node.ledger.wallet import Ordered, OrderState, Wallet
from node.paying.settled_orders import FORMER_EPOCHS, opened_by, opening_in
from tests.ledger.made import ONE, TWO, Made
from tests.ledger.test_members import CREDIT, epoch, genesis_of, ledger_of, start
from tests.node.network import open_network
from wire.content import PeerId
from wire.errors import Refused
from wire.kinds import RefusalCode
from wire.ledger import Acknowledgement, Certificate, Opening, Settlement, order_digest
from wire.ledger_message import Acknowledged, Confirm
from wire.signed import open_signed, sign


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


def test_former_members_open_no_channels_for_ever() -> None:
    made, later = Made(members=1), Made(members=4)
    order = made.order(ONE, open=(Opening(payee=TWO.peer, deposit=CREDIT, expiry=1000),))
    applied = Acknowledgement(network=made.genesis.id, epoch=0, order=order_digest(order))
    proof = proof_of(Acknowledgement, sign(applied, made.keys[0]).raw)
    shown = Settlement(
        certificate=made.certificate(order, members=(0,)), acknowledgements=collected({0: proof})
    ).to_bytes()
    (channel,) = opened_by(order, shown)

    def opened(committees: Committees) -> Opening:
        return opening_in(shown, committees, ONE.peer, TWO.peer, channel.name)

    committees = Committees(made.genesis)
    committees.epoch = 10 * FORMER_EPOCHS
    # Who still keeps the ledger is believed, however long ago it was.
    assert opened(committees).deposit == CREDIT
    committees._add(1, later.genesis.members)
    with pytest.raises(Refused, match="open another one"):
        opened(committees)
    # One that is shown soon after a change was opened in good faith.
    committees.epoch = FORMER_EPOCHS
    assert opened(committees).deposit == CREDIT
