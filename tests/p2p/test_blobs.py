"""Content between peers: from several at once, resumed after a break, and from no liar."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2p.peers import Handler
from p2p.score import Standing
from p2p.typed_call import TypedCall, refusal_of
from store import Store
from tests.p2p.keepers import Keeper, Neighbourhood, open_neighbourhood
from wire import limits
from wire.content import ContentId
from wire.errors import Malformed, Missing, Oversize, Refused, TooSlow
from wire.message import BlockReply, Message, Want
from wire.tree import Block as StoredBlock
from wire.tree import TreeNode, name_of, split

MEGABYTES = Random(1).randbytes(4 << 20)
NAME = name_of(MEGABYTES)
LEAVES = 16


@pytest.fixture
async def hood() -> AsyncIterator[Neighbourhood]:
    async with open_neighbourhood() as neighbourhood:
        yield neighbourhood


class Asked:
    """Counts what it is asked for, and passes it on to `answer`."""

    def __init__(self) -> None:
        self.blocks: list[ContentId] = []
        self.answer: Handler | None = None

    async def __call__(self, call: TypedCall, message: Message) -> None:
        assert isinstance(message, Want)
        self.blocks.append(message.block)
        assert self.answer is not None
        await self.answer(call, message)


async def holding(hood: Neighbourhood, name: str, data: bytes = MEGABYTES) -> tuple[Keeper, Asked]:
    """A keeper that holds `data`, and what it is asked for."""
    asked = Asked()
    keeper = await hood.add(name, want=asked)
    asked.answer = keeper.blobs.on_want
    await keeper.store.put(data)
    return keeper, asked


async def lying(hood: Neighbourhood, name: str, answer: Handler) -> tuple[Keeper, Asked]:
    asked = Asked()
    asked.answer = answer
    return await hood.add(name, want=asked), asked


async def garbage(call: TypedCall, _: Message) -> None:
    await call.send(BlockReply(data=b"not what was asked for"))


async def silence(call: TypedCall, _: Message) -> None:
    await trio.sleep_forever()


async def nonsense(call: TypedCall, _: Message) -> None:
    # An array of more items than are ever read.
    items = limits.ITEMS_MAX + 1
    await call.channel.send(b"\xdd" + items.to_bytes(4, "big") + bytes(items))


async def refusal(call: TypedCall, _: Message) -> None:
    await call.send(refusal_of(Refused("not here")))


async def test_megabytes_come_from_several_sources_at_once(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    holders = [await holding(hood, name) for name in "abc"]
    asker = await hood.add("asker")
    await hood.acquainted()
    shown: list[tuple[int, int]] = []
    await asker.blobs.fetch(NAME, deadline_s=30, progress=lambda *it: shown.append(it))
    assert await asker.store.get(NAME) == MEGABYTES
    assert all(asked.blocks for _, asked in holders)
    blocks = [block for _, asked in holders for block in asked.blocks]
    assert len(blocks) == len(set(blocks)) == LEAVES + 1
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)
    assert shown[-1] == (len(MEGABYTES), len(MEGABYTES))


async def test_a_broken_fetch_goes_on_where_it_was(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    holder, asked = await holding(hood, "holder")
    asker = await hood.add("asker")
    await hood.acquainted()
    serve = holder.blobs.on_want

    async def until_half(call: TypedCall, message: Message) -> None:
        if len(asked.blocks) > LEAVES // 2:
            await silence(call, message)
        await serve(call, message)

    asked.answer = until_half
    with pytest.raises(TooSlow, match="what has arrived is kept"):
        await asker.blobs.fetch(NAME, deadline_s=5)
    here = {block for block in asked.blocks if asker.store.has(block)}
    assert len(here) == LEAVES // 2
    asked.blocks.clear()
    asked.answer = serve
    shown: list[int] = []
    await asker.blobs.fetch(NAME, deadline_s=30, progress=lambda done, _: shown.append(done))
    assert await asker.store.get(NAME) == MEGABYTES
    assert here.isdisjoint(asked.blocks)
    assert shown[-1] == len(MEGABYTES)


@pytest.mark.parametrize("answer", [garbage, nonsense], ids=["garbage", "nonsense"])
async def test_a_source_that_sends_something_else_is_left_out_and_its_standing_falls(
    autojump_clock: MockClock, hood: Neighbourhood, answer: Handler
) -> None:
    honest, _ = await holding(hood, "honest")
    liar, asked = await lying(hood, "liar", answer)
    asker = await hood.add("asker")
    await hood.acquainted()
    await asker.blobs.fetch(NAME, [liar.me], deadline_s=60)
    assert await asker.store.get(NAME) == MEGABYTES
    assert 1 <= len(asked.blocks) <= 4
    assert asker.standing_of(liar) is not Standing.GOOD
    assert asker.standing_of(honest) is Standing.GOOD


async def test_a_source_that_falls_silent_holds_nothing_up_for_good(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    honest, _ = await holding(hood, "honest")
    mute, _ = await lying(hood, "mute", silence)
    asker = await hood.add("asker")
    await hood.acquainted()
    await asker.blobs.fetch(NAME, [mute.me], deadline_s=60)
    assert await asker.store.get(NAME) == MEGABYTES
    assert asker.cost_of(mute) > asker.cost_of(honest) == 0


async def test_a_source_that_lacks_it_is_no_offender(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    lacking, _ = await lying(hood, "lacking", refusal)
    await holding(hood, "holder")
    asker = await hood.add("asker")
    await hood.acquainted()
    await asker.blobs.fetch(NAME, [lacking.me], deadline_s=60)
    assert asker.cost_of(lacking) == 0


async def test_sources_that_have_a_part_each_make_a_whole(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    blocks = list(split(MEGABYTES))
    one, two = await hood.add("one"), await hood.add("two")
    for number, block in enumerate(blocks):
        for keeper in (one, two) if block.id == NAME else ((one, two)[number % 2],):
            await keeper.store.put_block(block)
    asker = await hood.add("asker")
    await hood.acquainted()
    assert await asker.blobs.get(NAME, deadline_s=30, size_bytes_max=8 << 20) == MEGABYTES


async def test_what_nobody_has_is_Missing_and_says_so(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    for name in "abc":
        await hood.add(name)
    asker = await hood.add("asker")
    await hood.acquainted()
    with pytest.raises(Missing, match="nobody of 3 peers") as missing:
        await asker.blobs.get(NAME, deadline_s=30, size_bytes_max=8 << 20)
    assert "check the id" in missing.value.todo


async def test_more_sources_than_one_wave_are_asked_before_it_is_Missing(
    autojump_clock: MockClock,
    hood: Neighbourhood,
) -> None:
    for number in range(9):
        await hood.add(f"lacking {number}")
    holder, _ = await holding(hood, "holder", b"rare")
    asker = await hood.add("asker")
    await hood.acquainted()
    lacking = [it.me for it in hood.keepers if it not in (holder, asker)]
    found = await asker.blobs.get(name_of(b"rare"), lacking, deadline_s=30, size_bytes_max=100)
    assert found == b"rare"


@pytest.mark.parametrize("size_bytes", [1000, 300_000, 3 << 20])
async def test_what_is_larger_than_wanted_is_Oversize(
    autojump_clock: MockClock, hood: Neighbourhood, size_bytes: int
) -> None:
    data = MEGABYTES[:size_bytes]
    _, asked = await holding(hood, "holder", data)
    asker = await hood.add("asker")
    await hood.acquainted()
    with pytest.raises(Oversize):
        await asker.blobs.fetch(name_of(data), deadline_s=30, size_bytes_max=size_bytes - 1)
    # The first block says how large the whole is: no more is asked for.
    assert len(asked.blocks) == 1
    await asker.blobs.fetch(name_of(data), deadline_s=30, size_bytes_max=size_bytes)
    assert await asker.store.get(name_of(data)) == data


def no_node() -> dict[ContentId, bytes]:
    data = bytes(20) + b"not a tree node"
    return {ContentId.of_tree(data): data}


def a_chain_of_nodes() -> dict[ContentId, bytes]:
    blocks = {ContentId.of(b"x"): b"x"}
    for _ in range(20):
        data = TreeNode(1, (next(reversed(blocks)),)).to_bytes()
        blocks[ContentId.of_tree(data)] = data
    return blocks


def a_leaf_of_another_size() -> dict[ContentId, bytes]:
    data = TreeNode(5, (ContentId.of(b"x"),)).to_bytes()
    return {ContentId.of(b"x"): b"x", ContentId.of_tree(data): data}


@pytest.mark.parametrize("lie", [no_node, a_chain_of_nodes, a_leaf_of_another_size])
async def test_a_tree_that_lies_ends_the_fetch_soon_and_is_nobodys_fault_who_serves_it(
    autojump_clock: MockClock, hood: Neighbourhood, lie: Callable[[], dict[ContentId, bytes]]
) -> None:
    blocks = lie()
    root = next(reversed(blocks))

    async def serve(call: TypedCall, message: Message) -> None:
        assert isinstance(message, Want)
        await call.send(BlockReply(data=blocks[message.block]))

    server, asked = await lying(hood, "server", serve)
    asker = await hood.add("asker")
    await hood.acquainted()
    for _ in range(2):
        with pytest.raises(Malformed):
            await asker.blobs.fetch(root, [server.me], deadline_s=30)
    assert len(asked.blocks) <= 2 * (limits.TREE_DEPTH_MAX + 1)
    assert asker.cost_of(server) == 0


async def test_two_that_want_the_same_content_share_one_fetch(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    _, asked = await holding(hood, "holder")
    asker = await hood.add("asker")
    await hood.acquainted()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(partial(asker.blobs.fetch, NAME, deadline_s=30))
    assert len(asked.blocks) == LEAVES + 1


async def test_when_the_one_that_fetched_gives_up_one_of_those_who_waited_goes_on(
    autojump_clock: MockClock,
    hood: Neighbourhood,
) -> None:
    holder, asked = await holding(hood, "holder")
    asker = await hood.add("asker")
    await hood.acquainted()
    serve = holder.blobs.on_want

    async def after_a_while(call: TypedCall, message: Message) -> None:
        if trio.current_time() < ready_at_s:
            await trio.sleep_until(ready_at_s)
        await serve(call, message)

    ready_at_s = trio.current_time() + 4
    asked.answer = after_a_while
    got: list[bytes] = []

    async def impatient() -> None:
        with pytest.raises(TooSlow):
            await asker.blobs.fetch(NAME, deadline_s=2)

    async def patient() -> None:
        await trio.sleep(1)
        got.append(await asker.blobs.get(NAME, deadline_s=30, size_bytes_max=8 << 20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        for _ in range(3):
            nursery.start_soon(patient)
    assert got == [MEGABYTES] * 3


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, 3.0])
async def test_a_fetch_ends_at_its_deadline_even_one_that_has_passed(
    autojump_clock: MockClock, hood: Neighbourhood, deadline_s: float
) -> None:
    mute, _ = await lying(hood, "mute", silence)
    asker = await hood.add("asker")
    await hood.acquainted()
    started_at_s = trio.current_time()
    with pytest.raises(TooSlow):
        await asker.blobs.fetch(NAME, [mute.me], deadline_s=deadline_s)
    assert trio.current_time() - started_at_s <= max(0.0, deadline_s) + 0.1


async def test_a_store_that_is_full_is_not_a_sources_fault(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    holder, _ = await holding(hood, "holder")
    asker = await hood.add("asker")
    await hood.acquainted()
    full: Store = asker.store
    await full.put(MEGABYTES[:1000], pin="mine")
    asker.blobs.store = _Full(full)
    with pytest.raises(Oversize, match="no room at all"):
        await asker.blobs.fetch(NAME, deadline_s=30)
    assert asker.cost_of(holder) == 0


class _Full:
    """A store that takes no block."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def put_block(self, block: StoredBlock) -> None:
        raise Oversize("no room at all")


async def test_content_of_one_block_and_of_none_is_fetched_too(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    holder = await hood.add("holder")
    asker = await hood.add("asker")
    await hood.acquainted()
    for data in (b"", b"one block", MEGABYTES[: limits.BLOCK_BYTES_MAX]):
        name = await holder.store.put(data)
        assert await asker.blobs.get(name, deadline_s=9, size_bytes_max=1 << 20) == data
    assert holder.blobs.served == 3


def test_the_megabytes_of_these_tests_are_a_tree_of_several_blocks() -> None:
    *_, root = split(MEGABYTES)
    assert root.id == NAME
    assert len(TreeNode.from_bytes(root.data).children) == LEAVES


async def test_blocks_by_themselves_come_from_whoever_has_them_and_from_no_liar(
    autojump_clock: MockClock, hood: Neighbourhood
) -> None:
    pieces = [Random(it).randbytes(1000) for it in range(6)]
    honest = set()
    for name, part in (("a", pieces[:3]), ("b", pieces[3:])):
        keeper, _ = await holding(hood, name, b"")
        honest.add(keeper.me)
        for piece in part:
            await keeper.store.put(piece)
    liar, _ = await lying(hood, "liar", garbage)
    asker = await hood.add("asker")
    await hood.acquainted()
    wanted: dict[ContentId, int | None] = {ContentId.of(it): len(it) for it in pieces}
    # The honest ones are asked last, or they may have given everything before the liar is asked.
    assert await asker.blobs.bring_blocks(wanted, behind=honest) == 6000
    assert all([await asker.store.get(ContentId.of(it)) == it for it in pieces])
    assert asker.standing_of(liar) is not Standing.GOOD
    assert await asker.blobs.bring_blocks(wanted) == 0
    with pytest.raises(Missing):
        await asker.blobs.bring_blocks({**wanted, ContentId.of(b"nowhere"): None})
    other = await hood.add("other")
    await hood.acquainted()
    with pytest.raises(Malformed, match="1000 bytes"):
        await other.blobs.bring_blocks({ContentId.of(pieces[0]): 999})
