"""Either end of a channel starts again, with or without its disk: both go on with what was paid."""

from pathlib import Path

import trio
from trio.testing import MockClock

from node.peer import Node
from store import Store, open_memory_store
from tests.ledger.test_members import genesis_of
from tests.node.asking import asked, complete, request
from tests.node.network import I, Network, S, open_network
from tests.paying.test_priced_peers import priced, said_by, settled
from wire.kinds import Level, Role

PRICE = 1000


async def two(network: Network, stores: list[Store]) -> list[Node]:
    """An asker that keeps the ledger, and a worker, each with its disk."""
    genesis = genesis_of(network, members=1, granted=0)
    asker = await network.start(
        S, Role.LEDGER, models=(), number=0, genesis=genesis, store=stores[0]
    )
    worker = await network.start(
        I, number=1, genesis=genesis, prices=priced(base=PRICE), store=stores[1]
    )
    await known(network, asker, worker)
    return [asker, worker]


async def known(network: Network, asker: Node, worker: Node) -> None:
    await network.settled()
    with trio.fail_after(120):
        while not said_by(asker, worker):
            await trio.sleep(0.1)


async def ask(asker: Node, first: int, count: int) -> None:
    for number in range(first, first + count):
        wanted = request(complete(1), data=b"%d" % number, level=Level.SIGNED, price_max=PRICE)
        await asked(asker, wanted)


async def test_a_payee_that_lost_its_disk_is_shown_the_channel_and_paid_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        open_network(tmp_path) as network,
        open_memory_store(quota_bytes=1 << 30) as one,
        open_memory_store(quota_bytes=1 << 30) as two_,
        open_memory_store(quota_bytes=1 << 30) as empty,
    ):
        asker, worker = await two(network, [one, two_])
        await ask(asker, 0, 5)
        paid, _ = await settled(asker, worker)
        promised = paid.signed
        network.kill(worker)
        await trio.sleep(20)
        worker = await network.start(
            I, number=1, genesis=asker.config.genesis, prices=priced(base=PRICE), store=empty
        )
        await known(network, asker, worker)
        await ask(asker, 5, 5)
        paid, earned = await settled(asker, worker)
        assert paid.charged == 10 * PRICE
        # What it had been promised before is promised to it again.
        assert earned.highest >= promised
        assert earned.highest >= paid.charged
        channels = asker.paying.payer.channels  # type: ignore[union-attr]
        assert (channels.orders, len(channels.used_up)) == (1, 0)


async def test_a_payer_that_starts_again_knows_what_it_was_charged(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        open_network(tmp_path) as network,
        open_memory_store(quota_bytes=1 << 30) as one,
        open_memory_store(quota_bytes=1 << 30) as two_,
    ):
        asker, worker = await two(network, [one, two_])
        genesis = asker.config.genesis
        asked_for = 0
        for at in range(4):
            # The last of it is charged after the last voucher was signed.
            await ask(asker, asked_for, 7 + at)
            asked_for += 7 + at
            paid, _ = await settled(asker, worker)
            network.kill(asker)
            await trio.sleep(20)
            asker = await network.start(
                S, Role.LEDGER, models=(), number=0, genesis=genesis, store=one
            )
            await known(network, asker, worker)
        await ask(asker, asked_for, 1)
        paid, earned = await settled(asker, worker)
        assert paid.charged == earned.charged == (asked_for + 1) * PRICE
