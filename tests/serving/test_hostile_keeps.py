"""Peers that ask one to keep things and mean ill: it costs them, and nobody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from node.peer import Node
from node.serving.keep_role import EXPIRE_EVERY_S
from node.serving.kept_for_others import FAILED_S, FETCH_S_MIN
from p2p.peers import Handler
from p2p.typed_call import TypedCall
from store import Store, Table, open_memory_store, open_store
from tests.node.network import I, Network, Outsider, S, open_network
from wire import limits
from wire.content import ContentId
from wire.errors import Missing, Refused
from wire.kinds import RefusalCode
from wire.message import BlockReply, Keep, Keeping, Message, Want
from wire.tree import TreeNode, name_of
from wire.unixfs import Link, UnixfsId, UnixfsNode

QUOTA = 16 << 20
# An eighth of it: what one peer may have kept.
EACH = QUOTA // 8
BLOB = Random(1).randbytes(1 << 20)
NAME = name_of(BLOB)
BLOCK = BLOB[: limits.BLOCK_BYTES_MAX]


@asynccontextmanager
async def keeper_and_asker(
    folder: Path,
) -> AsyncIterator[tuple[Network, Node, Store, Outsider]]:
    """A keeper with a small store, and a peer that asks it for what a test says."""
    async with open_network(folder) as network, open_memory_store(quota_bytes=QUOTA) as store:
        keeper = await network.start(S, store=store)
        async with network.outsider() as asker:
            yield network, keeper, store, asker


async def ask(
    asker: Outsider, keeper: Node, content: ContentId, size_bytes: int, keep_s: int = 86_400
) -> int:
    async with asker.peers.call(keeper.peers.me, deadline_s=120) as call:
        await call.send(
            Keep(content=content, size_bytes=size_bytes, keep_s=keep_s, deadline_ms=100_000)
        )
        return (await call.expect(Keeping)).keep_s


async def refusal(asker: Outsider, keeper: Node, content: ContentId, size_bytes: int) -> Refused:
    with pytest.raises(Refused) as caught:
        await ask(asker, keeper, content, size_bytes)
    return caught.value


async def test_what_is_asked_for_is_kept_over_a_restart_and_until_it_is_over(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with keeper_and_asker(tmp_path) as (network, keeper, store, asker):
        await asker.store.put(BLOB)
        assert await ask(asker, keeper, NAME, len(BLOB), keep_s=120) == 120
        assert await store.get(NAME) == BLOB
        network.kill(keeper)
        # Its memory of it is gone with the process; what is on the disk is not.
        store.soft_unpin(NAME)
        again = await network.start(S, store=store, number=7)
        await trio.sleep(1)
        assert list(again.keep_role.kept_items.items) == [NAME]
        await fill(store, 2)
        assert await store.get(NAME) == BLOB
        await trio.sleep(120 + EXPIRE_EVERY_S)
        assert not again.keep_role.kept_items.items
        assert store.read(Table.KEPT, NAME) is None
        # Twice: what was read lately is spared once.
        await fill(store, 3)
        await fill(store, 4)
        assert await store.missing(NAME)


async def fill(store: Store, seed: int) -> None:
    """Other content, as much as the store may have; none of it is pinned."""
    random = Random(seed)
    for _ in range(QUOTA // (1 << 20)):
        await store.put(random.randbytes(1 << 20))


async def test_ten_gigabytes_are_refused_before_a_byte_is_fetched(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with keeper_and_asker(tmp_path) as (_, keeper, store, asker):
        asker.answer(Want, asker.blobs.on_want)
        refused = await refusal(asker, keeper, NAME, 10 << 30)
        assert refused.code is RefusalCode.UNSUPPORTED
        assert f"at most {EACH} for one peer" in refused.message
        # The same, said to be little: the root tells.
        node = TreeNode(10 << 30, (ContentId.of_tree(b"a gigabyte"),) * 10).to_bytes()
        root = ContentId.of_tree(node)

        async def lie(call: TypedCall, _: Message) -> None:
            await call.send(BlockReply(data=node))

        asker.answer(Want, lie)
        refused = await refusal(asker, keeper, root, 1000)
        assert "at most 1000 are allowed" in refused.message
        assert len(asker.asked) == 1
        assert store.statistics().blocks == 0
        assert not keeper.keep_role.kept_items.items


async def test_the_same_a_thousand_times_is_fetched_and_written_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with keeper_and_asker(tmp_path) as (_, keeper, store, asker):
        asker.answer(Want, asker.blobs.on_want)
        await asker.store.put(BLOB)
        await ask(asker, keeper, NAME, len(BLOB))
        wants, commits = len(asker.asked), store.statistics().commits
        for _ in range(300):
            assert 86_000 < await ask(asker, keeper, NAME, len(BLOB)) <= 86_400
        assert len(asker.asked) == wants
        # The addresses of known peers are written now and then.
        assert store.statistics().commits <= commits + 5
        assert keeper.keep_role.kept_items.used_bytes == len(BLOB)
        # Hundreds at once are answered too: kept, or asked to come again.
        other = b"another"
        await asker.store.put(other)
        answers: list[object] = []

        async def one() -> None:
            try:
                answers.append(await ask(asker, keeper, ContentId.of(other), len(other)))
            except Refused as error:
                answers.append(error.code)

        async with trio.open_nursery() as nursery:
            for _ in range(700):
                nursery.start_soon(one)
        assert set(answers) <= {86_400, 86_399, RefusalCode.BUSY}
        assert 86_400 in answers
        assert len(asker.asked) == wants + 1


async def garbage(call: TypedCall, _: Message) -> None:
    await call.send(BlockReply(data=b"not what was asked for"))


async def silence(call: TypedCall, _: Message) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("answer", [garbage, silence])
async def test_content_that_does_not_come_is_not_kept_and_the_fetch_counts_for_a_while(
    autojump_clock: MockClock, tmp_path: Path, answer: Handler
) -> None:
    async with keeper_and_asker(tmp_path) as (_, keeper, store, asker):
        asker.answer(Want, answer)
        since_s = trio.current_time()
        refused = await refusal(asker, keeper, NAME, EACH)
        assert refused.code in (RefusalCode.NOT_FOUND, RefusalCode.LATE)
        assert trio.current_time() - since_s < FETCH_S_MIN + EACH / (128 << 10) + 5
        assert store.statistics().blocks == 0
        # What one peer must not send, and how long it may be silent, is as in every conversation.
        assert keeper.peers.scores.cost(asker.peers.me, trio.current_time()) > 0
        assert not keeper.keep_role.kept_items.items
        # Nothing else is fetched for it for a while. Others are not concerned.
        other = ContentId.of(b"other")
        assert (await refusal(asker, keeper, other, 5)).code is RefusalCode.BUSY
        await trio.sleep(FAILED_S)
        await asker.store.put(b"other")
        asker.answer(Want, asker.blobs.on_want)
        assert await ask(asker, keeper, other, 5) == 86_400


async def test_a_fetch_for_others_holds_up_nobody_who_wants_the_same(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with keeper_and_asker(tmp_path) as (network, keeper, _, asker):
        asker.answer(Want, silence)
        holder = await network.start(S)
        await holder.dependencies.store.put(BLOB)
        await network.settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refusal, asker, keeper, NAME, EACH)
            await trio.sleep(0.5)
            assert keeper.keep_role.kept_items.used_bytes == EACH
            # The silent peer is asked beside the other, and given up before its own fetch is.
            await keeper.blobs.fetch(NAME, [holder.peers.me], deadline_s=40)
            assert keeper.keep_role.kept_items.used_bytes == EACH


async def test_nobody_but_who_asks_is_asked_for_the_content(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with keeper_and_asker(tmp_path) as (network, keeper, _, asker):
        holder = await network.start(S)
        await holder.dependencies.store.put(BLOB)
        await network.settled()
        refused = await refusal(asker, keeper, NAME, len(BLOB))
        assert refused.code is RefusalCode.NOT_FOUND
        # One small message to one peer would else be many to all.
        assert holder.blobs.served == 0
        assert holder.peers.me in keeper.peers.connected()


async def test_a_size_that_is_not_true_is_refused(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with keeper_and_asker(tmp_path) as (_, keeper, _, asker):
        await asker.store.put(BLOB)
        for size_bytes in (len(BLOB) - 1, len(BLOB) + 1):
            refused = await refusal(asker, keeper, NAME, size_bytes)
            assert refused.code is RefusalCode.MALFORMED
        assert await ask(asker, keeper, NAME, len(BLOB)) == 86_400
        assert (await refusal(asker, keeper, NAME, 7)).code is RefusalCode.MALFORMED


async def test_the_owner_has_its_room_whatever_others_had_kept(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with keeper_and_asker(tmp_path) as (_, keeper, store, asker):
        await asker.store.put(BLOB)
        await ask(asker, keeper, NAME, len(BLOB))
        random = Random(3)
        mine = [
            await store.put(random.randbytes(1 << 20), pin="put")
            for _ in range(QUOTA // (1 << 20) - 1)
        ]
        # All of the quota but the bookkeeping of its trees is the owner's.
        assert not any([await store.missing(it) for it in mine])
        await trio.sleep(EXPIRE_EVERY_S)
        with pytest.raises(Missing):
            await store.get(NAME)
        assert not keeper.keep_role.kept_items.items
        assert "the owner" in (await refusal(asker, keeper, NAME, len(BLOB))).message


async def test_a_peer_that_does_not_store_for_others_or_is_paused_says_so(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        keeper = await network.start(I)
        async with network.outsider() as asker:
            await asker.store.put(BLOB)
            refused = await refusal(asker, keeper, NAME, len(BLOB))
            assert refused.code is RefusalCode.NOT_WILLING
            keeper.keep_role.willing = True
            keeper.pause("the owner plays")
            refused = await refusal(asker, keeper, NAME, len(BLOB))
            assert refused.code is RefusalCode.PAUSED
            assert "the owner plays" in refused.message
            keeper.pause("")
            assert await ask(asker, keeper, NAME, len(BLOB)) == 86_400


async def ask_tree(
    asker: Outsider,
    keeper: Node,
    links: list[Link],
    counted_bytes: int,
    *leaves: bytes,
    keep_s: int = 86_400,
) -> str:
    """Why the keeper does not keep a folder of these links; empty if it does."""
    node = UnixfsNode(tuple(links), None).to_bytes()
    for data in (node, *leaves):
        await asker.store.put(data)
    try:
        async with asker.peers.call(keeper.peers.me, deadline_s=120) as call:
            await call.send(
                Keep(
                    content=ContentId.of(node),
                    size_bytes=counted_bytes,
                    keep_s=keep_s,
                    deadline_ms=100_000,
                    unixfs=True,
                )
            )
            await call.expect(Keeping)
    except Refused as error:
        return error.message
    return ""


async def test_folders_that_are_not_what_was_said_are_not_kept(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeper_and_asker(tmp_path) as (_, keeper, store, asker):
        a, b = Link(b"a", UnixfsId.of_leaf(b"a"), 1), Link(b"b", UnixfsId.of_leaf(b"b"), 1)
        # A page of the disk for each block, so that a thousand small ones are not free.
        page = 4096
        for counted_bytes, words in ((3 * page - 1, "counts as more"), (3 * page + 1, "not 12289")):
            assert words in await ask_tree(asker, keeper, [a, b], counted_bytes, b"a", b"b")
        assert "at most" in await ask_tree(asker, keeper, [a, b], 10 << 30)
        # A leaf of another size than the folder says, one that is not there, and one too large.
        longer = Link(b"a", UnixfsId.of_leaf(b"a"), 2)
        assert await ask_tree(asker, keeper, [longer], 2 * page, b"a")
        nowhere = Link(b"a", UnixfsId.of_leaf(b"nowhere"), 7)
        assert "nobody" in await ask_tree(asker, keeper, [nowhere], 2 * page)
        assert "two sizes" in await ask_tree(
            asker, keeper, [a, Link(b"b", UnixfsId.of_leaf(b"a"), 2)], 2 * page, b"a"
        )
        huge = Link(b"a", UnixfsId.of_leaf(b"a"), 1 << 19)
        assert "a block of 524288 bytes" in await ask_tree(asker, keeper, [huge], 1 << 20, b"a")
        # Nor where the leaf is here already: a folder of large blocks is none of small ones.
        await store.put(large := bytes(1 << 15))
        small = Link(b"a", UnixfsId.of_leaf(large), 1)
        assert "32768 bytes, not 1" in await ask_tree(asker, keeper, [small], 2 * page)
        # A node that is none, under the name of one.
        none = Link(b"a", UnixfsId.of_node(b"none"), 4)
        assert await ask_tree(asker, keeper, [none], 2 * page, b"none")
        with monkeypatch.context() as small:
            small.setattr(limits, "KEPT_BLOCKS_MAX", 2)
            assert "more than 2 blocks" in await ask_tree(asker, keeper, [a, b], 3 * page)
        assert not keeper.keep_role.kept_items.items
        assert not store._recency.soft  # type: ignore[attr-defined]
        # Honest: and whoever asks for the root as a mere block meanwhile is not in its way.
        root = UnixfsNode((a, b), None).to_bytes()
        assert await ask(asker, keeper, ContentId.of(root), len(root))
        assert not await ask_tree(asker, keeper, [a, b], 3 * page, b"a", b"b")
        assert len(keeper.keep_role.kept_items.items) == 2


async def test_a_folder_stays_over_a_restart_and_until_it_is_over(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with keeper_and_asker(tmp_path) as (network, keeper, store, asker):
        link = Link(b"a", UnixfsId.of_leaf(BLOCK), len(BLOCK))
        root = UnixfsId.of_node(UnixfsNode((link,), None).to_bytes())
        counted_bytes = 4096 + len(BLOCK)
        assert not await ask_tree(asker, keeper, [link], counted_bytes, BLOCK, keep_s=120)
        network.kill(keeper)
        # Its memory of it is gone with the process; what is on the disk is not.
        store.soft_unpin(root)
        again = await network.start(S, store=store, number=7)
        await trio.sleep(1)
        assert list(again.keep_role.kept_items.items) == [root]
        await fill(store, 2)
        assert await store.get(ContentId.of(BLOCK)) == BLOCK
        await trio.sleep(120 + EXPIRE_EVERY_S)
        assert not again.keep_role.kept_items.items
        assert store.read(Table.KEPT, root) is None
        # Twice: what was read lately is spared once.
        await fill(store, 3)
        await fill(store, 4)
        assert not store.has(ContentId.of(BLOCK))


@pytest.mark.parametrize("full_at_start", [False, True])
async def test_on_a_disk_that_is_nearly_full_others_get_a_part_of_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at_start: bool
) -> None:
    monkeypatch.setattr("store.quota.SMALL_BYTES", 1000)
    free_bytes: list[int | None] = [0 if full_at_start else None]
    monkeypatch.setattr("store.quota.nearly_full", lambda _: free_bytes[0])
    async with (
        open_network(tmp_path) as network,
        open_store(tmp_path / "kept", quota_bytes=QUOTA) as store,
    ):
        if full_at_start:
            store.statistics()
        keeper = await network.start(S, store=store)
        free_bytes[0] = None
        own = [await store.put(Random(it).randbytes(1 << 20)) for it in range(10, 13)]
        async with network.outsider() as asker:
            await asker.store.put(BLOB)
            free_bytes[0] = 0
            assert "at most" in str(await refusal(asker, keeper, NAME, len(BLOB)))
            assert all(map(store.has, own))
            free_bytes[0] = None
            assert await ask(asker, keeper, NAME, len(BLOB)) == 86_400
