"""The asker's own tasks: journaled, handed on, checked, kept. Read this file from top to bottom.

An accepted task is finished, also after a crash of this peer: the journal is read at the start, and
unfinished tasks continue. An answer that the verdicts reject is never returned; the task goes to
another peer, and the standing of the peer that signed the answer falls.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import trio

from node.asking.accepting import Accepting, somebody_can
from node.asking.answers import Answered, Answers, journal_pins
from node.asking.direct import DirectTasks, Plan
from node.asking.keeping import AnswerKeeping
from node.asking.run import (
    GaveUp,
    Succeeded,
    TaskRequest,
    TaskState,
    TaskStatistics,
    journal_entry,
)
from node.checking.quorum import Checking, CheckRequest, Tally
from node.dispatch.begun import Begun
from node.dispatch.dispatcher import Dispatcher
from node.dispatch.handoff import Handoff, LegResult
from node.serving.role import nowhere
from node.task.events import EventSink, Failed
from node.task.units import units_of
from p2p.adverts import Environment
from p2p.blobs import Blobs
from p2p.score import Offence
from store import Row, Store, Table, Write
from wire import limits
from wire.chain import legs_to_check
from wire.codec import unpack
from wire.content import ContentId, PeerId
from wire.errors import BatonError, Missing, Refused, StoreError, TaskFailed, TooSlow, WireError
from wire.kinds import Level, Role
from wire.latest import Latest
from wire.lottery import secret_of
from wire.operations import COMPLETE
from wire.signed import Signed, open_signed
from wire.signing import SigningKey
from wire.task import Task

TASKS_UNDER_WAY_MAX = 256
OUTPUT_BYTES_MAX = 64 << 20
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
    _accepting: Accepting = field(init=False)
    _keeping: AnswerKeeping = field(init=False)
    _direct: DirectTasks = field(init=False)
    _ended: Latest[ContentId, TaskState] = field(default_factory=lambda: Latest(ENDED_KEPT))
    _runs: dict[ContentId, TaskState] = field(default_factory=dict)
    _accepted: int = 0
    _answered: int = 0
    _failed: int = 0
    _retried: int = 0

    def __post_init__(self) -> None:
        key, environment, nursery = self.key, self.environment, self.nursery
        self._direct = DirectTasks(
            self.dispatcher.directory, nursery, self._done_directly, self._own_path
        )
        self._accepting = Accepting(
            key,
            environment,
            self.store,
            self._direct,
            self._begin,
            self._journaled,
            self._not_journaled,
            nursery,
        )
        self._keeping = AnswerKeeping(key, environment, self.answers, nursery)

    def statistics(self) -> TaskStatistics:
        """How many tasks were accepted, answered, failed and retried, and how many run now."""
        return TaskStatistics(
            accepted=self._accepted,
            answered=self._answered,
            failed=self._failed,
            retried=self._retried,
            under_way=len(self._runs),
        )

    # 1. Accept

    async def submit(self, request: TaskRequest) -> ContentId:
        """Sign and journal a task; its id. From now on it ends with an answer or an error.

        Refused if too many tasks are running here, InputError if no known peer could do it.
        """
        count = len(self._runs) + self._accepting.waiting
        if count >= TASKS_UNDER_WAY_MAX:
            raise Refused(f"{count} tasks are under way here", retry_after_s=1.0)
        await somebody_can(self.dispatcher.directory, request.stages)
        run = await self._accepting.accept(request)
        return run.task.id

    def under_way(self, task_id: ContentId) -> bool:
        """Whether the task with this id is running now."""
        return task_id in self._runs

    def owner_of(self, task_id: ContentId) -> bytes | None:
        """Whose task this is (see `TaskRequest.owner`); None if the task is not known here."""
        run = self._runs.get(task_id) or self._ended.get(task_id)
        return self.answers.owner_of(task_id) if run is None else run.owner

    def cancel(self, task_id: ContentId) -> None:
        """End a task that its client no longer wants, here and at the peers that work on it."""
        run = self._runs.get(task_id)
        if run is not None:
            run.cancel()
            self._direct.stop(run)

    async def resume(self) -> int:
        """Continue the journaled tasks that were running when this peer stopped; how many."""
        rows = self.store.scan(Table.JOURNAL, limit=TASKS_UNDER_WAY_MAX)
        for _, entry in rows:
            raw, seed, attempt, *owner = unpack(entry)
            # The secret of its last attempt may be known: the next attempt uses another.
            run = TaskState(open_signed(raw, Task), seed, trio.current_time(), attempt + 1)
            run.owner = owner[0] if owner else b""
            self._begin(run, None)
            self._journaled(run)
        return len(rows)

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
        run.scope.cancel()
        if run.when_journaled is not None:
            # It was done already, and must not end.
            run.when_journaled = None
            self._own_path(run)
        else:
            self._direct.stop(run)

    def _journaled(self, run: TaskState) -> None:
        self._accepted += 1
        run.is_journaled()

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
            await run.finished.wait()
        finally:
            run.watchers.remove(on_event)
        match run.outcome:
            case GaveUp(error):
                raise error
            case Succeeded(Answered() as answered):
                return answered
            case _:
                return replace(await self.answers.of_task(task_id), kept_before=False)

    # 2. Run

    def _deadline_at_s(self, run: TaskState) -> float:
        task = run.task.record
        # The wall clock gives the age, so that time while this peer was off counts.
        age_s = self.environment.wall_s() - task.issued_at_ms / 1000
        left_s = task.deadline_s - min(max(0.0, age_s), task.deadline_s - 1.0)
        return run.started_at_s + left_s

    async def _run(self, run: TaskState) -> None:
        try:
            with run.scope:
                self._succeeded(run, await self._attempts(run, self._deadline_at_s(run)))
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
        row = Row(Table.JOURNAL, run.task.id, None)
        await self.store.commit(Write(rows=(row,), unpins=journal_pins(run.task)))

    def _end(self, run: TaskState) -> None:
        del self._runs[run.task.id]
        if run.journaled.is_set():
            self._ended[run.task.id] = run
        run.inline = None
        run.finished.set()

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
        self._keeping.keep_soon(run, delivered, output, ended)

    async def _lose(self, run: TaskState, error: BatonError) -> None:
        try:
            await self._give_up(run, error)
        finally:
            self._end(run)

    async def _attempts(self, run: TaskState, deadline_at_s: float) -> Answered:
        task = run.task
        inline = await self._inline_input(run)
        avoid: frozenset[PeerId] = frozenset()
        while run.attempt <= limits.ATTEMPTS_MAX:
            units = units_of(task.record.stages[0], inline)
            handoff = Handoff(task=task, input=inline, units=units, avoid=avoid)
            begun, run.begun = run.begun, None
            if begun is not None and begun.delivered is not None:
                delivered = begun.delivered
            else:
                delivered = await self.dispatcher.hand_on(
                    handoff,
                    run.on_event,
                    nowhere,
                    deadline_at_s=deadline_at_s,
                    shown=run.shown,
                    failed=run.failed,
                    begun=begun,
                )
            output = await self._output(run, delivered, deadline_at_s)
            if output is None:
                guilty = frozenset((delivered.receipts[-1].signer,))
            else:
                guilty, counted = await self._check(run, delivered, inline, output, deadline_at_s)
                if not guilty:
                    _show_the_rest(run, delivered, output)
                    return await self._keeping.keep(run, delivered, counted, output)
            self._retried += 1
            avoid |= self._avoidable(task, guilty, avoid)
            run.attempt += 1
            # The attempt is durable before its secret is revealed: no secret is used twice.
            await run.journaled.wait()
            await self.store.commit(Write(rows=(journal_entry(run),)))
        raise TaskFailed(
            f"{limits.ATTEMPTS_MAX} attempts gave no answer that was accepted",
            todo="see who: python -m node peers",
        )

    def _avoidable(
        self, task: Signed[Task], guilty: frozenset[PeerId], avoid: frozenset[PeerId]
    ) -> frozenset[PeerId]:
        """The guilty peers, except a data peer that no other can replace."""
        data = task.record.stages[0]
        if data.role is Role.DATA and not self.dispatcher.directory.able(data, avoid | guilty):
            return guilty - frozenset(self.dispatcher.directory.able(data, avoid))
        return guilty

    async def _inline_input(self, run: TaskState) -> bytes | None:
        source = run.task.record.input
        if source is None or run.inline is not None:
            return run.inline
        if not self.store.has(source):
            # The journal's own commit is still running, and stores the input.
            await run.journaled.wait()
        data = await self.store.get(source)
        return data if len(data) <= limits.INLINE_BYTES_MAX else None

    async def _output(
        self, run: TaskState, delivered: LegResult, deadline_at_s: float
    ) -> bytes | None:
        """The output, fetched from its signer if needed; None if it is withheld."""
        if delivered.output is not None:
            return delivered.output
        receipt = delivered.receipts[-1]
        holders = [it.signer for it in reversed(delivered.receipts)]
        try:
            return await self.blobs.get(
                receipt.record.output,
                holders,
                deadline_s=max(0.1, deadline_at_s - trio.current_time()),
                size_bytes_max=OUTPUT_BYTES_MAX,
            )
        except (Missing, TooSlow, WireError) as error:
            # The output is withheld, too large, or no valid tree, and this peer signed for it.
            lies = isinstance(error, WireError)
            offence = Offence.MALFORMED if lies else Offence.UNANSWERED
            self.checking.peers.offended(receipt.signer, offence)
            run.on_event(Failed("infer", receipt.signer, error.message))
            return None

    # 3. Check

    async def _check(
        self,
        run: TaskState,
        delivered: LegResult,
        inline: bytes | None,
        output: bytes,
        deadline_at_s: float,
    ) -> tuple[frozenset[PeerId], Mapping[int, Tally]]:
        """Have every leg that ran a model checked; returns the peers that may be at fault."""
        counted: dict[int, Tally] = {}
        nobody: frozenset[PeerId] = frozenset()
        if run.task.record.checking.level is Level.SIGNED:
            return nobody, counted
        last = len(delivered.receipts) - 1
        for stage in legs_to_check(delivered.receipts):
            small = stage == last and len(output) <= limits.INLINE_BYTES_MAX
            claimed = CheckRequest(
                task=run.task,
                receipts=delivered.receipts[: stage + 1],
                secret=secret_of(run.seed, run.attempt),
                input=inline if stage == 0 else delivered.source if stage == last else None,
                output=output if small else None,
            )
            votes = await self.checking.check(claimed, run.on_event, deadline_at_s=deadline_at_s)
            counted[stage] = votes
            if votes.agreed is None:
                raise TaskFailed(
                    f"the answer came, but {votes.agreeing} of the verdicts agree and"
                    f" {run.task.record.checking.needed} have to",
                    todo="give it more time (--deadline), ask for fewer (--verdicts 1/1), or"
                    " wait until more verifiers are there: python -m node peers",
                )
            if not votes.agreed:
                return self._rejected(run, claimed, votes), counted
        return nobody, counted

    def _rejected(self, run: TaskState, claimed: CheckRequest, votes: Tally) -> frozenset[PeerId]:
        """The peers not to ask again for this task, after verdicts against an answer."""
        signer = claimed.receipt.signer
        reasons = {it.record.reason for it in votes.verdicts if it.record.reason}
        why = "; ".join(sorted(reasons)) or "the numbers differ"
        run.on_event(Failed("answer rejected", signer, why))
        wrong = sum(it.record.could_check and not it.record.agrees for it in votes.verdicts)
        if wrong > run.task.record.checking.verifiers - run.task.record.checking.needed:
            self.checking.peers.offended(signer, Offence.WRONG_ANSWER)
            # Its earlier answers that were not checked are no longer trusted.
            self.answers.accuse(signer, int(self.environment.wall_s() * 1000))
            return frozenset((signer,))
        # Something was withheld from the verifiers, and it is not known by whom: this chain of
        # peers is not used again, but none of them is blamed.
        return frozenset(it.signer for it in claimed.receipts)


def _show_the_rest(run: TaskState, delivered: LegResult, output: bytes) -> None:
    """Send watchers of the stream its last events, so that they have exactly the output."""
    streams = run.task.record.stages[-1].operation == COMPLETE
    if streams or run.shown.units:
        for event in run.shown.remainder(
            output, delivered.receipts[-1].record.units if streams else 0
        ):
            run.on_event(event)
