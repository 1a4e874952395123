"""The load of a run: tasks due at drawn moments, each watched to its end and compared."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import trio

from node.devnet.invariants import Violations
from node.devnet.open_loop import Latencies, moments
from node.devnet.peer import DevPeer
from node.devnet.tasks import DevnetQuestion, Stream, draw_question
from node.peer import Node
from node.task.events import Event, Failed
from wire.content import ContentId
from wire.errors import InputError, Missing, NotAgreed, Refused, StoreError, TaskFailed

# An asker that is down must be back within this time, or its tasks count as lost.
GRACE_S = 30.0
FAILURES_KEPT = 20


@dataclass(slots=True)
class Counts:
    """How many tasks ended in which way."""

    due: int = 0
    accepted: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    # Told before their deadline that too few verifiers agree with any answer.
    not_agreed: int = 0
    late: int = 0
    wrong: int = 0
    retries: int = 0
    tokens: int = 0
    tokens_lost: int = 0
    tokens_doubled: int = 0

    @property
    def in_flight(self) -> int:
        return self.accepted - self.answered - self.failed - self.not_agreed

    @property
    def lost(self) -> int:
        """How many tasks were accepted, and neither answered nor said to be without a quorum."""
        return self.accepted - self.answered - self.not_agreed


@dataclass(slots=True)
class OpenLoopLoad:
    """Sends tasks at a fixed rate (open loop)."""

    askers: Sequence[DevPeer]
    violations: Violations
    seed: int
    deadline_s: int
    # Two loads of a run draw their tasks by their names.
    name: str = "load"
    # Where the numbers of its tasks begin: no two tasks of a run are alike.
    first: int = 0
    counts: Counts = field(default_factory=Counts)
    latencies: Latencies = field(default_factory=Latencies)
    # When each answer came, and how long after its task was due.
    answers: list[tuple[float, float]] = field(default_factory=list)
    # Why the first few tasks had no answer; how often peers failed, by the reason's first words.
    failures: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    # What a task may cost, in millionths.
    price_max: int = 0
    # Of each accepted task that may cost something: its asker, and what was asked.
    asked: dict[ContentId, tuple[DevPeer, DevnetQuestion]] = field(default_factory=dict)

    async def run(self, rate: float, seconds: float) -> None:
        """Send the tasks, and return once every task has ended."""
        random = Random(f"{self.seed}:{self.name}")
        started_at_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number, at_s in enumerate(moments(rate, seconds, random), self.first):
                question = draw_question(number, random, self.deadline_s)
                asker = random.choice(self.askers)
                await trio.sleep_until(started_at_s + at_s)
                nursery.start_soon(self._ask, question, asker, started_at_s + at_s)

    async def _ask(self, question: DevnetQuestion, asker: DevPeer, due_at_s: float) -> None:
        self.counts.due += 1
        try:
            with trio.fail_after(GRACE_S):
                node = await _up(asker)
            request = replace(question.request, price_max=self.price_max)
            task_id = await node.tasks.submit(request)
        except (Refused, InputError, StoreError, trio.TooSlowError) as error:
            self.counts.refused += 1
            self._failed(question, f"refused: {error}")
            return
        self.counts.accepted += 1
        if self.price_max:
            self.asked[task_id] = (asker, question)
        self.counts.tokens += len(question.tokens)
        until_at_s = due_at_s + self.deadline_s + GRACE_S
        stream = Stream(question.tokens)
        try:
            output = await self._watched(asker, task_id, stream, until_at_s)
        except NotAgreed as error:
            # Its asker knows it in time, and gave out nothing: the report says how many may be.
            self.counts.not_agreed += 1
            self._failed(question, str(error))
            return
        except (TaskFailed, StoreError) as error:
            self.counts.failed += 1
            self._failed(question, str(error))
            self.violations.note(
                "no accepted task is lost", asker.number, f"task {question.number}: {error}"
            )
            return
        self._answered(question, stream, output, due_at_s, asker)

    async def _watched(
        self, asker: DevPeer, task_id: ContentId, stream: Stream, until_at_s: float
    ) -> bytes:
        """The answer; if the asker's peer is started again, the answer from its journal."""

        def on_event(event: Event) -> None:
            stream.see(event)
            if isinstance(event, Failed):
                self.counts.retries += 1
                why = "silent or gone" if event.code is None else event.code.name.lower()
                self.reasons[f"{event.what}: {why}"] += 1

        node: Node | None = None
        with trio.move_on_at(until_at_s):
            while True:
                before, node = node, await _up(asker)
                if before is not None and before is not node:
                    stream.again()
                try:
                    return (await node.tasks.watch(task_id, on_event)).output
                except Missing:
                    # The task went down with its peer, or will soon go on from the journal.
                    await trio.sleep(0.5)
                except Refused:
                    await trio.sleep(1.0)
        raise TaskFailed(f"nothing was heard of it for {GRACE_S:.0f} s after its deadline")

    def _answered(
        self,
        question: DevnetQuestion,
        stream: Stream,
        output: bytes,
        due_at_s: float,
        asker: DevPeer,
    ) -> None:
        now_at_s = trio.current_time()
        counts = self.counts
        counts.answered += 1
        self.latencies.note(now_at_s - due_at_s)
        self.answers.append((now_at_s, now_at_s - due_at_s))
        if now_at_s - due_at_s > self.deadline_s:
            counts.late += 1
            self.violations.note(
                "no task is late",
                asker.number,
                f"task {question.number}: {now_at_s - due_at_s:.1f} s",
            )
        if output != question.answer:
            # The report decides whether there are more of these than chance allows.
            counts.wrong += 1
            return
        counts.tokens_doubled += stream.doubled
        counts.tokens_lost += stream.lost
        if stream.doubled or stream.lost:
            self.violations.note(
                "each token once",
                asker.number,
                f"task {question.number}: {stream.lost} lost, {stream.doubled} doubled",
            )

    def _failed(self, question: DevnetQuestion, why: str) -> None:
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append(f"task {question.number} ({question.kind}): {why}")


async def _up(asker: DevPeer) -> Node:
    """Wait until the asker's peer is up, and return it."""
    while asker.node is None:
        await trio.sleep(0.1)
    return asker.node
