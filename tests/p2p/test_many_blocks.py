"""Many blocks by one request: few requests, partial sources, liars, and whoever reads nothing."""

from collections.abc import AsyncIterator
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2p.peers import Handler
from p2p.score import Standing
from p2p.typed_call import TypedCall
from tests.p2p.keepers import Keeper, Neighbourhood, open_neighbourhood
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import Missing, TransportError
from wire.message import BlockReply, BlocksComing, BlocksSent, Message, WantBlocks

DATA = [Random(it).randbytes(5000) for it in range(300)]
SIZES: dict[ContentId, int | None] = {ContentId.of(it): len(it) for it in DATA}


@pytest.fixture
async def hood() -> AsyncIterator[Neighbourhood]:
    async with open_neighbourhood() as neighbourhood:
        yield neighbourhood


async def holding(hood: Neighbourhood, name: str, data: list[bytes]) -> tuple[Keeper, list[int]]:
    """A keeper with these blocks, and how many it is asked for by each request."""
    keeper, counts = await hood.add(name), list[int]()
    answer = keeper.blobs.on_want_blocks

    async def counted(call: TypedCall, message: Message) -> None:
        assert isinstance(message, WantBlocks)
        counts.append(len(message.blocks))
        await answer(call, message)

    keeper.peers.handlers[WantBlocks] = counted
    for block in data:
        await keeper.store.put(block)
    return keeper, counts


async def lying(hood: Neighbourhood, answer: Handler) -> Keeper:
    keeper = await hood.add("liar")
    keeper.peers.handlers[WantBlocks] = answer
    return keeper


async def brought(hood: Neighbourhood) -> Keeper:
    asker = await hood.add("asker")
    await hood.acquainted()
    assert await asker.blobs.bring_blocks(SIZES) == sum(map(len, DATA))
    assert await asker.store.get_blocks(list(SIZES)) == DATA
    return asker


async def test_few_requests_bring_many_blocks(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    _, counts = await holding(hood, "holder", DATA)
    await brought(hood)
    assert sum(counts) <= len(DATA)
    assert len(counts) < len(DATA) / 4
    assert max(counts) <= limits.WANTED_BLOCKS_MAX


async def test_sources_with_a_part_each_make_a_whole(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    one, _ = await holding(hood, "one", DATA[::2])
    two, _ = await holding(hood, "two", DATA[1::2])
    asker = await brought(hood)
    assert asker.cost_of(one) == asker.cost_of(two) == 0


async def test_a_peer_that_speaks_an_older_version_is_asked_for_one_at_a_time(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    older, counts = await holding(hood, "older", DATA)
    older.peers.neighbours.speaks = limits.MANY_BLOCKS_VERSION - 1
    asker = await brought(hood)
    assert not counts
    assert asker.cost_of(older) == 0


async def _garbage(call: TypedCall, message: Message) -> None:
    assert isinstance(message, WantBlocks)
    await call.send(BlocksComing(places=bytes(range(len(message.blocks)))))
    for _ in message.blocks:
        await call.send(BlockReply(data=bytes(5000)))
    await call.send(BlocksSent(count=len(message.blocks)))


async def _too_large(call: TypedCall, message: Message) -> None:
    assert isinstance(message, WantBlocks)
    await call.send(BlocksComing(places=bytes(range(len(message.blocks)))))
    for _ in message.blocks:
        await call.send(BlockReply(data=bytes(limits.BLOCK_BYTES_MAX)))


async def _unwanted(call: TypedCall, message: Message) -> None:
    await call.send(BlocksComing(places=bytes((0, 63))))
    await call.send(BlockReply(data=DATA[0]))


async def _fewer(call: TypedCall, message: Message) -> None:
    assert isinstance(message, WantBlocks)
    await call.send(BlocksComing(places=bytes(range(len(message.blocks)))))
    await call.send(BlocksSent(count=0))


async def _cut_off(call: TypedCall, message: Message) -> None:
    assert isinstance(message, WantBlocks)
    await call.send(BlocksComing(places=bytes(range(len(message.blocks)))))


async def _silent(call: TypedCall, message: Message) -> None:
    await _cut_off(call, message)
    await trio.sleep_forever()


@pytest.mark.parametrize("answer", [_garbage, _too_large, _unwanted, _fewer, _cut_off, _silent])
async def test_a_source_that_lies_or_breaks_off_hurts_itself_alone(
    autojump_clock: MockClock, hood: Neighbourhood, answer: Handler
) -> None:
    honest, _ = await holding(hood, "honest", DATA)
    liar = await lying(hood, answer)
    asker = await brought(hood)
    assert asker.standing_of(honest) is Standing.GOOD
    if answer not in (_cut_off, _silent):
        assert asker.standing_of(liar) is not Standing.GOOD


async def test_what_nobody_has_is_missing(autojump_clock: MockClock, hood: Neighbourhood) -> None:
    await holding(hood, "holder", DATA[1:])
    asker = await hood.add("asker")
    await hood.acquainted()
    with pytest.raises(Missing, match=str(ContentId.of(DATA[0]))):
        await asker.blobs.bring_blocks(SIZES)


async def test_whoever_reads_nothing_of_what_it_wanted_is_left(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    large = [Random(it).randbytes(limits.BLOCK_BYTES_MAX) for it in range(40)]
    holder, _ = await holding(hood, "holder", large)
    asker = await hood.add("asker")
    await hood.acquainted()
    with pytest.raises(TransportError):
        await _read_late(asker, holder.me, WantBlocks(blocks=tuple(map(ContentId.of, large))))
    assert holder.blobs.served < len(large)


async def _read_late(asker: Keeper, holder: PeerId, wanted: WantBlocks) -> None:
    async with asker.peers.call(holder, deadline_s=600) as call:
        await call.send(wanted)
        await trio.sleep(200)
        while True:
            await call.receive()


async def test_a_source_that_turns_slow_holds_up_one_part_of_many(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    """It is quick until it is asked for many, and then sends one just in time, again and again."""
    await holding(hood, "honest", DATA)
    slow = await hood.add("slow")
    for block in DATA:
        await slow.store.put(block)
    quick = iter(range(2))

    async def trickle(call: TypedCall, message: Message) -> None:
        assert isinstance(message, WantBlocks)
        if next(quick, None) is not None:
            await slow.blobs.on_want_blocks(call, message)
            return
        await call.send(BlocksComing(places=bytes(range(len(message.blocks)))))
        for block in message.blocks:
            await trio.sleep(25)
            await call.send(BlockReply(data=await slow.store.get_block(block)))
        await call.send(BlocksSent(count=len(message.blocks)))

    slow.peers.handlers[WantBlocks] = trickle
    asker = await hood.add("asker")
    await hood.acquainted()
    behind: set[PeerId] = set()
    wanted = list(SIZES.items())
    took_s = []
    for at in range(0, len(wanted), 100):
        began_at_s = trio.current_time()
        await asker.blobs.bring_blocks(dict(wanted[at : at + 100]), None, behind)
        took_s.append(trio.current_time() - began_at_s)
    assert await asker.store.get_blocks(list(SIZES)) == DATA
    assert behind == {slow.me}
    assert max(took_s) < 150
    assert max(took_s[1:]) < 5
