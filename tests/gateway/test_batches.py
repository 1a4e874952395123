"""Files of requests and batches over them, with the client that people use."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

import httpx
import openai
import pytest
import trio
from starlette.responses import JSONResponse
from trio.testing import MockClock

from node.gateway import batch_runner, batch_store
from node.gateway.access import NOBODY
from node.gateway.app import _removed_from
from node.gateway.batch_lines import LINE_BYTES_MAX, BatchLine, LineError, read_lines
from node.gateway.batch_runner import LINES_AT_ONCE, BatchRunner
from node.gateway.batch_store import BatchStore, Found
from node.gateway.client_request import ClientRequest
from node.gateway.errors import unavailable
from node.gateway.hot_posts import HotPost
from node.gateway.keys import Keyring, add_key, read_keys, remove_key
from node.gateway.requests import EmbeddingsRequest
from tests.gateway.conftest import Served
from wire.errors import StoreFull

URL: Literal["/v1/embeddings"] = "/v1/embeddings"
ENDED_S = 60.0


def line(name: str, url: str = URL, **body: Any) -> dict[str, Any]:
    wanted = {"model": "hash", "input": name, **body}
    return {"custom_id": name, "method": "POST", "url": url, "body": wanted}


def lines_of(*lines: Any) -> bytes:
    return b"".join(json.dumps(it).encode() + b"\n" for it in lines)


def ended(client: openai.OpenAI, batch: str) -> Any:
    until_s = time.monotonic() + ENDED_S
    while time.monotonic() < until_s:
        found = client.batches.retrieve(batch)
        if found.status not in ("validating", "in_progress", "finalizing", "cancelling"):
            return found
        time.sleep(0.05)
    raise AssertionError("the batch did not end")


def begun(client: openai.OpenAI, data: bytes, endpoint: Any = URL) -> Any:
    file = client.files.create(file=("requests.jsonl", data), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"a": "b"}
    )


def test_a_batch_is_done_and_told_in_files(served: Served) -> None:
    client = served.client()
    lines = [line(f"row-{it}") for it in range(20)]
    lines.insert(3, line("wrong", model="no such model"))
    lines.insert(5, line("odd", input=3.5))
    batch = begun(client, lines_of(*lines))
    assert (batch.status, batch.metadata) == ("validating", {"a": "b"})
    done = ended(client, batch.id)
    assert done.status == "completed"
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (22, 20, 2)
    answers = [json.loads(it) for it in client.files.content(done.output_file_id).text.splitlines()]
    assert [it["custom_id"] for it in answers] == [f"row-{it}" for it in range(20)]
    assert len({it["id"] for it in answers}) == 20
    alone = client.embeddings.create(model="hash", input="row-7", encoding_format="float")
    told = answers[7]["response"]
    assert told["status_code"] == 200
    assert told["request_id"].startswith("baf")
    assert told["body"]["data"][0]["embedding"] == alone.data[0].embedding
    errors = [json.loads(it) for it in client.files.content(done.error_file_id).text.splitlines()]
    assert {it["custom_id"]: it["response"]["status_code"] for it in errors} == {
        "wrong": 404,
        "odd": 400,
    }
    assert all(it["response"]["body"]["error"]["message"] for it in errors)
    assert batch.id in [it.id for it in client.batches.list()]
    with pytest.raises(openai.BadRequestError, match="has ended already"):
        client.batches.cancel(batch.id)


def test_chats_and_completions_are_done_too(served: Served) -> None:
    client = served.client()
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    data = lines_of(
        {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "hash", **chat},
        }
    )
    done = ended(client, begun(client, data, "/v1/chat/completions").id)
    (answer,) = client.files.content(done.output_file_id).text.splitlines()
    assert json.loads(answer)["response"]["body"]["object"] == "chat.completion"
    assert done.error_file_id is None


def test_a_file_with_a_line_that_is_no_request_fails_and_nothing_is_done(served: Served) -> None:
    client = served.client()
    data = lines_of(line("a"), line("a"), line("b", "/v1/other")) + b"{\n"
    done = ended(client, begun(client, data).id)
    assert done.status == "failed"
    found = {it.line: it.code for it in done.errors.data}
    assert found == {2: "duplicate_custom_id", 3: "mismatched_endpoint", 4: "invalid_json_line"}
    assert done.output_file_id is None


def test_files_are_listed_told_and_deleted(served: Served) -> None:
    client = served.client()
    file = client.files.create(file=("x.jsonl", b"{}\n"), purpose="batch")
    assert (file.bytes, file.filename) == (3, "x.jsonl")
    assert client.files.retrieve(file.id).id == file.id
    assert client.files.content(file.id).content == b"{}\n"
    assert file.id in [it.id for it in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    for gone in (file.id, "file-" + "0" * 24, "..%2f..%2fkeys", "batch_" + "0" * 24):
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(gone)
    with pytest.raises(openai.BadRequestError, match="for the purpose 'batch' alone"):
        client.files.create(file=("x.jsonl", b"{}\n"), purpose="fine-tune")
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id=file.id, endpoint=URL, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_" + "0" * 24)


def test_forms_that_are_none_and_pages_are_refused(served: Served) -> None:
    with httpx.Client(base_url=served.url, timeout=60) as http:
        form = {"files": {"file": ("a", b"{}")}, "data": {"purpose": "batch"}}
        assert http.post("/v1/files", **form).status_code == 200  # type: ignore[arg-type]
        page = http.post("/v1/files", headers={"sec-fetch-site": "cross-site"}, **form)  # type: ignore[arg-type]
        assert page.status_code in (400, 403)
        kind = {"content-type": "multipart/form-data; boundary=x"}
        for data in (b"", b"--x\r\n", b"--x--\r\n", b"nothing", b"--x\r\n\r\n\r\n--x--\r\n"):
            assert http.post("/v1/files", content=data, headers=kind).status_code == 400
        assert http.post("/v1/files", content=b"x", headers={"content-type": "multipart/form-data"})
        for path in ("/v1/batches", "/v1/embeddings"):
            assert http.post(path, **form).status_code == 400  # type: ignore[arg-type]
        for query in ("limit=0", "limit=101", "limit=x", "after=nothing"):
            assert http.get(f"/v1/files?{query}").status_code == 400


def test_lines_are_judged_one_by_one() -> None:
    good = lines_of(line("a"))
    assert list(read_lines(good + b"\n  \n", URL)) == [BatchLine(1, "a", line("a")["body"])]

    def code(data: Any) -> str:
        raw = data if isinstance(data, bytes) else lines_of(data)
        (found,) = read_lines(raw, URL)
        assert isinstance(found, LineError)
        return found.code

    assert code(b"") == "empty_file"
    assert code(b"[" * 100_000) == "invalid_json_line"
    assert code(b"x" * (LINE_BYTES_MAX + 1)) == "line_too_long"
    assert code([1]) == "invalid_request"
    assert code({**line("a"), "more": 1}) == "invalid_request"
    assert code({**line("a"), "custom_id": ""}) == "invalid_custom_id"
    assert code({**line("a"), "custom_id": 3}) == "invalid_custom_id"
    assert code({**line("a"), "method": "GET"}) == "invalid_method"
    assert code({**line("a"), "body": []}) == "invalid_body"
    assert code(line("a", stream=True)) == "invalid_body"


class Clocked:
    """A runner over a folder, with an endpoint of the test's."""

    def __init__(self, folder: Path) -> None:
        numbers: Iterator[int] = iter(range(1, 1 << 20))
        self.store = BatchStore(
            folder,
            lambda size: next(numbers).to_bytes(size, "big"),
            lambda: 1_800_000_000 + trio.current_time(),
        )
        self.asked: list[str] = []
        self.refused = 0
        self.took_s = 1.0
        # The input that meets a bug.
        self.broken = ""
        self.runner = self.again()

    def again(self) -> BatchRunner:
        """As after a restart."""
        self.runner = BatchRunner(self.store, {URL: HotPost(EmbeddingsRequest, self.answer)})
        return self.runner

    async def answer(self, asked: EmbeddingsRequest, request: ClientRequest) -> JSONResponse:
        assert request.state.owner in (b"me", b"you")
        if asked.input == self.broken:
            raise RuntimeError("a bug")
        if self.refused:
            self.refused -= 1
            raise unavailable("later", retry_after_s=1.0)
        await trio.sleep(self.took_s)
        self.asked.append(str(asked.input))
        return JSONResponse({"said": asked.input}, headers={"x-baton-task": "task"})

    def batch(self, count: int, owner: bytes = b"me") -> str:
        data = lines_of(*[line(f"r{it}") for it in range(count)])
        file = self.store.keep_file(owner, self.store.stamp(), "x", "batch", [data])
        wanted = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h"}
        asked = {**wanted, "metadata": None}
        found: str = self.store.new_batch(owner, self.store.stamp(), asked)["id"]
        self.runner.look()
        return found

    def now(self, batch: str) -> Found:
        found = self.store.batch(b"me", batch)
        assert found is not None
        return found

    def results(self, batch: str) -> list[str]:
        file = self.now(batch)["output_file_id"]
        data = self.store.read_file(b"me", file).splitlines()
        return [json.loads(it)["response"]["body"]["said"] for it in data]


async def test_a_batch_goes_on_after_a_restart_and_asks_nothing_twice(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one = Clocked(tmp_path)
    batch = one.batch(100)
    with trio.move_on_after(2.5):
        await one.runner.run()
    before = len(one.asked)
    assert 0 < before < 100
    assert one.now(batch)["status"] == "in_progress"
    with trio.move_on_after(60):
        await one.again().run()
    assert one.now(batch)["status"] == "completed"
    assert one.results(batch) == [f"r{it}" for it in range(100)]
    # What was under way at the end is asked again; what was answered is not.
    assert len(one.asked) == 100
    assert not one.store.journal_of(b"me", batch).exists()


async def test_a_batch_that_is_cancelled_tells_what_was_done(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one = Clocked(tmp_path)
    batch = one.batch(200)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.runner.run)
        await trio.sleep(3.5)
        kept = {**one.now(batch), "status": "cancelling"}
        one.store.keep_batch(b"me", kept)
        one.runner.cancel(batch)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    found = one.now(batch)
    assert found["status"] == "cancelled"
    assert one.results(batch) == [f"r{it}" for it in range(found["request_counts"]["completed"])]
    assert len(one.asked) < 3.5 * (LINES_AT_ONCE + 2)


async def test_a_request_that_nobody_can_do_now_is_tried_again_and_then_told(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one = Clocked(tmp_path)
    one.refused = batch_runner.TRIES - 1
    batch = one.batch(1)
    with trio.move_on_after(600):
        await one.runner.run()
    assert one.results(batch) == ["r0"]
    one.refused = batch_runner.TRIES
    batch = one.batch(1)
    with trio.move_on_after(600):
        await one.again().run()
    assert one.now(batch)["output_file_id"] is None
    (told,) = one.store.read_file(b"me", one.now(batch)["error_file_id"]).splitlines()
    assert json.loads(told)["response"]["status_code"] == 503


async def test_a_batch_is_over_after_its_day(autojump_clock: MockClock, tmp_path: Path) -> None:
    one = Clocked(tmp_path)
    one.took_s = 20 * 3600.0
    batch = one.batch(40)
    with trio.move_on_after(30 * 3600):
        await one.runner.run()
    assert one.now(batch)["status"] == "expired"
    assert one.results(batch) == [f"r{it}" for it in range(len(one.asked))]


async def test_an_input_file_that_is_gone_fails_its_batch_alone(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one = Clocked(tmp_path)
    first, second = one.batch(1), one.batch(1)
    one.store.delete_file(b"me", one.now(first)["input_file_id"])
    with trio.move_on_after(60):
        await one.runner.run()
    assert one.now(first)["errors"]["data"][0]["code"] == "missing_file"
    assert one.results(second) == ["r0"]


def test_what_a_key_keeps_is_bounded_and_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_store, "FILES_MAX", 3)
    monkeypatch.setattr(batch_store, "BATCHES_MAX", 2)
    numbers = iter(range(1, 1 << 20))
    store = BatchStore(tmp_path, lambda size: next(numbers).to_bytes(size, "big"), lambda: 1.0)
    for _ in range(3):
        file = store.keep_file(b"a", store.stamp(), "x", "batch", [b"{}"])
    with pytest.raises(StoreFull):
        store.keep_file(b"a", store.stamp(), "x", "batch", [b"{}"])
    assert store.file(b"a", file["id"]) is not None
    assert store.file(b"b", file["id"]) is None
    assert store.file(b"", file["id"]) is None
    assert store.files(b"b") == []
    store.keep_file(b"b", store.stamp(), "x", "batch", [b"{}"])
    assert store.file(b"a", "file-../../x") is None
    first, second = (store.new_batch(b"a", store.stamp(), {})["id"] for _ in range(2))
    with pytest.raises(StoreFull, match="not done yet"):
        store.new_batch(b"a", store.stamp(), {})
    done = {**(store.batch(b"a", first) or {}), "status": "completed"}
    store.keep_batch(b"a", done)
    third = store.new_batch(b"a", store.stamp(), {})["id"]
    assert {it["id"] for it in store.batches(b"a")} == {second, third}
    assert store.under_way() == [(b"a", second), (b"a", third)]


async def test_the_batches_of_a_key_that_is_removed_end_where_they_are(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one = Clocked(tmp_path)
    removed: set[bytes] = set()
    one.runner.is_removed = removed.__contains__
    mine, other = one.batch(200), one.batch(60, b"you")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.runner.run)
        await trio.sleep(3.5)
        removed.add(b"me")
        await trio.sleep(30)
        # One that had not begun ends too.
        later = one.batch(20)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert (one.now(mine)["status"], one.now(later)["status"]) == ("cancelled", "cancelled")
    done = one.now(mine)["request_counts"]["completed"]
    assert 0 < done < 200
    assert one.results(mine) == [f"r{it}" for it in range(done)]
    found = one.store.batch(b"you", other)
    assert found is not None
    assert found["status"] == "completed"


async def test_who_is_removed_is_known_by_the_keys_that_there_are(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    for name in ("a", "b"):
        add_key(file, name, 60, Random(name).randbytes, 0.0)
    keyring, others = Keyring(file), False
    one, two = (it.owner for it in read_keys(file))
    is_removed = _removed_from(keyring, lambda: others)
    assert not any(map(is_removed, (one, two, NOBODY)))
    remove_key(file, "a")
    await trio.sleep(60)
    assert [is_removed(it) for it in (one, two, NOBODY)] == [True, False, False]
    # Who never had a key here is another's client, where such come.
    assert is_removed(b"app")
    others = True
    assert [is_removed(it) for it in (one, b"app")] == [True, False]
