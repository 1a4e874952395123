"""Two and two of four members, cut off from each other over an epoch's end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.ledger.sync import LedgerCalls
from node.ledger.wallet import OrderState
from node.peer import Node
from p2p.over_libp2p import MemoryNetwork
from tests.ledger.test_members import CREDIT, EPOCH_S, epoch, genesis_of, ledger_of, start, unheard
from tests.node.asking import asked, complete, request
from tests.node.network import I, S, open_network
from tests.paying.test_priced_peers import priced, said_by
from wire.errors import Refused, Unreachable
from wire.kinds import Level


@dataclass(eq=False)
class Parted(MemoryNetwork):
    """Packets between two sides are lost for as long as they are apart."""

    apart: bool = False
    far: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def carry(self, source: str, target: str, size_bytes: int, deliver: Callable[[], None]) -> None:
        if not self.apart or (source in self.far) is (target in self.far):
            deliver()


def epochs(members: list[Node]) -> list[int]:
    replicas = [ledger_of(it).member for it in members]
    return [it.replica.epoch for it in replicas if it is not None]


@pytest.mark.soak
@pytest.mark.parametrize("far", [2, 1])
async def test_halves_settle_nothing_while_vouchers_go_on_and_heal_to_one_checkpoint(
    far: int, autojump_clock: MockClock, tmp_path: Path
) -> None:
    """With one of four on the far side, as the control, the other three go on."""
    async with open_network(tmp_path) as network:
        network.memory = parted = Parted()
        genesis = genesis_of(network, members=4, granted=4)
        members = [await start(network, genesis, number) for number in range(4)]
        payer = await network.start(S, models=(), number=4, genesis=genesis)
        worker = await network.start(I, number=5, genesis=genesis, prices=priced(base=100))
        await network.settled()
        with trio.fail_after(60):
            while not said_by(payer, worker):
                await trio.sleep(0.1)
        paid = request(complete(4), level=Level.SIGNED, price_max=10_000)
        await asked(payer, paid)
        while epochs(members) != [1] * 4:
            await trio.sleep(1)
        parted.far = {str(it.peers.me) for it in members[4 - far :]}
        parted.apart = True
        before = epochs(members)
        await trio.sleep(2 * EPOCH_S)
        if far == 1:
            assert epochs(members)[0] > before[0]
            assert await settles(payer, members[0])
            return
        assert epochs(members) == before
        assert not await settles(payer, members[0])
        assert payer.paying is not None
        channel = payer.paying.payer.channels.by_peer[worker.peers.me]
        charged, signed = channel.charged, channel.signed
        for tokens in range(5, 25):
            await asked(payer, request(complete(tokens), level=Level.SIGNED, price_max=10_000))
        assert channel.charged == charged + 20 * 100
        # What was promised was used up, and more was promised meanwhile.
        assert channel.signed > signed
        assert epochs(members) == before
        parted.apart = False
        for member in members:
            await epoch(member, before[0] + 1)
        with trio.fail_after(40 * EPOCH_S):
            while not await settles(payer, members[0]):
                await trio.sleep(1)
        tips = set[bytes]()
        for member in members:
            await epoch(member, before[0] + 2)
            kept = ledger_of(member).member
            assert kept is not None
            assert kept.replica.books.supply == genesis.supply
            _, checkpoint = await LedgerCalls(payer.peers).checkpoint(member.peers.me, before[0])
            assert checkpoint is not None
            tips.add(checkpoint.header)
        assert len(tips) == 1


async def settles(payer: Node, to: Node) -> bool:
    """Whether a payment is settled in time."""
    try:
        paid = await ledger_of(payer).wallet.pay(to.peers.me, CREDIT, unheard)
    except (Refused, Unreachable):
        return False
    return paid.state is OrderState.SETTLED
