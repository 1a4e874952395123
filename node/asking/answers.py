"""Answers that were checked and kept: found again by task, by job, by time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import trio

from node.asking.old_answers import BY_JOB, BY_TASK, BY_TIME, LATER, latest_rows, let_go
from node.checking.votes import Votes
from store import Pin, Row, Store, Table, Write
from wire import limits
from wire.chain import doers_of, legs_to_check
from wire.codec import pack, unpack
from wire.content import ContentId, PeerId
from wire.errors import Missing, StoreError
from wire.receipt import Answer, Receipt, Verdict
from wire.signed import Signed, open_signed
from wire.task import Stage, Task

# A row by task holds the answer's id, followed by the client that the task belongs to.
ID_BYTES = len(ContentId.of(b""))
# In the verdicts table: peers caught lying here, with the time.
LIAR = b"liar:"
LIARS_MAX = 256
# An answer with at least this many agreeing verdicts is not checked again.
NEEDED_LATER = 2
# A larger output is put in a write of its own, because the size of one write is bounded.
OUTPUT_IN_COMMIT_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A task's end: the signed answer and the output it names."""

    answer: Signed[Answer]
    output: bytes
    # Whether the answer is from an earlier task and was only looked up.
    kept_before: bool

    @property
    def cost(self) -> int:
        """What it cost now, in millionths: one that was kept before costs nothing again."""
        charges = () if self.kept_before else self.answer.record.charges
        return sum(it.amount for it in charges)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What is kept of a task that was answered, and whose it is."""

    task: Signed[Task]
    answer: Signed[Answer]
    output: bytes
    output_id: ContentId
    owner: bytes = b""
    # The task's input, where it is small.
    source: bytes | None = None


class Later(StrEnum):
    """The state of a kept answer whose signer was caught lying afterwards."""

    HELD = "held"
    WRONG = "wrong"
    # Signed by a liar, checked by too few verifiers, and not checked again yet.
    SUSPECT = "suspect"


@dataclass(slots=True)
class Answers:
    """The answers in one peer's store."""

    store: Store
    # Set when there may be answers to check again.
    accused: trio.Event = field(default_factory=trio.Event)
    # Who was caught, and when by the wall clock.
    liars: dict[PeerId, int] = field(default_factory=dict)
    # Told of answers once they are durable; it does not wait.
    on_kept: Callable[[Sequence[KeptAnswer]], None] | None = None

    def __post_init__(self) -> None:
        for key, value in self.store.scan(Table.VERDICTS, prefix=LIAR, limit=LIARS_MAX):
            self.liars[PeerId(key.removeprefix(LIAR))] = unpack(value)

    async def of_task(self, task_id: ContentId) -> Answered:
        """The kept answer to a task; Missing if there is none."""
        row = self.store.read(Table.ANSWERS, BY_TASK + task_id)
        if row is None:
            raise Missing(f"no answer to the task {task_id} is kept here")
        return await self._read(ContentId(row[:ID_BYTES]))

    def owner_of(self, task_id: ContentId) -> bytes | None:
        """The client whose task this was; None if the task was not answered here."""
        row = self.store.read(Table.ANSWERS, BY_TASK + task_id)
        return None if row is None else row[ID_BYTES:]

    async def of_job(self, stage: Stage, source: ContentId, needed: int) -> Answered | None:
        """An answer to an earlier task with the same job key, if `needed` verdicts agreed then."""
        row = self.store.read(Table.ANSWERS, BY_JOB + stage.job_key(source))
        if row is None:
            return None
        try:
            found = await self._read(ContentId(row))
        except StoreError:
            return None
        if self.later(found.answer) in (Later.WRONG, Later.SUSPECT):
            return None
        return found if agreeing(found.answer.record) >= needed else None

    # Answers in doubt

    def accuse(self, liar: PeerId, at_ms: int) -> None:
        """Note that verdicts show `liar` to lie: all that it signed until now is suspect."""
        if len(self.liars) >= LIARS_MAX and liar not in self.liars:
            oldest = min(self.liars, key=lambda it: self.liars[it])
            del self.liars[oldest]
            self.store.write_soon(Table.VERDICTS, LIAR + oldest, None)
        self.liars[liar] = at_ms
        self.store.write_soon(Table.VERDICTS, LIAR + liar, pack(at_ms))
        self.accused.set()

    def later(self, answer: Signed[Answer]) -> Later | None:
        """The state of an answer now; None if nobody who signed it was caught since."""
        row = self.store.read(Table.VERDICTS, LATER + answer.id)
        if row is not None:
            return Later(unpack(row)[0])
        return Later.SUSPECT if self.suspect_legs(answer) else None

    def suspect_legs(self, answer: Signed[Answer]) -> list[int]:
        """The legs that ran a model, by a peer caught lying since, with too few verdicts."""
        receipts = [open_signed(raw, Receipt) for raw in answer.record.receipts]
        suspect = []
        for leg in legs_to_check(receipts):
            caught_at_ms = max(self.liars.get(it, 0) for it in doers_of(receipts[leg]))
            if not caught_at_ms or caught_at_ms < answer.record.answered_at_ms:
                continue
            if _agreeing_with(answer.record, receipts[leg].id) < NEEDED_LATER:
                suspect.append(leg)
        return suspect

    async def judged(
        self, answer: Signed[Answer], later: Later, verdicts: Sequence[Signed[Verdict]]
    ) -> None:
        """Keep the result of checking again, with the verdicts that prove it."""
        value = pack([later.value, [it.raw for it in verdicts][: limits.VERIFIERS_MAX]])
        await self.store.commit(Write(rows=(Row(Table.VERDICTS, LATER + answer.id, value),)))

    async def _read(self, answer_id: ContentId) -> Answered:
        answer = open_signed(await self.store.get(answer_id), Answer)
        output = await self.store.get(output_of(answer.record))
        return Answered(answer=answer, output=output, kept_before=True)

    async def latest(self, count: int) -> list[Signed[Answer]]:
        """The answers kept last, latest first."""
        found = []
        for _, answer_id in reversed(latest_rows(self.store, count)):
            try:
                found.append(open_signed(await self.store.get(ContentId(answer_id)), Answer))
            except StoreError:
                # This answer is damaged on the disk; the others can still be read.
                continue
        return found

    async def keep(
        self,
        kept: Sequence[KeptAnswer],
        other_rows: Sequence[Row] = (),
        unpins: Sequence[Pin] = (),
    ) -> None:
        """Keep answers and their outputs, and write what is to be written with them, in one step.

        A task's input is kept too, and is the first to go.
        """
        rows, old_pins = await let_go(self.store, len(kept))
        blobs, pins = dict[bytes, None](), list[Pin]()
        for one in kept:
            rows += _rows_of(one)
            pins += (Pin(one.answer.id, "answer"), Pin(one.output_id, "answer"))
            blobs[one.answer.raw] = None
            if len(one.output) <= OUTPUT_IN_COMMIT_BYTES_MAX:
                blobs[one.output] = None
            else:
                await self.store.put(one.output, pin="answer")
            if one.source is not None:
                blobs[one.source] = None
        rows += other_rows
        await self.store.commit(
            Write(rows=tuple(rows), blobs=tuple(blobs), pins=tuple(pins), unpins=tuple(unpins))
        )
        if old_pins:
            # Afterwards, so that what a new answer holds too is not taken from it.
            new = {it.output_id for it in kept}
            old_pins = [it for it in old_pins if it.id not in new]
            await self.store.commit(Write(unpins=tuple(old_pins)))
        if self.on_kept is not None:
            self.on_kept(kept)


def _rows_of(one: KeptAnswer) -> list[Row]:
    task, answer = one.task, one.answer
    at = answer.record.answered_at_ms.to_bytes(8, "big")
    rows = [
        Row(Table.ANSWERS, BY_TASK + task.id, answer.id + one.owner),
        Row(Table.ANSWERS, BY_TIME + at + answer.id.digest, answer.id),
    ]
    first = task.record.stages[0]
    if len(task.record.stages) == 1 and task.record.input is not None:
        rows.append(Row(Table.ANSWERS, BY_JOB + first.job_key(task.record.input), answer.id))
    return rows


def agreeing(answer: Answer) -> int:
    """How many verifiers agreed with the last leg."""
    return _agreeing_with(answer, open_signed(answer.receipts[-1], Receipt).id)


def _agreeing_with(answer: Answer, receipt: ContentId) -> int:
    votes = Votes(needed=1, verifiers=limits.VERIFIERS_MAX)
    for raw in answer.verdicts:
        verdict = open_signed(raw, Verdict)
        if verdict.record.receipt == receipt:
            votes.add(verdict)
    # Where a row is in dispute, only who looked at it counts; earlier versions counted everybody.
    return len(votes.agreeing)


def output_of(answer: Answer) -> ContentId:
    """The content id of the last leg's output."""
    return open_signed(answer.receipts[-1], Receipt).record.output
