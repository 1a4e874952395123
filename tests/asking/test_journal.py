"""The journal has exactly the tasks that were promised and have not ended, after any crash."""

from collections.abc import Sequence
from random import Random

import pytest

from node.asking.journal import ROW_BYTES_MAX, Journal, Journaled, JournalEntry
from node.asking.run import TaskState
from store import Pin, Row, Store, Table, Write, open_memory_store
from tests.node.asking import SECRET, task_of
from tests.p2p.transports import key_of
from wire.codec import pack
from wire.content import ContentId
from wire.errors import StoreFull
from wire.tree import name_of

WALL_S = 1_800_000_000.0
ASKER = key_of("asker")


def journaled(number: int, size_bytes: int = 30) -> Journaled:
    data = number.to_bytes(4, "big") * (size_bytes // 4 + 1)
    task = task_of(ASKER, WALL_S, source=name_of(data), nonce=number.to_bytes(16, "big"))
    run = TaskState(task, SECRET, 0.0, owner=b"owner" * (number % 2))
    run.inline = data if len(data) <= ROW_BYTES_MAX else None
    return Journaled(run, data)


async def end(journal: Journal, store: Store, tasks: Sequence[ContentId]) -> None:
    async with journal.ending_of(tasks) as ending:
        await store.commit(Write(rows=ending.rows, unpins=ending.unpins))


def by_id(entries: Sequence[JournalEntry]) -> dict[ContentId, tuple[int, bytes, bytes | None]]:
    return {it.task.id: (it.attempt, it.owner, it.input) for it in entries}


@pytest.mark.parametrize("seed", range(4))
async def test_after_any_crash_it_has_what_was_promised_and_has_not_ended(seed: int) -> None:
    random, number = Random(seed), 0
    async with open_memory_store(quota_bytes=1 << 28) as store:
        journal, due = Journal(store), dict[ContentId, Journaled]()
        for _ in range(60):
            match random.randrange(5):
                case 0 | 1:
                    sizes = random.choices((0, 30, 5000, 40_000, 70_000), k=random.randrange(1, 9))
                    some = [journaled(number + at, size) for at, size in enumerate(sizes)]
                    number += len(some)
                    await journal.add(some)
                    due |= {it.run.task.id: it for it in some}
                case 2 if due:
                    ended = random.sample([*due], random.randrange(1, len(due) + 1))
                    await end(journal, store, ended)
                    for it in ended:
                        del due[it]
                case 3 if due:
                    run = random.choice([*due.values()]).run
                    run.attempt += 1
                    await journal.renew(run)
                case _:
                    # It stopped, and was started again.
                    journal = Journal(store)
                    journal.read(1000)
            found = by_id(Journal(store).read(1000))
            assert found == {
                key: (it.run.attempt, it.run.owner, it.run.inline) for key, it in due.items()
            }
            pinned = {name_of(it.input or b"") for it in due.values() if it.run.inline is None}
            assert {it.id for it in store.pins()} == pinned
            for blob in pinned:
                assert len(await store.get(blob)) > ROW_BYTES_MAX
        await end(journal, store, [*due])
        assert store.scan(Table.JOURNAL) == []
        assert not store.pins()


async def test_tasks_that_come_together_share_rows_as_far_as_they_fit() -> None:
    async with open_memory_store(quota_bytes=1 << 28) as store:
        await Journal(store).add([journaled(it) for it in range(50)])
        assert len(store.scan(Table.JOURNAL)) == 1
        await Journal(store).add([journaled(it, 20_000) for it in range(100, 110)])
        assert len(store.scan(Table.JOURNAL)) == 5


async def test_a_row_of_the_format_before_is_read_and_ends() -> None:
    async with open_memory_store(quota_bytes=1 << 28) as store:
        old = [journaled(it) for it in range(2)]
        for it in old:
            task, owner = it.run.task, [it.run.owner] if it.run.owner else []
            row = Row(Table.JOURNAL, task.id, pack([task.raw, SECRET, 3, *owner]))
            pin = Pin(name_of(it.input or b""), "journal")
            await store.commit(Write(rows=(row,), blobs=(it.input or b"",), pins=(pin,)))
        journal = Journal(store)
        found = by_id(journal.read(1000))
        assert found == {it.run.task.id: (3, it.run.owner, None) for it in old}
        old[0].run.attempt = 4
        await journal.renew(old[0].run)
        again = by_id(Journal(store).read(1000))
        assert again[old[0].run.task.id] == (4, b"", None)
        await end(journal, store, [it.run.task.id for it in old])
        assert not store.scan(Table.JOURNAL)
        assert not store.pins()


async def test_what_cannot_be_written_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_memory_store(quota_bytes=1 << 28) as store:
        journal, tasks = Journal(store), [journaled(it) for it in range(4)]
        await journal.add(tasks[:3])
        ids = [it.run.task.id for it in tasks]

        async def full(batch: object) -> None:
            raise StoreFull("no room")

        with monkeypatch.context() as patch:
            patch.setattr(type(store), "commit", lambda _, batch: full(batch))
            for failing in (
                end(journal, store, ids[:2]),
                journal.renew(tasks[0].run),
                journal.add(tasks[3:]),
            ):
                with pytest.raises(StoreFull):
                    await failing
        await end(journal, store, ids[:1])
        assert [*by_id(Journal(store).read(9))] == ids[1:3]
        await journal.add(tasks[3:])
        await end(journal, store, ids[1:])
        assert not store.scan(Table.JOURNAL)
