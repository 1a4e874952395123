"""Answers without end: the latest are found among any number, and the oldest make room."""

from pathlib import Path

import pytest

from node.asking.answers import Answers, KeptAnswer, Later
from node.asking.old_answers import BY_TIME, HELD_SHARE_MAX, LATER, latest_rows
from store import Row, Store, Table, Write, open_memory_store, open_store
from tests.node.asking import SECRET, receipt_of, task_of
from tests.p2p.transports import key_of
from wire.content import ContentId
from wire.errors import Missing
from wire.receipt import Answer
from wire.signed import sign
from wire.tree import name_of

NOW_S = 1_800_000_000.0
ASKER, WORKER = key_of("asker"), key_of("worker")


async def kept(answers: Answers, number: int, output: bytes, source: bytes) -> ContentId:
    """Keep an answer with this output to a task of its own; the task's id."""
    wall_s = NOW_S + number
    task = task_of(ASKER, wall_s, source=name_of(source), nonce=number.to_bytes(16, "big"))
    record = Answer(
        task=task.raw,
        receipts=(receipt_of(task, WORKER, output).raw,),
        secret=SECRET,
        candidates=(),
        verdicts=(),
        attempts=1,
        answered_at_ms=int(wall_s * 1000),
        duration_ms=1,
    )
    answer = sign(record, ASKER)
    await answers.keep([KeptAnswer(task, answer, output, name_of(output))])
    return task.id


async def test_the_latest_are_found_among_more_than_a_store_reads_at_once() -> None:
    async with open_memory_store(quota_bytes=1 << 26) as store:
        # Three are of the same moment each.
        moments = [(it // 3).to_bytes(8, "big") + bytes((it % 3,)) for it in range(20_000)]
        keys = [BY_TIME + it for it in moments]
        for begin in range(0, len(keys), 5000):
            rows = tuple(Row(Table.ANSWERS, key, b"id") for key in keys[begin : begin + 5000])
            await store.commit(Write(rows=rows))
        assert [key for key, _ in latest_rows(store, 200)] == keys[-200:]
        assert [key for key, _ in latest_rows(store, 1)] == keys[-1:]


async def test_fewer_answers_than_are_asked_for_are_all_found() -> None:
    async with open_memory_store(quota_bytes=1 << 26) as store:
        assert latest_rows(store, 200) == []
        answers = Answers(store)
        for number in range(5):
            await kept(answers, number, b"%d" % number, b"%d" % number)
        found = await answers.latest(200)
        assert [it.record.answered_at_ms for it in found] == [
            int((NOW_S + it) * 1000) for it in (4, 3, 2, 1, 0)
        ]


def share(store: Store) -> float:
    figures = store.statistics()
    return figures.held_bytes / figures.quota_bytes


async def test_answers_without_end_do_not_fill_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.asking.old_answers.KEPT_MIN", 10)
    async with open_memory_store(quota_bytes=1 << 18) as store:
        answers = Answers(store)
        # So many would need twice the quota.
        tasks = [
            await kept(answers, number, b"%d" % number + bytes(4000), b"%d" % number)
            for number in range(110)
        ]
        assert HELD_SHARE_MAX / 2 < share(store) <= 1.0
        with pytest.raises(Missing):
            await answers.of_task(tasks[0])
        for task in tasks[-10:]:
            assert (await answers.of_task(task)).output.endswith(bytes(4000))
        # There is room for what has to be brought in to do a leg.
        await store.put(bytes(10_000))


async def test_what_was_found_later_of_an_answer_goes_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.asking.old_answers.KEPT_MIN", 10)
    async with open_memory_store(quota_bytes=1 << 17) as store:
        answers = Answers(store)
        for number in range(60):
            task = await kept(answers, number, b"%d" % number + bytes(4000), b"%d" % number)
            await answers.judged((await answers.of_task(task)).answer, Later.HELD, ())
        left = len(store.scan(Table.ANSWERS, prefix=BY_TIME))
        assert len(store.scan(Table.VERDICTS, prefix=LATER)) == left < 60


async def test_on_a_disk_that_is_nearly_full_new_answers_take_the_place_of_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.asking.old_answers.KEPT_MIN", 10)
    monkeypatch.setattr("store.quota.SMALL_BYTES", 1000)
    async with open_store(tmp_path, quota_bytes=1 << 30) as store:
        answers = Answers(store)
        for number in range(60):
            await kept(answers, number, b"%d" % number + bytes(4000), b"%d" % number)
        before_bytes = store.statistics().used_bytes
        monkeypatch.setattr("store.quota.nearly_full", lambda _: 0)
        for number in range(60, 180):
            task = await kept(answers, number, b"%d" % number + bytes(4000), b"%d" % number)
            assert (await answers.of_task(task)).output.startswith(b"%d" % number)
        assert store.statistics().used_bytes < 1.06 * before_bytes


async def test_an_output_that_a_later_answer_has_too_is_held_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.asking.old_answers.KEPT_MIN", 2)
    async with open_memory_store(quota_bytes=1 << 17) as store:
        answers = Answers(store)
        same = b"the same" + bytes(1000)
        await kept(answers, 0, same, b"asked twice")
        again = await kept(answers, 1, same, b"asked twice")
        number = 2
        while share(store) <= HELD_SHARE_MAX:
            await kept(answers, number, b"%d" % number + bytes(1000), b"%d" % number)
            number += 1
        monkeypatch.setattr("node.asking.old_answers.KEPT_MIN", number - 1)
        await kept(answers, number, b"one more", b"one more")
        assert (await answers.of_task(again)).output == same
