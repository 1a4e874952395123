"""Orders as large as they may be are settled, kept and told, by whole peers."""

from pathlib import Path

from trio.testing import MockClock

from node.ledger.wallet import Ordered, OrderState
from node.local.stake_commands import StakeCommands
from store import Table
from tests.evidence.crimes import Leg
from tests.ledger.test_members import CREDIT, epoch, genesis_of, ledger_of, start, unheard
from tests.node.network import open_network
from wire import limits
from wire.kinds import Role
from wire.ledger import Payment
from wire.stake import StakePart


async def test_evidence_of_70_kib_takes_stake_and_is_in_the_log_after_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        genesis = genesis_of(network, members=4, granted=4)
        members = [await start(network, genesis, number) for number in range(4)]
        accuser, liar = [await start(network, genesis, number) for number in (4, 5)]
        evidence = Leg(worker=liar.dependencies.key, wrong=(7,), rows=256).against_worker()
        raw = evidence.to_bytes()
        assert 66 << 10 < len(raw) <= limits.ACCUSATION_BYTES_MAX
        wallet = ledger_of(accuser).wallet
        await wallet.order(unheard, pay=(Payment(to=liar.peers.me, amount=20 * CREDIT),))
        part = StakePart(role=Role.INFER, amount=10 * CREDIT)
        await ledger_of(liar).wallet.order(unheard, stake=(part,))
        done = await StakeCommands(accuser).slash({"evidence": raw}, unheard)
        assert done["state"] == "settled"
        [last] = wallet.log(1)
        assert (last.state, last.order.record.action) == (OrderState.SETTLED, "accuse")
        assert last.certificate
        assert last.settlement
        row = accuser.dependencies.store.scan(Table.WALLET)[-1][1]
        # Each part is kept once, though the larger have the smaller in them.
        assert len(row) < len(last.settlement) + 512
        assert Ordered.from_bytes(row) == last
        await epoch(members[0], int(done["epoch"]) + 1)
        assert (await wallet.look(liar.peers.me)).stake[0].amount == 5 * CREDIT
        assert (await wallet.look()).balance == 80 * CREDIT
