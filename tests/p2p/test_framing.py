"""What some say of a peer does not have others turn against it, or fail to reach it."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from p2p.connect import NotCalled
from p2p.ip_address import place_of
from p2p.score import Standing
from tests.p2p.adverts import advert_of
from tests.p2p.keepers import Keeper, Neighbourhood, open_neighbourhood
from tests.p2p.transports import key_of
from wire.advert import Advert
from wire.message import Ping, Pong
from wire.signed import Signed


@pytest.fixture
async def hood() -> AsyncIterator[Neighbourhood]:
    async with open_neighbourhood() as neighbourhood:
        yield neighbourhood


def claim(name: str, address: str) -> Signed[Advert]:
    """A made-up key says that it is where somebody else is."""
    return advert_of(name, addresses=(f"{place_of(address)}/p2p/{key_of(name).peer}",), ttl_s=1800)


async def pinged(caller: Keeper, other: Keeper) -> None:
    async with caller.peers.call(other.me, deadline_s=5) as call:
        await call.send(Ping(instance=b"instance"))
        await call.expect(Pong)


async def test_keys_that_claim_a_peer_s_address_keep_nobody_from_it(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    asker = await hood.add("asker")
    victim = await hood.add("victim", bootstraps=())
    (address, *_) = victim.peers.endpoint.addresses
    dialing = asker.peers.dialing
    for number in range(40):
        asker.peers.advertiser.take_in(claim(f"rogue {number}", address))
        await trio.sleep(1)
        assert dialing.to_call(victim.me, (address,), trio.current_time()) == (address,)
    # All that one of them is told of there is asked for once, and not again by every other.
    assert asker.peers.endpoint.statistics().connections == 0
    asker.peers.advertiser.take_in(victim.peers.mine())
    await pinged(asker, victim)
    assert asker.cost_of(victim) == 0.0


async def test_a_peer_that_is_not_called_for_what_others_did_is_neither_blamed_nor_forgotten(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    asker = await hood.add("asker")
    async with hood.open("before", bootstraps=()) as gone:
        (address, *_) = gone.peers.endpoint.addresses
    for number in range(40):
        # Nobody answers there, so for a while nobody is called there, whoever it is said to be.
        asker.peers.advertiser.take_in(claim(f"rogue {number}", address))
        await trio.sleep(1)
    async with hood.open("victim", bootstraps=(), listen=(place_of(address),)) as victim:
        asker.peers.advertiser.take_in(victim.peers.mine())
        for _ in range(20):
            try:
                await pinged(asker, victim)
            except NotCalled:
                assert asker.peers.view.advert_of(victim.me) is not None
            else:
                break
            await trio.sleep(10)
        else:
            pytest.fail("it was never called")
        assert asker.cost_of(victim) == 0.0
        assert asker.standing_of(victim) is Standing.GOOD
