"""Keeping answers: those that end together are signed and made durable together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from node.asking.answers import Answered, Answers, KeptAnswer
from node.asking.run import TaskState
from node.checking.quorum import Tally
from node.dispatch.handoff import LegResult
from node.task.events import Kept
from node.task.flushing import Flushing
from p2p.adverts import Environment
from wire import limits
from wire.errors import BatonError, StoreError, WireError
from wire.lottery import secret_of
from wire.receipt import Answer
from wire.signed import Signed, sign_many
from wire.signing import SigningKey

# Bounds of one flush, and of its commit.
ANSWERS_MAX = 256
BYTES_MAX = 4 << 20

Ended = Callable[[Answered | BatonError], None]


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task whose answer is accepted and not durable yet."""

    run: TaskState
    delivered: LegResult
    counted: Mapping[int, Tally]
    output: bytes
    ended: Ended


@dataclass(slots=True)
class AnswerKeeping:
    """Signs and keeps answers, each once its task is journaled."""

    key: SigningKey
    environment: Environment
    answers: Answers
    nursery: trio.Nursery
    _tasks: Flushing[EndedTask] = field(init=False)

    def __post_init__(self) -> None:
        self._tasks = Flushing(self.nursery, self._flush, ANSWERS_MAX)

    async def keep(
        self,
        run: TaskState,
        delivered: LegResult,
        counted: Mapping[int, Tally],
        output: bytes,
    ) -> Answered:
        """The answer, once it is durable; StoreError or WireError if it cannot be kept."""
        found: list[Answered | BatonError] = []
        done = trio.Event()

        def ended(one: Answered | BatonError) -> None:
            found.append(one)
            done.set()

        await run.journaled.wait()
        self._tasks.add(EndedTask(run, delivered, counted, output, ended))
        await done.wait()
        if isinstance(found[0], BatonError):
            raise found[0]
        return found[0]

    def keep_soon(self, run: TaskState, delivered: LegResult, output: bytes, ended: Ended) -> None:
        """As `keep`, of a task that nobody checks and nobody waits for: `ended` is told."""
        task = EndedTask(run, delivered, {}, output, ended)
        if run.journaled.is_set():
            self._tasks.add(task)
        else:
            run.when_journaled = partial(self._tasks.add, task)

    async def _flush(self, tasks: list[EndedTask]) -> None:
        some: list[EndedTask] = []
        size_bytes = 0
        for task in tasks:
            size_bytes += len(task.output)
            if some and size_bytes > BYTES_MAX:
                await self._keep(some)
                some, size_bytes = [], len(task.output)
            some.append(task)
        await self._keep(some)

    async def _keep(self, tasks: list[EndedTask]) -> None:
        try:
            now_ms, now_at_s = int(self.environment.wall_s() * 1000), trio.current_time()
            records = [_answer(it, now_ms, now_at_s) for it in tasks]
            signed = sign_many(records, self.key).signed
            kept = [
                # The receipt was read and checked when it came.
                KeptAnswer(
                    it.run.task,
                    answer,
                    it.output,
                    it.delivered.receipts[-1].record.output,
                    it.run.owner,
                )
                for it, answer in zip(tasks, signed, strict=True)
            ]
            await self.answers.keep(kept)
        except (StoreError, WireError) as error:
            if len(tasks) == 1:
                tasks[0].ended(error)
                return
            # One may be too large, by itself or for the room that is left; the others are not.
            for task in tasks:
                await self._keep([task])
            return
        for task, one in zip(tasks, kept, strict=True):
            _tell(task, one.answer, one)


def _tell(task: EndedTask, answer: Signed[Answer], kept: KeptAnswer) -> None:
    task.run.on_event(Kept(answer.id, kept.output_id))
    task.ended(Answered(answer=answer, output=task.output, kept_before=False))


def _answer(task: EndedTask, now_ms: int, now_at_s: float) -> Answer:
    run, counted = task.run, task.counted
    candidates = {it for votes in counted.values() for it in votes.candidates}
    verdicts = [it.raw for votes in counted.values() for it in votes.verdicts]
    return Answer(
        task=run.task.raw,
        receipts=tuple(it.raw for it in task.delivered.receipts),
        secret=secret_of(run.seed, run.attempt),
        candidates=tuple(sorted(candidates))[: limits.CANDIDATES_MAX],
        verdicts=tuple(verdicts[: limits.VERIFIERS_MAX]),
        attempts=run.attempt,
        answered_at_ms=now_ms,
        duration_ms=int((now_at_s - run.started_at_s) * 1000),
    )
