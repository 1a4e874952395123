"""Batches at work: each line of a file asked as its client might ask it, journaled, told as files.

A batch goes on after a restart: what its journal has is not asked again. `BATCHES_AT_ONCE` are at
work, those of one key never at all places where others may come; the tasks of each count as its
key's. Whatever goes wrong with one batch ends that one alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import trio
from pydantic import ValidationError
from starlette.responses import Response

from node.gateway.batch_lines import ERRORS_MAX, BatchLine, LineError, answer_of, read_lines
from node.gateway.batch_store import BYTES_MAX, UNDER_WAY, BatchStore, Found, Stamp
from node.gateway.client_request import DirectRequest, RawHeaders, RequestState
from node.gateway.errors import BUG, ErrorDetail, HttpError, fault_of
from node.gateway.hot_posts import HotPost
from node.gateway.json_body import words_of
from node.gateway.shares import Shares
from node.rows.in_order import in_order
from node.rows.journal import FRAME_BYTES_MAX, RowJournal, read_frames
from wire.errors import BatonError, InputError, StoreFull

BATCHES_AT_ONCE = 4
LINES_AT_ONCE = 16
# A request that nobody can do now is tried again so often, and after so long at most.
TRIES = 6
WAIT_S_MAX = 30.0
# A journal reads no more back in one frame.
ANSWER_BYTES_MAX = FRAME_BYTES_MAX - (64 << 10)
_LATER = frozenset({429, 503})
# The status, the task, the body, and for how long to wait before the next try.
_Told = tuple[int, str, bytes, float]
_FILES = ("output_file_id", "error_file_id")


@dataclass(slots=True)
class BatchRunner:
    """Does the batches in a store; `posts` are the endpoints, by their paths.

    `is_sole` says whether there is only one caller; `note` is told of what nobody expected.
    """

    store: BatchStore
    posts: Mapping[str, HotPost]
    is_sole: Callable[[], bool] = lambda: False
    note: Callable[[str], None] = lambda _: None
    # Whether the key is gone whose batches these are: they end where they are.
    is_removed: Callable[[bytes], bool] = lambda _: False
    # Held while a batch is read and kept again, so that no change to it is lost.
    changing: trio.Lock = field(default_factory=trio.Lock)
    _woken: trio.Event = field(default_factory=trio.Event)
    _running: dict[str, trio.CancelScope] = field(default_factory=dict)
    # Batches that could be neither done nor ended.
    _left: set[str] = field(default_factory=set)
    # Of those that run: how many requests there are, and what came of them so far.
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def look(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def cancel(self, batch: str) -> None:
        """End a batch where it is; what is done of it is told."""
        if (scope := self._running.get(batch)) is not None:
            scope.cancel()
        self.look()

    def counts_of(self, batch: Found) -> dict[str, int]:
        """How far a batch is now."""
        counts: dict[str, int] = self.counts.get(batch["id"]) or batch["request_counts"]
        return counts

    async def run(self) -> None:
        """Do whatever there is to do, for ever."""
        places = Shares(BATCHES_AT_ONCE, self.is_sole)
        async with trio.open_nursery() as nursery:
            while True:
                self._woken = trio.Event()
                for owner, batch in await self._under_way():
                    is_known = batch in self._running or batch in self._left
                    if not is_known and places.take(owner):
                        self._running[batch] = trio.CancelScope()
                        nursery.start_soon(self._one, owner, batch, places)
                await self._woken.wait()

    async def _under_way(self) -> list[tuple[bytes, str]]:
        try:
            found: list[tuple[bytes, str]] = await _in_thread(self.store.under_way)
        except BatonError as error:
            # Whoever begins the next batch has it looked at again.
            self.note(f"batches: {error}")
            return []
        return found

    async def _one(self, owner: bytes, name: str, places: Shares) -> None:
        try:
            batch = await _in_thread(partial(self.store.batch, owner, name))
            if batch is None:
                return
            work = _Batch(self, owner, batch)
            try:
                await work.run(self._running[name])
            except BatonError as error:
                # Its disk is at fault: the batch ends, and says why.
                await work.fail([LineError(0, "storage", str(error))])
        except BatonError as error:
            # Not even that can be kept: it is left as it is until the next start.
            self._left.add(name)
            self.note(f"batch {name}: {error}")
        finally:
            self._running.pop(name, None)
            self.counts.pop(name, None)
            places.give_back(owner)
            # There is a place for another one.
            self.look()


@dataclass(slots=True)
class _Batch:
    """One batch at work."""

    runner: BatchRunner
    owner: bytes
    batch: Found

    async def run(self, scope: trio.CancelScope) -> None:
        """From its file to its results; left alone where this peer ends first."""
        name, store = self.batch["id"], self.runner.store
        data = await self._data()
        if data is None:
            return
        journal = RowJournal(store.journal_of(self.owner, name))
        room_bytes = BYTES_MAX - await _in_thread(partial(store.used_bytes, self.owner))
        await _in_thread(partial(_open, journal, name))
        left_s = max(0.0, self.batch["expires_at"] - store.wall_s())
        try:
            with trio.move_on_after(left_s) as day, scope:
                if self.batch["status"] == "cancelling":
                    scope.cancel()
                await self._work(data, journal, room_bytes)
        finally:
            journal.close()
        # What has to end early is told too, as far as it came.
        ended = "expired" if day.cancelled_caught else "completed"
        await self._finish("cancelled" if scope.cancelled_caught else ended)

    async def _data(self) -> bytes | None:
        """The file of requests; None if one of them is none, and the batch has failed."""
        store, endpoint = self.runner.store, self.batch["endpoint"]
        try:
            data: bytes = await _in_thread(
                partial(store.read_file, self.owner, self.batch["input_file_id"])
            )
        except InputError:
            await self.fail([LineError(0, "missing_file", "the input file is gone")])
            return None
        total, errors = await _in_thread(partial(_judge, data, endpoint))
        if errors:
            await self.fail(errors)
            return None
        counts = {"total": total, "completed": 0, "failed": 0}
        self.runner.counts[self.batch["id"]] = counts
        return data

    async def _work(self, data: bytes, journal: RowJournal, room_bytes: int) -> None:
        counts = self.runner.counts[self.batch["id"]]

        def note(frame: Mapping[str, Any]) -> None:
            counts["completed" if frame["status"] < 400 else "failed"] += 1

        # One at a time: all the answers may be more than there is memory.
        done = journal.done()
        while (frame := await _in_thread(partial(next, done, None))) is not None:
            note(frame)
        await self._now("in_progress", "in_progress_at")
        known = counts["completed"] + counts["failed"]
        left = islice(_requests(data, self.batch["endpoint"]), known, None)

        async def take(_: BatchLine, frame: dict[str, Any]) -> None:
            if journal.size_bytes > room_bytes:
                words = f"there is no room for more than {room_bytes} bytes of results"
                raise StoreFull(words, todo="delete some files, and ask for less at once")
            await _in_thread(partial(journal.add, frame))
            note(frame)

        await in_order(partial(next, left, None), self._answer, take, window=LINES_AT_ONCE)

    async def _answer(self, line: BatchLine) -> dict[str, Any]:
        """Ask for one line; what cannot be done is its answer, too."""
        status, request_id, body = 0, "", b""
        if self.runner.is_removed(self.owner):
            self.runner.cancel(self.batch["id"])
            await trio.lowlevel.checkpoint()
        for tried in range(TRIES):
            status, request_id, body, wait_s = await self._ask(line)
            if status not in _LATER or tried == TRIES - 1:
                break
            await trio.sleep(min(WAIT_S_MAX, wait_s * 2**tried))
        if len(body) > ANSWER_BYTES_MAX:
            words = f"the answer has more than {ANSWER_BYTES_MAX} bytes: ask for less in one line"
            status, request_id, body, _ = _told(
                ErrorDetail(status=413, message=words, code="answer_too_large")
            )
        return {
            "custom_id": line.custom_id,
            "status": status,
            "request_id": request_id,
            "body": body,
        }

    async def _ask(self, line: BatchLine) -> _Told:
        """One try; of what nobody expected it is told as of any bug."""
        try:
            return await self._asked(line)
        except Exception as error:  # noqa: BLE001 - the reason stands in tests/tidy
            self.runner.note(f"batch: {type(error).__name__}: {error}")
            return _told(BUG)

    async def _asked(self, line: BatchLine) -> _Told:
        post = self.runner.posts[self.batch["endpoint"]]
        request = DirectRequest(RawHeaders([]), RequestState(self.owner), b"")
        try:
            assert post.kind is not None
            asked = post.kind.model_validate(line.body)
            response: Response = await post.answer(asked, request)
        except ValidationError as error:
            placed = [{**it, "loc": ("body", *it["loc"])} for it in error.errors()]
            message, param = words_of(placed, line.body)
            return _told(
                ErrorDetail(status=400, message=message, param=param, code="invalid_value")
            )
        except HttpError as error:
            return _told(error.fault)
        except BatonError as error:
            return _told(fault_of(error))
        task = response.headers.get("x-baton-task", "")
        return response.status_code, task, bytes(response.body), 0.0

    async def fail(self, errors: list[LineError]) -> None:
        """End it with what is wrong with it."""
        self.batch["errors"] = {"object": "list", "data": [it.as_map() for it in errors]}
        await self._now("failed", "failed_at")
        await self._forget_journal()

    async def _finish(self, ended: str) -> None:
        await self._now("finalizing", "finalizing_at")
        stamps = [self.runner.store.stamp(), self.runner.store.stamp()]
        await _in_thread(partial(self._write_files, stamps))
        await self._now(ended, f"{ended}_at")
        await self._forget_journal()

    async def _forget_journal(self) -> None:
        journal = self.runner.store.journal_of(self.owner, self.batch["id"])
        await _in_thread(partial(journal.unlink, missing_ok=True))

    def _write_files(self, stamps: list[Stamp]) -> None:
        name, store = self.batch["id"], self.runner.store
        for what, wanted, stamp in zip(_FILES, (False, True), stamps, strict=True):
            some = ((frame["status"] >= 400) is wanted for frame, _ in self._results())
            if any(some):
                lines = (
                    json.dumps(one).encode() + b"\n"
                    for frame, one in self._results()
                    if (frame["status"] >= 400) is wanted
                )
                title = f"{name}_{what[:-8]}.jsonl"
                kept = store.keep_file(self.owner, stamp, title, "batch_output", lines)
                self.batch[what] = kept["id"]

    def _results(self) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
        frames = read_frames(self.runner.store.journal_of(self.owner, self.batch["id"]))
        next(frames)
        for number, frame in enumerate(frames, 1):
            name = f"{self.batch['id'].removeprefix('batch_')}_{number}"
            yield (
                frame,
                answer_of(
                    name,
                    frame["custom_id"],
                    frame["status"],
                    frame["request_id"],
                    json.loads(frame["body"]),
                ),
            )

    async def _now(self, status: str, since: str) -> None:
        """Keep that it is in another state now."""
        name, store = self.batch["id"], self.runner.store
        self.batch["request_counts"] = dict(self.runner.counts_of(self.batch))
        async with self.runner.changing:
            kept = await _in_thread(partial(store.batch, self.owner, name))
            if kept is not None and kept["status"] == "cancelling" and status in UNDER_WAY:
                status = "cancelling"
            self.batch["status"] = status
            self.batch.setdefault(since, int(store.wall_s()))
            await _in_thread(partial(store.keep_batch, self.owner, self.batch))


def _judge(data: bytes, endpoint: str) -> tuple[int, list[LineError]]:
    """How many requests a file has, and the first of its lines that are none."""
    total, errors = 0, list[LineError]()
    for line in read_lines(data, endpoint):
        total += 1
        if isinstance(line, LineError) and len(errors) < ERRORS_MAX:
            errors.append(line)
    return total, errors


def _open(journal: RowJournal, batch: str) -> None:
    """Go on with a journal; of one that a crash left without its head nothing is lost."""
    is_new = not journal.path.exists()
    if not is_new and next(read_frames(journal.path), None) is None:
        journal.path.unlink()
        is_new = True
    journal.open({"batch": batch}, is_new=is_new)


def _requests(data: bytes, endpoint: str) -> Iterator[BatchLine]:
    return (it for it in read_lines(data, endpoint) if isinstance(it, BatchLine))


def _told(fault: ErrorDetail) -> _Told:
    task = (fault.headers or {}).get("x-baton-task", "")
    return fault.status, task, json.dumps(fault.body).encode(), fault.retry_after_s or 1.0


async def _in_thread(work: Any) -> Any:
    return await trio.to_thread.run_sync(work)
