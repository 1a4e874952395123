"""The asker's own tasks: journaled, handed on, checked, kept. Read this file from top to bottom.

An accepted task is finished, also after a crash of this peer: the journal is read at the start, and
unfinished tasks continue. Most tasks are done without a path of their own (`node.asking.direct`);
what a task's own path is stands in `node.asking.attempts`.
"""

from dataclasses import dataclass, field, replace

import trio

from node.asking.accepting import Accepting, AskedTask, somebody_can
from node.asking.affording import Affording
from node.asking.answers import Answered, Answers
from node.asking.attempts import Attempts
from node.asking.charging import charge
from node.asking.direct import DirectTasks, Plan
from node.asking.disputing import Disputing
from node.asking.following import Follower
from node.asking.journal import Journal
from node.asking.keeping import AnswerKeeping
from node.asking.run import (
    GaveUp,
    Succeeded,
    TaskRequest,
    TaskState,
    TaskStatistics,
)
from node.checking.quorum import Checking
from node.dispatch.begun import Begun
from node.dispatch.dispatcher import Dispatcher
from node.dispatch.handoff import LegResult
from node.paying.bill import Bill, bill_of
from node.task.events import EventSink
from p2p.adverts import Environment
from p2p.blobs import Blobs
from store import Store, Write
from wire import limits
from wire.content import ContentId
from wire.errors import BatonError, Refused, StoreError, TaskFailed, WireError
from wire.latest import Latest
from wire.operations import streams
from wire.signing import SigningKey

TASKS_UNDER_WAY_MAX = 256
WATCHERS_MAX = 16
# So many tasks that ended can still be watched from their first event.
ENDED_KEPT = 256


@dataclass(slots=True)
class TaskRunner:
    """The tasks of one peer's own clients. Made by the node; runs in its nursery."""

    key: SigningKey
    environment: Environment
    store: Store
    blobs: Blobs
    dispatcher: Dispatcher
    checking: Checking
    answers: Answers
    nursery: trio.Nursery
    disputing: Disputing
    _journal: Journal = field(init=False)
    _accepting: Accepting = field(init=False)
    _keeping: AnswerKeeping = field(init=False)
    _direct: DirectTasks = field(init=False)
    _attempts: Attempts = field(init=False)
    _affording: Affording = field(init=False)
    _ended: Latest[ContentId, TaskState] = field(default_factory=lambda: Latest(ENDED_KEPT))
    _runs: dict[ContentId, TaskState] = field(default_factory=dict)
    _accepted: int = 0
    _answered: int = 0
    _failed: int = 0

    def __post_init__(self) -> None:
        key, environment, nursery = self.key, self.environment, self.nursery
        self._journal = Journal(self.store)
        self._affording = Affording(self.dispatcher.directory)
        self._direct = DirectTasks(
            self.dispatcher.directory, nursery, self._done_directly, self._own_path
        )
        self._accepting = Accepting(
            key,
            environment,
            self._journal,
            self._direct,
            self._begin,
            self._journaled,
            self._not_journaled,
            self._cancel,
            nursery,
        )
        self._keeping = AnswerKeeping(key, environment, self.answers, self._journal, nursery)
        self._attempts = Attempts(
            environment,
            self.store,
            self._journal,
            self.blobs,
            self.dispatcher,
            self.checking,
            self.answers,
            self.disputing,
        )

    def statistics(self) -> TaskStatistics:
        """How many tasks were accepted, answered, failed and retried, and how many run now."""
        return TaskStatistics(
            accepted=self._accepted,
            answered=self._answered,
            failed=self._failed,
            retried=self._attempts.retried,
            under_way=len(self._runs),
        )

    # 1. Accept

    async def submit(self, request: TaskRequest) -> ContentId:
        """Sign and journal a task; its id. From now on it ends with an answer or an error.

        Refused if too many tasks are running here, InputError if no known peer could do it.
        """
        self._check_room()
        await self.disputing.check_level(request.level, request.stages)
        await somebody_can(self.dispatcher.directory, request.stages)
        await self._affording.check(request)
        run = await self._accepting.accept(request)
        return run.task.id

    def _check_room(self) -> None:
        count = len(self._runs) + self._accepting.waiting
        if count >= TASKS_UNDER_WAY_MAX:
            raise Refused(f"{count} tasks are under way here", retry_after_s=1.0)

    async def ask(self, request: TaskRequest, follower: Follower) -> Answered | None:
        """As `submit`, and `watch` until the end; None once the follower waits no longer.

        Until `follower.accepted` is called, errors are those of `submit`, and then those of
        `watch`. A task whose follower does not wait for its end is cancelled.
        """
        self._check_room()
        await self.disputing.check_level(request.level, request.stages)
        await somebody_can(self.dispatcher.directory, request.stages)
        await self._affording.check(request)
        asked = self._accepting.ask(request, follower)
        try:
            await follower.woken.wait()
            if asked.error is not None:
                raise asked.error
            assert asked.run is not None
            if not await follower.sees_end_of(asked.run):
                return None
            return await self._outcome(asked.run)
        finally:
            self._left(asked, follower)

    def _left(self, asked: AskedTask, follower: Follower) -> None:
        """Note that a task's follower waits no longer."""
        asked.is_abandoned = True
        run = asked.run
        # One that is not journaled yet is cancelled once it is.
        if run is not None and run.is_journaled:
            follower.leave(run)
            if not run.has_ended:
                self._cancel(run)

    def under_way(self, task_id: ContentId) -> bool:
        """Whether the task with this id is running now."""
        return task_id in self._runs

    def under_way_as(self, request: TaskRequest, source: ContentId) -> ContentId | None:
        """The running task that answers `request`, whose input is `source`, too; None if none does.

        It is the peer's owner's, has the same stages and input, and is checked at least as much.
        """
        for task_id, run in self._runs.items():
            task = run.task.record
            same = task.input == source and task.stages == request.stages and not run.owner
            enough = task.checking.level >= request.level
            if same and enough and task.checking.needed >= request.needed and not run.cancelled:
                return task_id
        return None

    def owner_of(self, task_id: ContentId) -> bytes | None:
        """Whose task this is (see `TaskRequest.owner`); None if the task is not known here."""
        run = self._runs.get(task_id) or self._ended.get(task_id)
        return self.answers.owner_of(task_id) if run is None else run.owner

    def bill_of(self, task_id: ContentId) -> Bill | None:
        """What a task that runs has cost so far; None if it is free, or has ended."""
        run = self._runs.get(task_id)
        return None if run is None else run.bill

    def cost_of(self, task_id: ContentId) -> int:
        """What a task was charged so far, in millionths, also one that failed; 0 if forgotten."""
        run = self._runs.get(task_id) or self._ended.get(task_id)
        return 0 if run is None or run.bill is None else run.bill.charged

    def cancel(self, task_id: ContentId) -> None:
        """End a task that its client no longer wants, here and at the peers that work on it."""
        run = self._runs.get(task_id)
        if run is not None:
            self._cancel(run)

    def _cancel(self, run: TaskState) -> None:
        run.cancel()
        self._direct.stop(run)

    async def resume(self) -> int:
        """Continue the journaled tasks that were running when this peer stopped; how many."""
        entries = self._journal.read(TASKS_UNDER_WAY_MAX)
        for entry in entries:
            # The secret of its last attempt may be known: the next attempt uses another.
            run = TaskState(entry.task, entry.seed, trio.current_time(), entry.attempt + 1)
            run.owner, run.inline = entry.owner, entry.input
            run.bill = bill_of(entry.task.record.price_max)
            self._begin(run, None)
            self._journaled(run)
        return len(entries)

    def _begin(self, run: TaskState, plan: Plan | None) -> None:
        self._runs[run.task.id] = run
        if plan is not None and plan.order is not None:
            self._direct.begin(run, plan, plan.order, self._deadline_at_s(run))
        else:
            run.begun = None if plan is None else Begun(drawn=plan.drawn)
            self._own_path(run)

    def _own_path(self, run: TaskState) -> None:
        self.nursery.start_soon(self._run, run)

    def _not_journaled(self, run: TaskState) -> None:
        run.now_refused()
        if run.when_journaled is not None:
            # It was done already, and must not end.
            run.when_journaled = None
            self._own_path(run)
        else:
            self._direct.stop(run)

    def _journaled(self, run: TaskState) -> None:
        self._accepted += 1
        run.now_journaled()

    # Watching

    async def watch(self, task_id: ContentId, on_event: EventSink) -> Answered:
        """Get all events of a task, past and coming, until it ends; TaskFailed if it failed."""
        run = self._runs.get(task_id) or self._ended.get(task_id)
        if run is None:
            return await self.answers.of_task(task_id)
        if len(run.watchers) >= WATCHERS_MAX:
            raise Refused(f"{WATCHERS_MAX} clients watch this task already", retry_after_s=5.0)
        for event in run.events:
            on_event(event)
        run.watchers.append(on_event)
        try:
            await run.until_ended()
        finally:
            run.watchers.remove(on_event)
        return await self._outcome(run)

    async def _outcome(self, run: TaskState) -> Answered:
        """What a task that has ended came to."""
        match run.outcome:
            case GaveUp(error):
                raise error
            case Succeeded(Answered() as answered):
                return answered
            case _:
                return replace(await self.answers.of_task(run.task.id), kept_before=False)

    # 2. Run

    def _deadline_at_s(self, run: TaskState) -> float:
        task = run.task.record
        # The wall clock gives the age, so that time while this peer was off counts.
        age_s = self.environment.wall_s() - task.issued_at_ms / 1000
        left_s = task.deadline_s - min(max(0.0, age_s), task.deadline_s - 1.0)
        return run.started_at_s + left_s

    async def _run(self, run: TaskState) -> None:
        try:
            with run.own_path():
                done = await self._attempts.until_accepted(run, self._deadline_at_s(run))
                _show_the_rest(run, done.delivered, done.output)
                kept = await self._keeping.keep(run, done.delivered, done.counted, done.output)
                self._succeeded(run, kept)
            if run.cancelled:
                raise TaskFailed("its client cancelled it")
        except (TaskFailed, StoreError, WireError) as error:
            await self._give_up(run, error)
        finally:
            self._end(run)

    def _succeeded(self, run: TaskState, answered: Answered) -> None:
        # Many large outputs would fill the memory.
        large = len(answered.output) > limits.INLINE_BYTES_MAX
        run.outcome = Succeeded(None if large else answered)
        self._answered += 1

    async def _give_up(self, run: TaskState, error: BatonError) -> None:
        run.outcome = GaveUp(error)
        self._failed += 1
        # It may have failed while the journal's commit was still running.
        await run.until_journaled()
        if run.is_journaled:
            async with self._journal.ending_of([run.task.id]) as ending:
                await self.store.commit(Write(rows=ending.rows, unpins=ending.unpins))

    def _end(self, run: TaskState) -> None:
        del self._runs[run.task.id]
        if run.is_journaled:
            self._ended[run.task.id] = run
        run.inline = None
        if run.bill is not None:
            run.bill.close()
        run.end()

    def _done_directly(self, run: TaskState, delivered: LegResult) -> None:
        """Keep what came of a task without a path of its own."""
        output = delivered.output
        assert output is not None

        def ended(found: Answered | BatonError) -> None:
            if isinstance(found, BatonError):
                self.nursery.start_soon(self._lose, run, found)
            else:
                self._succeeded(run, found)
                self._end(run)

        _show_the_rest(run, delivered, output)
        charge(self.dispatcher.directory.payer, run, delivered, output, {})
        self._keeping.keep_soon(run, delivered, output, ended)

    async def _lose(self, run: TaskState, error: BatonError) -> None:
        try:
            await self._give_up(run, error)
        finally:
            self._end(run)


def _show_the_rest(run: TaskState, delivered: LegResult, output: bytes) -> None:
    """Send watchers of the stream its last events, so that they have exactly the output."""
    by_unit = streams(run.task.record.stages[-1].operation)
    if by_unit or run.was_streamed:
        units = delivered.receipts[-1].record.units if by_unit else 0
        for event in run.shown.remainder(output, units):
            run.on_event(event)
