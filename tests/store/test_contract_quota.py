"""What every store promises about room: what goes, what stays, and when it says no."""

import pytest
import trio
import trio.testing

from store import Pin, Row, Table, Write
from tests.store.samples import FULL, Opened, content
from wire.content import ContentId
from wire.errors import (
    Oversize,
    StoreFull,
)
from wire.tree import split


async def test_over_quota_the_least_recently_used_goes_first(opened: Opened) -> None:
    async with opened(3000) as store:
        first, second, third = [await store.put(content(1000, n)) for n in range(3)]
        await store.get(first)
        fourth = await store.put(content(1000, 3))
        assert [store.has(one) for one in (first, second, third, fourth)] == [
            True,
            False,
            True,
            True,
        ]
        fifth = await store.put(content(1000, 4))
        assert [store.has(one) for one in (first, third, fourth, fifth)] == [
            True,
            False,
            True,
            True,
        ]
        assert store.statistics().used_bytes == 3000


async def test_what_is_softly_pinned_goes_after_everything_else(opened: Opened) -> None:
    async with opened(6 * FULL) as store:
        kept = await store.put(content(2 * FULL + 1))
        await store.soft_pin(kept)
        others = [await store.put(content(FULL, n)) for n in range(1, 4)]
        for one in others:
            # Read lately, and yet they go first.
            await store.get(one)
        newer = [await store.put(content(FULL, n)) for n in range(4, 7)]
        assert not await store.missing(kept)
        assert not any(store.has(one) for one in others)
        assert all(store.has(one) for one in newer[1:])
        store.soft_unpin(kept)
        for number in range(7, 12):
            await store.put(content(FULL, number))
        assert await store.missing(kept)


async def test_no_put_and_no_pin_is_refused_for_the_sake_of_a_soft_pin(opened: Opened) -> None:
    async with opened(4 * FULL) as store:
        kept = await store.put(content(2 * FULL + 1))
        await store.soft_pin(kept)
        pinned = [await store.put(content(FULL, n), pin="wanted") for n in range(1, 5)]
        assert all(store.has(one) for one in pinned)
        assert await store.missing(kept)
        # What is gone is no obstacle to anything.
        store.soft_unpin(kept)
        store.soft_unpin(kept)


async def test_a_soft_pin_is_of_what_is_here(opened: Opened) -> None:
    async with opened(4 * FULL) as store:
        *_, root = split(content(2 * FULL))
        await store.put_block(root)
        await store.soft_pin(root.id)
        for number in range(5):
            await store.put(content(FULL, number))
        assert store.has(root.id)


async def test_when_all_was_read_lately_something_goes_all_the_same(opened: Opened) -> None:
    async with opened(3000) as store:
        for number in range(3):
            await store.get(await store.put(content(1000, number)))
        assert store.has(await store.put(content(1000, 3)))
        assert store.statistics().blocks == 3


async def test_a_pinned_blob_stays_and_when_nothing_may_go_the_store_is_full(
    opened: Opened,
) -> None:
    async with opened(3000) as store:
        pinned = [await store.put(content(1000, n), pin="wanted") for n in range(2)]
        cached = await store.put(content(1000, 2))
        with pytest.raises(StoreFull, match="raise the store's quota"):
            await store.put(content(1001, 3))
        # Nothing was lost by trying.
        assert store.has(cached)
        newer = await store.put(content(1000, 4))
        assert not store.has(cached)
        assert all(store.has(one) for one in [*pinned, newer])
        await store.unpin(pinned[0], "wanted")
        assert store.has(await store.put(content(2000, 5)))
        assert [store.has(one) for one in [*pinned, newer]] == [False, True, False]


async def test_a_blob_stays_while_any_reason_stands(opened: Opened) -> None:
    async with opened(1000) as store:
        kept = await store.put(content(1000), pin="one")
        await store.pin(kept, "two")
        await store.pin(kept, "two")
        await store.unpin(kept, "one")
        await store.unpin(kept, "never given")
        with pytest.raises(StoreFull):
            await store.put(b"x")
        assert store.pins() == [Pin(kept, "two")]
        await store.unpin(kept, "two")
        await store.put(b"x")
        assert not store.has(kept)
        assert store.pins() == []


@pytest.mark.parametrize("order", ["forwards", "backwards"])
async def test_a_pin_covers_a_tree_that_arrives_later(opened: Opened, order: str) -> None:
    data = content(10 * FULL)
    blocks = list(split(data))
    async with opened(11 * FULL) as store:
        await store.pin(blocks[-1].id, "fetching")
        for block in blocks if order == "forwards" else reversed(blocks):
            await store.put_block(block)
        assert store.statistics().held_bytes == store.statistics().used_bytes
        other = await store.put(content(FULL // 2, 1))
        await store.put(content(FULL - 1000, 2))
        assert not store.has(other)
        assert await store.get(blocks[-1].id) == data
        await store.unpin(blocks[-1].id, "fetching")
        assert store.statistics().held_bytes == 0
        await store.put(content(5 * FULL, 3))
        assert not store.has(blocks[0].id)
        assert (await store.check()).healthy


async def test_a_block_shared_by_two_pinned_trees_outlives_one_of_them(opened: Opened) -> None:
    async with opened(5 * FULL) as store:
        shared = content(FULL, 1)
        one = await store.put(shared + content(FULL, 2), pin="a")
        two = await store.put(shared + content(FULL, 3), pin="b")
        await store.unpin(one, "a")
        await store.put(content(FULL, 4) + content(FULL, 5))
        assert store.has(ContentId.of(shared))
        assert await store.get(two) == shared + content(FULL, 3)
        assert (await store.check()).healthy


async def test_a_blob_larger_than_the_quota_is_refused_and_pins_survive_it(
    opened: Opened,
) -> None:
    async with opened(30 * FULL) as store:
        pinned = await store.put(content(FULL), pin="kept")
        with pytest.raises(StoreFull):
            await store.put(content(40 * FULL, 1))
        assert await store.get(pinned) == content(FULL)
        # What was left of the attempt makes way.
        whole = await store.put(content(28 * FULL, 2))
        assert await store.missing(whole) == []
        assert (await store.check()).healthy


async def test_a_large_put_keeps_its_own_blocks_while_others_press(opened: Opened) -> None:
    async with opened(60 * FULL) as store:
        data = content(40 * FULL)
        # Half of it is here already, and the oldest there is.
        for block in list(split(data))[:20]:
            await store.put_block(block)

        async def press(number: int) -> None:
            for turn in range(10):
                await store.put(content(FULL, 1000 * number + turn + 1))

        found: list[ContentId] = []

        async def large() -> None:
            found.append(await store.put(data, pin="whole"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(large)
            for number in range(1, 5):
                nursery.start_soon(press, number)
        assert await store.get(found[0]) == data
        assert store.statistics().used_bytes <= 60 * FULL


async def test_a_batch_that_does_not_fit_is_kept_not_at_all(opened: Opened) -> None:
    async with opened(1000) as store:
        await store.put(content(600), pin="kept")
        with pytest.raises(StoreFull):
            await store.commit(
                Write(rows=(Row(Table.JOBS, b"j", b"2"),), blobs=(b"x", content(400, 1)))
            )
        assert store.read(Table.JOBS, b"j") is None
        assert not store.has(ContentId.of(b"x"))
    with pytest.raises(Oversize, match="put large blobs by themselves"):
        Write(blobs=(bytes(9 << 20),))


async def test_a_batch_does_not_evict_what_it_names_itself(opened: Opened) -> None:
    async with opened(3000) as store:
        old = await store.put(content(1000, 1))
        await store.put(content(1000, 2))
        ids = await store.commit(
            Write(blobs=(content(1000, 1), content(1000, 3), content(1000, 4)))
        )
        assert ids[0] == old
        assert all(store.has(one) for one in ids)
        # Evicting it and putting it back would have gone over the quota.
        assert store.statistics().used_bytes == 3000
