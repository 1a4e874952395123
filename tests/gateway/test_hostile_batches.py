"""Batches that are made to hurt: each ends by itself, and nobody else's is the worse for it."""

import json
from pathlib import Path

import openai
import pytest
import trio
from trio.testing import MockClock

from node.gateway import batch_runner
from node.gateway.batch_store import BatchStore, Found
from tests.gateway.conftest import Served
from tests.gateway.test_batches import URL, Clocked, begun, ended, line, lines_of
from wire.errors import StoreFull


def test_a_line_that_no_request_could_be_fails_its_batch_alone(served: Served) -> None:
    client = served.client()
    half = b'{"custom_id":"%s","method":"POST","url":"/v1/embeddings","body":%s}\n'
    deep = b'{"model":"hash","input":"a","user":' + b"[" * 900 + b"]" * 900 + b"}"
    data = half % (rb"\ud800", b"{}") + half % (b"deep", deep)
    done = ended(client, begun(client, data).id)
    codes = {it.line: it.code for it in done.errors.data}
    assert codes == {1: "invalid_custom_id", 2: "invalid_json_line"}
    odd = half % (b"odd", rb'{"model":"hash","input":"a","\ud800":1}')
    done = ended(client, begun(client, odd).id)
    (told,) = client.files.content(done.error_file_id).text.splitlines()
    assert json.loads(told)["response"]["status_code"] == 400


def test_a_large_file_comes_back_whole_and_results_are_no_requests(served: Served) -> None:
    client = served.client()
    data = bytes(range(256)) * 4096
    file = client.files.create(file=("x.jsonl", data), purpose="batch")
    assert client.files.content(file.id).content == data
    done = ended(client, begun(client, lines_of(line("a"))).id)
    with pytest.raises(openai.BadRequestError, match="for the purpose 'batch'"):
        client.batches.create(
            input_file_id=done.output_file_id, endpoint=URL, completion_window="24h"
        )


async def test_a_bug_that_a_line_meets_is_the_answer_of_that_line(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one = Clocked(tmp_path)
    one.broken = "r1"
    batch = one.batch(3)
    with trio.move_on_after(60):
        await one.runner.run()
    assert one.results(batch) == ["r0", "r2"]
    (told,) = one.store.read_file(b"me", one.now(batch)["error_file_id"]).splitlines()
    assert json.loads(told)["response"]["status_code"] == 500


async def test_a_batch_that_cannot_even_be_ended_leaves_the_others_alone(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Clocked(tmp_path)
    first, second = one.batch(1), one.batch(1)
    keep = BatchStore.keep_batch

    def keep_batch(self: BatchStore, owner: bytes, batch: Found) -> None:
        if batch["id"] == first:
            raise StoreFull("no room left")
        keep(self, owner, batch)

    monkeypatch.setattr(BatchStore, "keep_batch", keep_batch)
    with trio.move_on_after(60):
        await one.runner.run()
    assert one.results(second) == ["r0"]
    assert one.now(first)["status"] == "validating"
    monkeypatch.undo()
    # A file of another that is damaged is in nobody's way either.
    (one.store.folder / b"me".hex() / f"batch_{'0' * 24}.json").write_bytes(b"{")
    with trio.move_on_after(60):
        await one.again().run()
    assert one.results(first) == ["r0"]


async def test_batches_of_one_key_do_not_keep_others_waiting(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one = Clocked(tmp_path)
    one.took_s = 3600.0
    mine = [one.batch(64) for _ in range(8)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.runner.run)
        await trio.sleep(1)
        one.took_s = 1.0
        other = one.batch(1, b"you")
        await trio.sleep(60)
        assert one.store.batch(b"you", other)["status"] == "completed"  # type: ignore[index]
        assert one.now(mine[-1])["status"] == "validating"
        await trio.sleep(6 * 3600)
        # All the same they are all done, one after the other.
        assert {one.now(it)["status"] for it in mine} == {"completed"}
        nursery.cancel_scope.cancel()


async def test_results_for_which_there_is_no_room_end_their_batch(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Clocked(tmp_path)
    first = one.batch(300)
    monkeypatch.setattr(batch_runner, "BYTES_MAX", one.store.used_bytes(b"me") + 5000)
    with trio.move_on_after(600):
        await one.runner.run()
    found = one.now(first)
    assert (found["status"], found["errors"]["data"][0]["code"]) == ("failed", "storage")
    assert len(one.asked) < 200
    assert not one.store.journal_of(b"me", first).exists()
    monkeypatch.undo()
    # An answer that a journal would not read back is told as one.
    monkeypatch.setattr(batch_runner, "ANSWER_BYTES_MAX", 13)
    second = one.batch(11)
    with trio.move_on_after(600):
        await one.again().run()
    assert one.results(second) == [f"r{it}" for it in range(10)]
    (told,) = one.store.read_file(b"me", one.now(second)["error_file_id"]).splitlines()
    assert json.loads(told)["response"]["body"]["error"]["code"] == "answer_too_large"


@pytest.mark.parametrize("left", [b"", b"baton rows 1\n\0\0"])
async def test_a_journal_that_a_crash_left_without_its_head_is_begun_again(
    autojump_clock: MockClock, tmp_path: Path, left: bytes
) -> None:
    one = Clocked(tmp_path)
    batch = one.batch(2)
    one.store.journal_of(b"me", batch).write_bytes(left)
    with trio.move_on_after(60):
        await one.runner.run()
    assert one.results(batch) == ["r0", "r1"]
