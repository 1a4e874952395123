"""A whole table answered, bundle by bundle: read, asked, kept in order, and written at the end.

Some bundles are asked for at once, and what is done is kept in their order, so memory is bounded
by the window however long the table is. The journal beside the output is all that a job knows: it
goes on from there after any end.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from node.rows.comparing import outputs_in
from node.rows.in_order import in_order
from node.rows.journal import RowJournal, add_frame, read_frames, write_frames
from node.rows.plan import RowBatch, RowPlan, outputs_of, sources_of
from node.rows.reading import RowSource, format_of
from node.rows.results import RowResults, alike, ranks_of
from node.rows.tensor_rows import arrays_of
from node.rows.writing import open_writer
from store.files import appearing
from wire.content import ContentId
from wire.errors import BatonError, InputError, Malformed, StoreFull
from wire.operations import CALL
from wire.rows import RowBundle, hashed_rows
from wire.signed import open_signed

# Bundles that are asked for at once; what one of them holds is bounded.
WINDOW = 8
SYNC_S = 1.0
JOURNAL_SUFFIX = ".job"
RECEIPTS_SUFFIX = ".receipts"


@dataclass(frozen=True, slots=True)
class BundleAnswer:
    """What came of a bundle: each task's output, the signed bundle, and the receipts it names."""

    outputs: tuple[bytes, ...]
    signed: bytes
    answers: tuple[bytes, ...]
    # What its tasks came to in this job, in millionths.
    charged: int = 0


class RowsUnanswered(InputError):
    """What the model gives for the rows of one bundle is no answer to each of them."""


# Asks for the rows of one bundle; RowsUnanswered, or another BatonError if they cannot be answered.
AskBundle = Callable[[RowBatch, list[bytes]], Awaitable[BundleAnswer]]
# Rows that are done, how much of the table that is (0 to 1), and whether they are only read again.
Progress = Callable[[int, float, bool], None]


def _say_nothing() -> None:
    """Nobody looks."""


def _ignore(_: int) -> None:
    """Nobody pays."""


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The files of one job: what is read, what is written, and what lies beside that."""

    table: Path
    out: Path

    @property
    def journal(self) -> Path:
        return self.out.with_name(self.out.name + JOURNAL_SUFFIX)

    @property
    def receipts(self) -> Path:
        return self.out.with_name(self.out.name + RECEIPTS_SUFFIX)

    def check(self, *, resume: bool, force: bool) -> bool:
        """Whether the job is a new one; InputError for files that would be lost."""
        format_of(self.out)
        if self.out.exists() and self.table.exists() and self.out.samefile(self.table):
            raise InputError(
                f"{self.out} is the table itself, and would be overwritten", todo="name another"
            )
        if not self.out.parent.is_dir():
            raise InputError(f"there is no folder {self.out.parent}", todo="make it first")
        if force:
            for path in (self.journal, self.out, self.receipts):
                path.unlink(missing_ok=True)
            return True
        if self.out.exists():
            raise InputError(
                f"{self.out} is there already", todo="name another file, or replace it: --force"
            )
        if self.journal.exists() and not resume:
            raise InputError(
                f"{self.out} was begun before and not finished",
                todo="go on with it: --resume; or begin again: --force",
            )
        return not self.journal.exists()


@dataclass(frozen=True, slots=True)
class JobEnd:
    """What a job came to. `rows_before` were done when it went on."""

    rows: int
    rows_before: int
    bad_rows: int
    bundles: int


@dataclass(slots=True)
class RowJob:
    """One job; `ask` is how a bundle is answered."""

    plan: RowPlan
    files: JobFiles
    source: RowSource
    ask: AskBundle
    on_progress: Progress
    # Told once everything is answered, and only the output is left to be written.
    on_writing: Callable[[], None] = _say_nothing
    window: int = WINDOW
    # Told what a bundle came to that was done before the job went on, in millionths.
    on_charged_before: Callable[[int], None] = _ignore
    _journal: RowJournal = field(init=False)
    _rows: int = 0
    _rows_before: int = 0
    _bad_rows: int = 0
    _bundles: int = 0
    _synced_at_s: float = 0.0
    # The outputs of a function, as the first rows have them.
    _ranks: dict[str, int] = field(default_factory=dict)

    async def run(self, *, is_new: bool) -> JobEnd:
        """Do what is left, and write the output; BatonError, and then --resume goes on."""
        self._journal = RowJournal(self.files.journal)
        self._synced_at_s = trio.current_time()
        batches = self.plan.batches(self.source)
        await _in_thread(partial(self._journal.open, self.plan.as_map(), is_new=is_new))
        try:
            await self._skip_done(batches)
            await self._do_rest(batches)
            await _in_thread(self._journal.sync)
            self.on_writing()
            await _in_thread(self._write_out)
        finally:
            self._journal.close()
        return JobEnd(self._rows, self._rows_before, self._bad_rows, self._bundles)

    async def _skip_done(self, batches: Iterator[RowBatch]) -> None:
        """Read again what is done already; InputError if the table is another one now."""
        done = self._journal.done()
        while (frame := await _in_thread(partial(next, done, None))) is not None:
            batch = await _in_thread(partial(next, batches, None))
            if batch is None or batch.digest != frame["read"]:
                raise InputError(
                    f"rows {frame['first']} to {frame['last']} of {self.files.table} are not what"
                    " they were when the job was begun",
                    todo="bring the table back as it was, or begin again: --force",
                )
            if not self._ranks:
                await _in_thread(partial(self._check_alike, frame))
            self._count(frame)
            self.on_charged_before(frame.get("charged", 0))
            self.on_progress(self._rows, self.source.read_share, True)
        self._rows_before = self._rows

    async def _do_rest(self, batches: Iterator[RowBatch]) -> None:
        """Ask for the bundles that are left, some at once; keep them in their order."""

        def read() -> _Read | None:
            batch = next(batches, None)
            return None if batch is None else _Read(batch, self.source.read_share)

        await in_order(read, self._ask, self._keep, window=self.window)

    async def _ask(self, read: "_Read") -> dict[str, Any]:
        batch = read.batch
        inputs = self.plan.inputs(batch)
        if not inputs:
            return _frame_of(batch, b"", None)
        try:
            try:
                answer = await self.ask(batch, inputs)
            except RowsUnanswered as error:
                if self.plan.marks_bad:
                    return _frame_of(_marked(batch, error.message), b"", None)
                error.todo += "; or leave them empty: --bad-rows mark --resume"
                raise
            frame: dict[str, Any] = await _in_thread(partial(self._frame, batch, inputs, answer))
        except BatonError as error:
            error.message = f"rows {batch.first} to {batch.last}: {error.message}"
            raise
        return frame

    def _frame(self, batch: RowBatch, inputs: list[bytes], answer: BundleAnswer) -> dict[str, Any]:
        operation, rows = self.plan.operation, len(batch.numbers)
        outputs = outputs_of(operation, answer.outputs, rows)
        hashes, root = hashed_rows(batch.numbers, sources_of(operation, inputs), outputs)
        bundle = open_signed(answer.signed, RowBundle).record
        receipts = tuple(map(ContentId.of, answer.answers))
        if (bundle.root, bundle.answers) != (root, receipts):
            raise Malformed("what the peer signed are not these rows and receipts")
        self._check_alike({"outputs": outputs})
        return _frame_of(batch, hashes, answer)

    def _check_alike(self, frame: dict[str, Any]) -> None:
        """Malformed if a function gave other outputs than before: no table could have both.

        What is kept is written when all rows are there: one answer that does not fit would then
        have been in vain for all others.
        """
        if self.plan.operation != CALL:
            return
        outputs = outputs_in(frame, CALL)
        # The rows of one call have the same outputs.
        for one in outputs if self.plan.one_by_one else outputs[:1]:
            arrays = arrays_of(one)
            self._ranks = self._ranks or ranks_of(arrays)
            try:
                alike(arrays, self._ranks)
            except Malformed as error:
                error.todo = "have these rows asked anew: --resume --fresh"
                raise

    async def _keep(self, read: "_Read", frame: dict[str, Any]) -> None:
        try:
            await _in_thread(partial(self._journal.add, frame))
            if trio.current_time() - self._synced_at_s >= SYNC_S:
                self._synced_at_s = trio.current_time()
                await _in_thread(self._journal.sync)
        except StoreFull as error:
            error.message += f" (at row {frame['first']}; {self._rows} rows are kept)"
            raise
        self._count(frame)
        self.on_progress(self._rows, read.share, False)

    def _count(self, frame: dict[str, Any]) -> None:
        self._rows += frame["last"] - frame["first"] + 1
        self._bad_rows += len(frame["bad"])
        self._bundles += bool(frame["signed"])

    def _write_out(self) -> None:
        """Make the output and the file of receipts of the journal, which then goes."""
        plan, files = self.plan, self.files
        frames = read_frames(files.journal)
        # Of the two files that of receipts is there first.
        with appearing(files.out) as out, appearing(files.receipts) as receipts:
            results = RowResults(plan, partial(read_frames, files.journal))
            writer = open_writer(
                files.out,
                out,
                results.columns(),
                marks=plan.marks_bad,
                for_spreadsheets=plan.for_spreadsheets,
            )
            write_frames(receipts, [next(frames)])
            for frame in frames:
                add_frame(receipts, results.without_outputs(frame))
                for number, cells, problem in results.rows(frame):
                    writer.write(number, cells, problem)
            writer.close()
        files.journal.unlink()


@dataclass(frozen=True, slots=True)
class _Read:
    """A bundle, and how much of the table is read with it."""

    batch: RowBatch
    share: float


def _marked(batch: RowBatch, why: str) -> RowBatch:
    """A bundle none of whose rows is answered."""
    bad = {**dict.fromkeys(batch.numbers, why), **dict(batch.bad)}
    return replace(batch, bad=tuple(sorted(bad.items())))


def _frame_of(batch: RowBatch, hashes: bytes, answer: BundleAnswer | None) -> dict[str, Any]:
    """What the journal keeps of a bundle. The outputs are those of its tasks, as they came."""
    more: dict[str, Any] = {"kept": json.dumps(batch.kept).encode()} if batch.kept else {}
    if answer is not None and answer.charged:
        more["charged"] = answer.charged
    return {
        "first": batch.first,
        "last": batch.last,
        "read": batch.digest,
        "bad": [list(it) for it in batch.bad],
        "rows": hashes,
        "answered": [] if answer is None else list(answer.outputs),
        "signed": b"" if answer is None else answer.signed,
        "answers": [] if answer is None else list(answer.answers),
        **more,
    }


async def _in_thread(work: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(work)
