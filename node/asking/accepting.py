"""Accepting tasks: those that come together are signed and journaled together.

"Accepted" is said once the journal is durable. The first offers go out while the disk is busy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from node.asking.direct import DirectTasks, Plan
from node.asking.following import Follower
from node.asking.journal import Journal, Journaled
from node.asking.run import TaskRequest, TaskState, nobody_can, record_of
from node.dispatch.directory import PeerDirectory
from node.paying.bill import bill_of
from node.task.flushing import Flushing, in_parts, keep_each
from p2p.adverts import Environment
from p2p.timeouts import stretched
from wire.errors import BatonError, StoreUnusable, WireError
from wire.signed import Signed, sign_many
from wire.signing import SigningKey
from wire.task import Stage, Task

# Bounds of one flush, and of its commit.
TASKS_MAX = 256
BYTES_MAX = 4 << 20
# A task is accepted only if a peer is known that could do it; after joining a network, adverts may
# take this long to arrive.
GRACE_S = 3.0


async def somebody_can(directory: PeerDirectory, stages: Sequence[Stage]) -> None:
    """InputError if no known peer could do one of the stages."""
    if all(map(directory.anybody, stages)):
        return
    grace_s = stretched(GRACE_S)
    with trio.move_on_after(grace_s):
        while lacking := [it for it in stages if not directory.anybody(it)]:
            await directory.peers.seek(lacking[0].role, lacking[0].model, deadline_s=grace_s)
            await trio.sleep(0.1)
    for stage in stages:
        if not directory.anybody(stage):
            raise nobody_can(stage, directory.peers.joining())


@dataclass(slots=True, eq=False)
class AskedTask:
    """A task that is not accepted yet. `settled` is called once it is, or cannot be."""

    request: TaskRequest
    settled: Callable[[], None]
    follower: Follower | None = None
    run: TaskState | None = None
    error: BatonError | None = None
    # Whether its follower is gone.
    is_abandoned: bool = False

    @property
    def size_bytes(self) -> int:
        return len(self.request.input or b"")


@dataclass(frozen=True, slots=True)
class _Draft:
    """A task that is not signed yet, as the bytes that will be."""

    asked: AskedTask
    seed: bytes
    record: Task
    body: bytes


@dataclass(slots=True)
class Accepting:
    """Makes tasks of requests. `begin` has one done as soon as it is signed."""

    key: SigningKey
    environment: Environment
    journal: Journal
    direct: DirectTasks
    begin: Callable[[TaskState, Plan | None], None]
    journaled: Callable[[TaskState], None]
    # Called for a task that cannot be journaled: it was begun and must not end.
    refused: Callable[[TaskState], None]
    # Called for a task that was accepted when its follower was gone.
    abandoned: Callable[[TaskState], None]
    nursery: trio.Nursery
    _asked: Flushing[AskedTask] = field(init=False)

    def __post_init__(self) -> None:
        self._asked = Flushing(self.nursery, self._flush, TASKS_MAX, self._dropped)

    @property
    def waiting(self) -> int:
        """Tasks that were asked for and are not signed yet."""
        return len(self._asked)

    async def accept(self, request: TaskRequest) -> TaskState:
        """A task that is journaled; StoreError or WireError if it cannot be."""
        ended = trio.Event()
        asked = AskedTask(request, ended.set)
        self._asked.add(asked)
        await ended.wait()
        if asked.error is not None:
            raise asked.error
        assert asked.run is not None
        return asked.run

    def ask(self, request: TaskRequest, follower: Follower) -> AskedTask:
        """Have a task accepted for a follower, who is woken where it cannot be."""
        asked = AskedTask(request, follower.woken.set, follower)
        self._asked.add(asked)
        return asked

    async def _flush(self, asked: list[AskedTask]) -> None:
        found = [self._drafted(it) for it in asked if not it.is_abandoned]
        drafts = [it for it in found if it is not None]
        if not drafts:
            return
        plans = self.direct.plans([it.asked.request for it in drafts])
        tasks = self._signed(drafts, plans)
        now_at_s = trio.current_time()
        for draft, task, plan in zip(drafts, tasks, plans, strict=True):
            one, request = draft.asked, draft.asked.request
            one.run = TaskState(
                task,
                draft.seed,
                now_at_s,
                owner=request.owner,
                inline=request.inline,
                only=request.only,
                bill=bill_of(request.price_max),
            )
            self.begin(one.run, plan)
        for some in in_parts([it.asked for it in drafts], BYTES_MAX):
            await keep_each(some, self._journal, self._journaled, self._failed)

    def _drafted(self, asked: AskedTask) -> _Draft | None:
        """The task that a request makes; None, and its asker is told, if it makes none.

        Each part of a request is bounded, but not all of them together.
        """
        seed = self.environment.entropy(32)
        try:
            record = record_of(asked.request, seed, self.environment)
            return _Draft(asked, seed, record, record.to_bytes())
        except WireError as error:
            asked.error = error
            asked.settled()
            return None

    def _signed(self, drafts: Sequence[_Draft], plans: Sequence[Plan | None]) -> list[Signed[Task]]:
        """The tasks; those under one signature that only peers read which know such proofs."""
        shares = [plan is not None and plan.shares for plan in plans]
        together = [it for it, shared in zip(drafts, shares, strict=True) if shared]
        records, bodies = [it.record for it in together], [it.body for it in together]
        signed = iter(sign_many(records, self.key, bodies) if together else ())
        return [
            next(signed) if shared else sign_many([it.record], self.key, [it.body])[0]
            for it, shared in zip(drafts, shares, strict=True)
        ]

    def _dropped(self, asked: AskedTask) -> None:
        """Tell an asker whose task nobody will accept any more; it may wait behind a shield."""
        if asked.run is None and asked.error is None:
            asked.error = StoreUnusable("this peer is ending", todo="ask another peer")
            asked.settled()

    async def _journal(self, asked: list[AskedTask]) -> list[TaskState]:
        runs = [it.run for it in asked if it.run is not None]
        tasks = zip(runs, asked, strict=True)
        await self.journal.add([Journaled(run, it.request.input) for run, it in tasks])
        return runs

    def _journaled(self, asked: AskedTask, run: TaskState) -> None:
        self.journaled(run)
        if asked.follower is None:
            asked.settled()
        elif asked.is_abandoned:
            self.abandoned(run)
        else:
            asked.follower.follow(run)

    def _failed(self, asked: AskedTask, error: BatonError) -> None:
        assert asked.run is not None
        asked.error = error
        self.refused(asked.run)
        asked.settled()
