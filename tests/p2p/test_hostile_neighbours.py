"""What a neighbour may try with swaps, partings and greetings, and what it comes to."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2p.adverts import Advertiser
from p2p.anti_entropy import AntiEntropy
from p2p.neighbours import Neighbours
from p2p.typed_call import TypedCall, refusal_of
from p2p.view import Hearing, View, ViewConfig
from tests.p2p.adverts import NOW_S, advert_of
from tests.p2p.keepers import Keeper, Neighbourhood, open_neighbourhood
from tests.p2p.transports import key_of
from wire import limits
from wire.content import PeerId
from wire.errors import Refused
from wire.message import Goodbye, Message, Newer, Pong, Swap, Welcome


@pytest.fixture
async def hood() -> AsyncIterator[Neighbourhood]:
    async with open_neighbourhood() as neighbourhood:
        yield neighbourhood


async def crowd(hood: Neighbourhood, monkeypatch: pytest.MonkeyPatch) -> tuple[Keeper, set[object]]:
    """A peer that has called two honest ones, at its limit with as many that called it."""
    monkeypatch.setattr("p2p.neighbours.CONNECTIONS_MAX", 6)
    monkeypatch.setattr("p2p.neighbours.CONNECTIONS_KEPT", 4)
    honest = [await hood.add(name) for name in ("a", "b")]
    victim = await hood.add("victim")
    await hood.acquainted()
    for keeper in honest:
        victim.peers.neighbours._ours[keeper.me] = None
        # They have their own limits, and are not to be the ones who hang up.
        keeper.peers.neighbours._ours[victim.me] = None
    return victim, {it.me for it in honest}


async def test_keys_that_part_and_stay_do_not_have_a_peer_to_themselves(
    autojump_clock: MockClock, hood: Neighbourhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, honest = await crowd(hood, monkeypatch)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            rogue = await hood.add(f"rogue {number}")
            hood.keepers.remove(rogue)
            peers = rogue.peers

            async def part_and_stay(peers: object = peers) -> None:
                await trio.sleep(1)
                async with peers.call(victim.me, deadline_s=5) as call:  # type: ignore[attr-defined]
                    mine = peers.advertiser.mine(peers.endpoint).raw  # type: ignore[attr-defined]
                    await call.send(Goodbye(advert=mine))
                    await call.expect(Pong)

            nursery.start_soon(part_and_stay)
    await trio.sleep(20)
    assert honest <= victim.peers.connected()


async def test_who_never_swaps_does_not_have_all_of_a_peers_turns(
    autojump_clock: MockClock, hood: Neighbourhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, rogue, honest = [await hood.add(name) for name in ("victim", "rogue", "honest")]
    swap = Neighbours.swap

    async def swap_unless_rogue(neighbours: Neighbours, peer: PeerId) -> None:
        if neighbours is not rogue.peers.neighbours:
            await swap(neighbours, peer)

    async def refuse(call: TypedCall, _: Message) -> None:
        await call.send(refusal_of(Refused("later", retry_after_s=1.0)))

    await hood.acquainted()
    rogue.peers.handlers[Swap] = refuse
    monkeypatch.setattr(Neighbours, "swap", swap_unless_rogue)
    # It was never heard, as one that has just called is not.
    victim.peers.handshake_log._answered.clear()
    before = victim.peers.neighbours.swaps
    await trio.sleep(60)
    assert {rogue.me, honest.me} <= victim.peers.connected()
    assert victim.peers.neighbours.swaps >= before + 3


async def test_who_says_that_it_began_anew_while_it_is_greeted_ends_nobody(
    autojump_clock: MockClock, hood: Neighbourhood, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, rogue = await hood.add("victim"), await hood.add("rogue")
    advertiser = victim.peers.advertiser
    take_in_batch, hello = advertiser.take_in_batch, rogue.peers.neighbours.hello()

    async def meanwhile(raws: Sequence[bytes], introducer: PeerId) -> None:
        # Many adverts are taken in with pauses, in which others are answered.
        async with rogue.peers.call(victim.me, deadline_s=5) as call:
            await call.send(replace(hello, instance=b"another1"))
            await call.expect(Welcome)
        await take_in_batch(raws, introducer)

    victim.peers.neighbours._versions.clear()
    monkeypatch.setattr(Advertiser, "take_in_batch", lambda _self, *said: meanwhile(*said))
    version = await victim.peers.neighbours.version_of(rogue.me, deadline_s=5)
    assert version == limits.SPOKEN_VERSION


async def test_a_swap_that_is_never_finished_is_given_up(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    victim, rogue = await hood.add("victim"), await hood.add("rogue")
    async with rogue.peers.call(victim.me, deadline_s=60) as call:
        await call.send(Swap(instance=b"instance", digest=b""))
        await call.expect(Newer)
        await trio.sleep(10)
        assert victim.peers.in_calls[rogue.me] == 0


async def test_swaps_come_no_faster_than_they_are_of_use(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    victim, rogue = await hood.add("victim"), await hood.add("rogue")

    async def swap() -> None:
        async with rogue.peers.call(victim.me, deadline_s=5) as call:
            await call.send(Swap(instance=b"instance", digest=b""))
            await call.expect(Newer)
            await call.send(Newer(adverts=(), wanted=b"", same_key=None))

    await trio.sleep(1)
    await swap()
    with pytest.raises(Refused, match="just now"):
        await swap()


async def test_who_swaps_what_was_not_asked_for_is_not_heard(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    victim, rogue = await hood.add("victim"), await hood.add("rogue")
    stranger = advert_of("stranger")
    async with rogue.peers.call(victim.me, deadline_s=5) as call:
        await call.send(Swap(instance=b"instance", digest=b""))
        await call.expect(Newer)
        await call.send(Newer(adverts=(stranger.raw,), wanted=b"", same_key=None))
        await trio.sleep(1)
    assert victim.peers.view.advert_of(stranger.signer) is None
    assert victim.cost_of(rogue) >= 10


def test_who_calls_us_does_not_say_how_large_the_network_is() -> None:
    me = key_of("me").peer
    view = View(me, b"instance", ViewConfig(adverts_max=20))
    for number in range(20):
        view.hear(advert_of(f"peer {number}"), NOW_S)
    anti_entropy = AntiEntropy(view, Random(1), believed={key_of("friend").peer})
    mine = advert_of("me")
    same = anti_entropy.digest(mine, NOW_S)
    anti_entropy.compare(same, mine, key_of("friend").peer, NOW_S)
    honest = anti_entropy.peers()
    for number in range(40):
        noise = Random(number).randbytes(16 * 1024)
        anti_entropy.compare(noise, mine, key_of(f"liar {number}").peer, NOW_S)
    assert anti_entropy.peers() == honest


def test_good_byes_of_unknown_keys_do_not_bring_the_dead_back() -> None:
    view = View(key_of("me").peer, b"instance", ViewConfig(remembered_max=20))
    dead = advert_of("dead")
    view.hear(dead, NOW_S)
    view.forget(dead.signer)
    for number in range(100):
        view.hear(advert_of(f"never here {number}", leaving=True), NOW_S)
    assert view.hear(dead, NOW_S) is Hearing.OLD
