"""A bootstrap that tells of nobody but its own keys, and of fresh ones with every answer."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from p2p.ip_address import place_of
from p2p.typed_call import TypedCall
from tests.p2p.adverts import advert_of
from tests.p2p.keepers import Keeper, Neighbourhood, open_neighbourhood
from tests.p2p.transports import key_of
from wire import limits
from wire.message import Hello, Message, Newer, Seek, Swap, Welcome
from wire.signed import Signed


@pytest.fixture
async def hood() -> AsyncIterator[Neighbourhood]:
    async with open_neighbourhood() as neighbourhood:
        yield neighbourhood


async def liar(hood: Neighbourhood) -> Keeper:
    """It answers every Hello, Swap and Seek with keys that it has just made up."""
    found = await hood.add("liar", bootstraps=())
    peers, made = found.peers, iter(range(10**6))

    def made_up(count: int) -> tuple[bytes, ...]:
        place = place_of(peers.endpoint.addresses[0])
        names = [f"made up {next(made)}" for _ in range(count)]
        signed: list[Signed] = [
            advert_of(it, addresses=(f"{place}/p2p/{key_of(it).peer}",), ttl_s=1800) for it in names
        ]
        return tuple(it.raw for it in signed)

    async def welcome(call: TypedCall, message: Message) -> None:
        adverts = (peers.mine().raw, *made_up(30))
        await call.send(
            Welcome(
                version=limits.PROTOCOL_VERSION,
                instance=b"instance",
                wall_ms=int(peers.environment.wall_s() * 1000),
                same_key=None,
                peers=2,
                adverts=adverts,
            )
        )

    async def newer(call: TypedCall, message: Message) -> None:
        await call.send(Newer(adverts=made_up(30), wanted=b"", same_key=None))
        if isinstance(message, Swap):
            await call.receive()

    peers.handlers |= {Hello: welcome, Swap: newer, Seek: newer}
    return found


async def test_a_bootstrap_that_tells_of_its_own_keys_alone_does_not_hide_the_others(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    lying = await liar(hood)
    hood.keepers.remove(lying)
    honest = [await hood.add(name) for name in ("a", "b", "c", "d")]
    both = (lying.peers.endpoint.addresses[0], honest[0].peers.endpoint.addresses[0])
    async with hood.open("newcomer", bootstraps=both) as newcomer:
        await trio.sleep(60)
        known = {it.me for it in honest}
        assert known <= newcomer.peers.connected()
        assert all(newcomer.peers.view.advert_of(it) is not None for it in known)
        # Of the made-up keys there are no more than one that was called may tell of, and those that
        # came before there were enough to have a quota.
        told = len(newcomer.peers.view) - len(known) - 1
        config = newcomer.peers.view.config
        assert told <= config.adverts_max // 4 + config.few


async def test_a_restarted_peer_finds_its_own_again_beside_a_bootstrap_that_lies(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    lying = await liar(hood)
    hood.keepers.remove(lying)
    honest = [await hood.add(name) for name in ("a", "b")]
    async with hood.open("back", bootstraps=(lying.peers.endpoint.addresses[0],)) as back:
        for one in honest:
            back.peers.dialing.remember(one.me, one.peers.endpoint.addresses)
        await trio.sleep(20)
        assert {it.me for it in honest} <= back.peers.connected()
