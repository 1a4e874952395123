"""Group commit: one thread commits for many callers, with one flush to the disk for each group.

A request that arrives during a commit joins the next group, so the slower the disk, the larger the
groups. The queue is bounded: callers wait for a place, `offer` refuses. A caller that is cancelled
stops waiting; its action may still be committed. What is offered costs no commit of its own where
others commit: it goes with the next group that somebody waits for, or alone after a while.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, ClassVar, Generic, TypeVar

import trio

from store.catalog import Catalog
from wire.errors import BatonError, StoreUnusable

T = TypeVar("T")
Action = Callable[[Catalog], T]

QUEUE_MAX = 4096
# Bytes of one group; a larger transaction would make all its callers wait.
GROUP_BYTES_MAX = 16 << 20
# A disk that takes longer than this will not answer. A guess: hard disks spin up in less.
COMMIT_DEADLINE_S = 60.0
# What was offered waits so long for a group to go with.
OFFERED_S = 0.5


class CommitRequest(Generic[T]):
    """One action and, once its group is committed, its result or error."""

    __slots__ = ("action", "error", "result", "size_bytes", "task")

    def __init__(self, action: Action[T], size_bytes: int, task: trio.lowlevel.Task | None) -> None:
        self.action = action
        self.size_bytes = size_bytes
        # The task that waits; None if no task waits for the action, or waits any longer.
        self.task = task
        self.result: T | None = None
        self.error: BatonError | None = None

    def run(self, catalog: Catalog) -> None:
        """Run inside the group's transaction; runs again if the transaction is repeated."""
        self.error = None
        try:
            self.result = self.action(catalog)
        except BatonError as error:
            self.error = error


@dataclass(frozen=True, slots=True)
class CommitStatistics:
    """What a committer did so far."""

    commits: int = 0
    puts: int = 0
    largest_group: int = 0
    queue_depth: int = 0
    dropped: int = 0
    problem: str = ""


MoveOnAfter = Callable[[float], AbstractContextManager[trio.CancelScope]]


class AtWork:
    """Hears of the groups that a thread commits; a clock that jumps has to stand meanwhile."""

    def changed(self, change: int) -> None:
        """A group went to the thread (1), or is back or given up (-1)."""


class Committer:
    """Hands groups of requests to `run_group`, in a thread, one group at a time.

    `run_group` commits a whole group or raises a BatonError, which everyone in the group gets.
    """

    # Of all committers of this process.
    at_work: ClassVar[AtWork] = AtWork()

    def __init__(
        self,
        run_group: Callable[[Sequence[CommitRequest[Any]]], None],
        move_on_after: MoveOnAfter = trio.move_on_after,
    ) -> None:
        self._run_group = run_group
        # The caller's way to bound a wait, used for the deadline of a commit.
        self._move_on_after = move_on_after
        self._queue: deque[CommitRequest[Any]] = deque()
        # Whether the queue has something that was not only offered.
        self._is_due = False
        self._room = trio.lowlevel.ParkingLot()
        self._wake = trio.Event()
        self._delivered = trio.Event()
        # Holds at most one group: the next is put in when the results of the last were delivered.
        self._groups: SimpleQueue[list[CommitRequest[Any]] | None] = SimpleQueue()
        self._under_way: list[CommitRequest[Any]] | None = None
        self._closing = False
        self._stuck = False
        self._commits = self._puts = self._largest_group = self._dropped = 0
        # Why the latest commit failed, until one of at least its size succeeds.
        self._problem = ""
        self._problem_bytes = 0

    @property
    def stuck(self) -> bool:
        """Whether a thread was left behind in a commit that never came back."""
        return self._stuck

    async def submit(self, action: Action[T], size_bytes: int) -> T:
        """Run the action in the next group; returns once that group is durable."""
        while len(self._queue) >= QUEUE_MAX and not self._stuck:
            await self._room.park()
        self._check_open()
        request = CommitRequest(action, size_bytes, trio.lowlevel.current_task())
        self._enqueue(request)

        def abandon(_: object) -> trio.lowlevel.Abort:
            request.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)
        if request.error is not None:
            raise request.error
        return request.result  # type: ignore[return-value]

    def offer(self, action: Action[object]) -> bool:
        """Run the action with the next group, within OFFERED_S, if there is room in the queue."""
        if len(self._queue) >= QUEUE_MAX or self._closing or self._stuck:
            self._dropped += 1
            return False
        self._queue.append(CommitRequest(action, 0, None))
        if len(self._queue) == 1:
            self._wake.set()
        return True

    def statistics(self) -> CommitStatistics:
        """Counts of commits and writes, the largest group, how many wait, how many were dropped."""
        return CommitStatistics(
            self._commits,
            self._puts,
            self._largest_group,
            len(self._queue),
            self._dropped,
            self._problem,
        )

    def close(self) -> None:
        """Let `run` end once the queue is empty; nothing more is taken."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Commit groups until closed. Not cancellable: every caller that waits gets an answer."""
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_thread)
                await self._feed_thread()
                if self._stuck:
                    nursery.cancel_scope.cancel()
                self._groups.put(None)

    async def _run_thread(self) -> None:
        # One thread serves all groups: starting one for each costs a tenth of a millisecond. The
        # thread is abandoned only if the disk never answers.
        await trio.to_thread.run_sync(
            self._write_forever,
            abandon_on_cancel=True,  # type: ignore[call-arg, unused-ignore]
            limiter=trio.CapacityLimiter(1),
        )

    def _write_forever(self) -> None:
        while (group := self._groups.get()) is not None:
            failure: BatonError | None = None
            try:
                self._run_group(group)
            except BatonError as error:
                failure = error
            self._token.run_sync_soon(self._deliver, group, failure)

    async def _feed_thread(self) -> None:
        while not self._stuck:
            while not self._is_due:
                if self._closing and not self._queue:
                    return
                wait_s = 0.0 if self._closing else OFFERED_S if self._queue else math.inf
                self._wake = trio.Event()
                with trio.move_on_after(wait_s):
                    await self._wake.wait()
                    continue
                self._is_due = True
            # Callers that the last commit woke run before this task continues, and so join this
            # group; otherwise groups would become smaller and smaller.
            await trio.lowlevel.checkpoint()
            self._under_way = group = self._take()
            self._delivered = trio.Event()
            self.at_work.changed(1)
            self._groups.put(group)
            with self._move_on_after(COMMIT_DEADLINE_S):
                await self._delivered.wait()
            if self._under_way is not None:
                self._give_up(self._under_way)

    def _check_open(self) -> None:
        if self._stuck:
            raise self._stuck_error()
        if self._closing:
            raise StoreUnusable("the store is closed", todo="this peer is shutting down")

    def _enqueue(self, request: CommitRequest[Any]) -> None:
        self._queue.append(request)
        self._is_due = True
        self._wake.set()

    def _take(self) -> list[CommitRequest[Any]]:
        group = [self._queue.popleft()]
        size_bytes = group[0].size_bytes
        while self._queue and size_bytes + self._queue[0].size_bytes <= GROUP_BYTES_MAX:
            group.append(self._queue.popleft())
            size_bytes += group[-1].size_bytes
        self._is_due = bool(self._queue)
        self._room.unpark(count=len(group))
        return group

    def _deliver(self, group: list[CommitRequest[Any]], failure: BatonError | None) -> None:
        if group is not self._under_way:
            # The disk answered after the deadline: every caller already got an error.
            return
        self._under_way = None
        self.at_work.changed(-1)
        self._delivered.set()
        self._commits += failure is None
        self._note(failure, sum(request.size_bytes for request in group))
        self._puts += len(group)
        self._largest_group = max(self._largest_group, len(group))
        for request in group:
            if failure is not None:
                # One error for each caller: a shared one would collect everybody's traceback.
                request.error = type(failure)(failure.message, todo=failure.todo)
                request.error.__cause__ = failure
            if request.task is None:
                self._dropped += request.error is not None
            else:
                trio.lowlevel.reschedule(request.task)

    def _note(self, failure: BatonError | None, size_bytes: int) -> None:
        if failure is not None:
            self._problem, self._problem_bytes = failure.message, size_bytes
        elif size_bytes >= self._problem_bytes:
            self._problem, self._problem_bytes = "", 0

    def _give_up(self, group: list[CommitRequest[Any]]) -> None:
        """Fail the group: its thread is still in the commit, and its outcome is unknown."""
        self._stuck = True
        group.extend(self._queue)
        self._queue.clear()
        self._room.unpark_all()
        self._deliver(group, self._stuck_error())

    def _stuck_error(self) -> StoreUnusable:
        return StoreUnusable(
            f"the disk has not answered for {COMMIT_DEADLINE_S:.0f} s",
            todo="check the disk, then start the peer again",
        )
