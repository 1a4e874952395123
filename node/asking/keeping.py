"""Keeping answers: those that end together are signed and made durable together."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from node.asking.answers import Answered, Answers, KeptAnswer
from node.asking.journal import Journal
from node.asking.run import TaskState
from node.checking.check_request import listed_of
from node.checking.tally import Tally
from node.dispatch.handoff import LegResult
from node.task.events import Kept
from node.task.flushing import Flushing, in_parts, keep_each
from p2p.adverts import Environment
from wire import limits
from wire.content import PeerId
from wire.errors import BatonError
from wire.lottery import candidates_drawn, secret_of
from wire.ownership import Ownership
from wire.receipt import Answer, VerdictCommitment
from wire.signed import sign_many
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

    @property
    def size_bytes(self) -> int:
        return len(self.output) + len(self.run.inline or b"")


@dataclass(slots=True)
class AnswerKeeping:
    """Signs and keeps answers, each once its task is journaled."""

    key: SigningKey
    environment: Environment
    answers: Answers
    journal: Journal
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

        await run.until_journaled()
        self._tasks.add(EndedTask(run, delivered, counted, output, ended))
        # It ends with this: who cancels it now is too late, and its journal row may be gone.
        with trio.CancelScope(shield=True):
            await done.wait()
        if isinstance(found[0], BatonError):
            raise found[0]
        return found[0]

    def keep_soon(self, run: TaskState, delivered: LegResult, output: bytes, ended: Ended) -> None:
        """As `keep`, of a task that nobody checks and nobody waits for: `ended` is told."""
        task = EndedTask(run, delivered, {}, output, ended)
        if run.is_journaled:
            self._tasks.add(task)
        else:
            run.when_journaled = partial(self._tasks.add, task)

    async def _flush(self, tasks: list[EndedTask]) -> None:
        for some in in_parts(tasks, BYTES_MAX):
            await keep_each(some, self._keep, _kept, _failed)

    async def _keep(self, tasks: list[EndedTask]) -> list[KeptAnswer]:
        now_ms, now_at_s = int(self.environment.wall_s() * 1000), trio.current_time()
        records = [_answer(it, now_ms, now_at_s) for it in tasks]
        kept = [
            # The receipt was read and checked when it came.
            KeptAnswer(
                it.run.task,
                answer,
                it.output,
                it.delivered.receipts[-1].record.output,
                it.run.owner,
                it.run.inline,
            )
            for it, answer in zip(tasks, sign_many(records, self.key), strict=True)
        ]
        async with self.journal.ending_of([it.run.task.id for it in tasks]) as ending:
            await self.answers.keep(kept, ending.rows, ending.unpins)
        return kept


def _kept(task: EndedTask, kept: KeptAnswer) -> None:
    task.run.on_event(Kept(kept.answer.id, kept.output_id))
    task.ended(Answered(answer=kept.answer, output=task.output, kept_before=False))


def _failed(task: EndedTask, error: BatonError) -> None:
    task.ended(error)


def _answer(task: EndedTask, now_ms: int, now_at_s: float) -> Answer:
    run, counted = task.run, task.counted
    candidates = {it for votes in counted.values() for it in votes.candidates}
    signed = {it.signer for votes in counted.values() for it in votes.verdicts}
    known = {peer: it for votes in counted.values() for peer, it in votes.weights.items()}
    secret, receipts = secret_of(run.seed, run.attempt), task.delivered.receipts
    every = {it: known.get(it, 0) for it in candidates}
    drawn_first = candidates_drawn(secret, receipts[-1].id, every)
    listed = listed_of(drawn_first, signed, *(it.drawn for it in counted.values()))
    weights = tuple(known.get(it, 0) for it in listed)
    verdicts = [it.raw for votes in counted.values() for it in votes.verdicts]
    commitments = [
        VerdictCommitment(stage=stage, verifier=verifier, commitment=commitment)
        for stage, votes in sorted(counted.items())
        for verifier, commitment in votes.commitments
    ]
    weighed = dict(zip(listed, weights, strict=True))
    drawn = [(stage, votes.drawn) for stage, votes in sorted(counted.items())]
    mixed = [it.kept(stage, weighed) for stage, it in drawn if it is not None]
    return Answer(
        task=run.task.raw,
        receipts=tuple(it.raw for it in receipts),
        secret=secret,
        candidates=listed,
        verdicts=tuple(verdicts[: limits.VERIFIERS_MAX]),
        attempts=run.attempt,
        answered_at_ms=now_ms,
        duration_ms=int((now_at_s - run.started_at_s) * 1000),
        tied=max((it.tied for it in counted.values()), default=0),
        charges=() if run.bill is None else tuple(run.bill.charges),
        commitments=tuple(commitments),
        weights=weights if any(weights) else (),
        mixed=tuple(it for it in mixed if it is not None),
        owned=told_owners(counted.values(), {*signed, *(it.signer for it in receipts)}),
    )


def told_owners(counted: Iterable[Tally], first: Collection[PeerId] = ()) -> tuple[Ownership, ...]:
    """Whose the peers are that showed the same to the check of each leg; these `first`.

    Who showed it to one of them alone was not kept apart by the others.
    """
    shown = defaultdict[PeerId, set[Ownership | None]](set)
    for votes in counted:
        for peer, one in votes.owned.items():
            shown[peer].add(one)
    same = [next(iter(each)) for _, each in sorted(shown.items()) if len(each) == 1]
    told = sorted((it for it in same if it is not None), key=lambda it: it.peer not in first)
    return tuple(sorted(told[: limits.OWNERSHIPS_MAX], key=lambda it: it.peer))
