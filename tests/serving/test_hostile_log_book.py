"""Forks of keys that were made for them: they fill neither the disk nor push out the others."""

from pathlib import Path
from random import Random

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.asking.log_watch import kept_fork
from node.serving.log_book import FORKS_MAX, LogBook
from store import Table
from tests.node.network import Outsider, open_network
from wire.content import PeerId
from wire.errors import Refused
from wire.log import FIRST, LogFork, LogHead, LogNews
from wire.signed import sign
from wire.signing import SigningKey


def key_of(seed: int) -> SigningKey:
    return SigningKey(Random(seed).randbytes(32))


def fork_of(key: SigningKey) -> LogFork:
    first, second = (
        sign(
            LogHead(
                began_at_ms=1,
                number=1,
                size=1,
                root=bytes((of,)) * 32,
                previous=FIRST,
                signed_at_ms=1,
            ),
            key,
        ).raw
        for of in (1, 2)
    )
    return LogFork(first=first, second=second)


def test_forks_of_who_is_gone_make_room_first() -> None:
    gone = set[PeerId]()
    book = LogBook(lambda it: it not in gone)
    keys = [key_of(it) for it in range(FORKS_MAX + 3)]
    for key in keys[:FORKS_MAX]:
        assert book.take(fork_of(key)) == key.peer
    gone.update(it.peer for it in keys[10:12])
    for key in keys[FORKS_MAX:]:
        assert book.take(fork_of(key)) == key.peer
    # The two that are gone, and only then the oldest.
    assert {it.peer for it in keys} - set(book.forks) == {keys[it].peer for it in (0, 10, 11)}


async def test_as_many_forks_are_on_the_disk_as_are_known(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        asker = await network.start()
        watch = asker.log_watch
        watch.role.book.knows = lambda _: True
        watch.role.book.forks.items_max = 4
        keys = [key_of(it) for it in range(20)]
        for key in keys:
            watch.found(fork_of(key))
            await wait_all_tasks_blocked()
        await network.settled()
        rows = asker.dependencies.store.scan(Table.VERDICTS, prefix=b"fork:", limit=100)
        assert len(rows) == 4
        kept = [it.peer for it in keys if kept_fork(watch.answers, it.peer) is not None]
        assert set(kept) == set(watch.role.book.forks) == {it.peer for it in keys[-4:]}


async def test_one_peer_that_tells_news_all_the_time_leaves_room_for_others(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        node = await network.start()
        await network.settled()

        async def tells(peer: Outsider) -> bool:
            async with peer.peers.call(node.peers.me, deadline_s=20) as call:
                await call.send(LogNews(heads=(), forks=()))
                try:
                    await call.expect(LogNews)
                except Refused:
                    return False
                return True

        async with network.outsider() as loud, network.outsider() as other:
            assert await tells(loud)
            for _ in range(20):
                await trio.sleep(0.5)
                assert not await tells(loud)
            assert await tells(other)
            await trio.sleep(30)
            assert await tells(loud)
