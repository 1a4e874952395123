"""`ask --rows`: a whole table asked, row by row, with a bar, and a receipt for each bundle."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from node.commands.ask import SOCKET
from node.commands.output import console, show_json
from node.commands.to_type import hint
from node.local import questions
from node.local.control import call, unheard
from node.rows.job import WINDOW, BundleAnswer, JobEnd, JobFiles, RowJob, RowsUnanswered
from node.rows.plan import RETRY_AFTER_S, ROOM_S, RowBatch, RowPlan
from node.rows.reading import TableColumns, open_rows
from node.rows.tensor_rows import TensorColumns, read_tensor_columns
from node.task.price_bound import PriceBound
from wire.amount import show_credits
from wire.content import ContentId
from wire.errors import BatonError, InputError, Malformed
from wire.operations import CALL, GENERATE
from wire.plural import plural

MODEL_DEADLINE_S = 120.0
TRIES = len(RETRY_AFTER_S) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsAsked:
    """What was typed: the files, what is asked of each row, and the terms of each task."""

    files: JobFiles
    column: str
    tensors: tuple[TensorColumns, ...]
    one_by_one: bool
    keep: tuple[str, ...]
    marks_bad: bool
    for_spreadsheets: bool
    resume: bool
    force: bool
    # As of `ask`: model, operation, system, schema, parameters, terms.
    arguments: Mapping[str, Any]


def rows_asked(table: Mapping[str, Any], arguments: Mapping[str, Any]) -> RowsAsked:
    """What the options about tables say, beside the others of `ask`."""
    return RowsAsked(
        files=JobFiles(table["rows"].expanduser(), table["out"].expanduser()),
        column=table["column"] or "",
        tensors=tuple(map(read_tensor_columns, table["inputs"])),
        one_by_one=table["one_by_one"],
        keep=_names(table["keep"]),
        marks_bad=table["bad_rows"] == "mark",
        for_spreadsheets=table["spreadsheet"],
        resume=table["resume"],
        force=table["force"],
        arguments=arguments,
    )


async def ask_rows(state: Path, asked: RowsAsked, *, as_json: bool) -> None:
    """Ask for every row of a table, and write what comes; BatonError, and --resume goes on."""
    is_new = asked.files.check(resume=asked.resume, force=asked.force)
    bound = PriceBound(int(asked.arguments["price_max"]))
    numbers = tuple(name for it in asked.tensors for name in it.columns)
    source = open_rows(asked.files.table, TableColumns(asked.column, numbers, asked.keep))
    try:
        plan = await _plan(state, asked)
        with _bar() as progress:
            shown = _Shown(progress, source.rows, bound)
            bundles = _Bundles(state, plan, asked, bound, 0 if is_new else WINDOW)
            job = RowJob(
                *(plan, asked.files, source, bundles.ask, shown.on_progress, shown.on_writing),
                on_charged_before=bound.add,
            )
            end = await job.run(is_new=is_new)
    except BatonError as error:
        if bound.charged:
            error.message += (
                f"; {show_credits(bound.charged)} credits were charged so far, and what was"
                " answered is kept"
            )
        raise
    finally:
        source.close()
    _tell(asked.files, end, bundles, as_json=as_json)


async def _plan(state: Path, asked: RowsAsked) -> RowPlan:
    given = asked.arguments
    told = {name: given[name] for name in ("model", "operation", "system", "schema")}
    if asked.tensors and not told["operation"]:
        told["operation"] = CALL
    model = await call(state / SOCKET, "rows-model", told, unheard, deadline_s=MODEL_DEADLINE_S)
    operation = str(model["operation"])
    parameters = questions.generate_parameters(given) if operation == GENERATE else {}
    return RowPlan(
        model=ContentId.parse(str(model["model"])),
        operation=operation,
        column=asked.column,
        parameters=parameters,
        chats=bool(model["chats"]),
        system=given["system"] or "",
        schema=given["schema"] or "",
        marks_bad=asked.marks_bad,
        for_spreadsheets=asked.for_spreadsheets,
        tensors=asked.tensors,
        one_by_one=asked.one_by_one,
        keep=asked.keep,
    )


def _names(typed: str | None) -> tuple[str, ...]:
    names = tuple(it.strip() for it in (typed or "").split(",")) if typed else ()
    if not all(names):
        raise InputError("--keep names a column without a name", todo="for example --keep id,name")
    return names


@dataclass(slots=True)
class _Bundles:
    """Has the running peer answer bundles."""

    state: Path
    plan: RowPlan
    asked: RowsAsked
    bound: PriceBound
    # So many of the first bundles may have been under way when the job ended: what their answers
    # cost then is this job's too.
    begun_before: int
    # Tasks whose answers were there already.
    kept_before: int = 0
    # Whether none has been answered yet.
    is_first: bool = True

    async def ask(self, batch: RowBatch, inputs: list[bytes]) -> BundleAnswer:
        """One bundle over the control socket; BatonError as the peer says it."""
        given, begun_before = self.asked.arguments, self.begun_before > 0
        self.begun_before -= 1
        arguments = {
            "model": str(self.plan.model),
            "operation": self.plan.operation,
            "parameters": dict(self.plan.parameters),
            "inputs": inputs,
            "numbers": list(batch.numbers),
            **{name: given[name] for name in ("level", "needed", "verifiers")},
            "deadline_s": given["deadline_s"],
            "fresh": given["fresh"],
            "price_max": self.bound.left,
            "job": str(self.asked.files.out.absolute()),
            "first": self.is_first,
        }
        pieces = _Pieces(len(inputs), self.bound)
        deadline_s = TRIES * (float(given["deadline_s"]) + ROOM_S + 30)
        result = await call(
            self.state / SOCKET, "rows", arguments, pieces.on_event, deadline_s=deadline_s
        )
        if "unanswered" in result:
            raise RowsUnanswered(str(result["unanswered"]), todo=str(result["todo"]))
        self.is_first = False
        self.kept_before += int(result["kept_before"])
        if begun_before:
            # A peer of an earlier version, which runs on, tells none.
            pieces.count(int(result.get("charged_before", 0)))
        return BundleAnswer(
            tuple(map(bytes, pieces.parts["output"])),
            bytes(result["signed"]),
            tuple(map(bytes, pieces.parts["answer"])),
            pieces.charged,
        )


class _Pieces:
    """Outputs and receipts of a bundle as they come, piece by piece, and what its tasks cost."""

    def __init__(self, count: int, bound: PriceBound) -> None:
        self.bound, self.charged = bound, 0
        self.parts = {name: [bytearray() for _ in range(count)] for name in ("output", "answer")}

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Add a piece where it belongs; Malformed for one that belongs nowhere."""
        amount = event.get("amount")
        if event.get("event") == "charged" and type(amount) is int and amount >= 0:
            self.count(amount)
            return
        parts = self.parts.get(str(event.get("event")), [])
        place, data = event.get("place"), event.get("data")
        if type(place) is not int or not 0 <= place < len(parts) or not isinstance(data, bytes):
            raise Malformed("the peer sent a piece of an answer that nobody asked for")
        parts[place] += data

    def count(self, amount: int) -> None:
        """Count what a task came to."""
        self.charged += amount
        self.bound.charged += amount


def _bar() -> Progress:
    screen = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        # Only for eyes: a script that reads standard error finds one line there, or none.
        disable=not screen.is_terminal,
    )


@dataclass(slots=True)
class _Shown:
    """The bar: rows that are kept, and of the file the part that they are."""

    progress: Progress
    rows_in_all: int | None
    bound: PriceBound
    _task: Any = field(init=False)
    _began: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        self._task = self.progress.add_task("reading", total=1.0, rows="", speed="")

    def on_progress(self, rows: int, share: float, again: bool) -> None:
        """Show how far it is; rows that were done before do not count as speed."""
        if not again and self._began is None:
            self.progress.reset(self._task, description="asking")
            (task,) = self.progress.tasks
            self._began = (rows, task.get_time())
        if self.rows_in_all:
            share = rows / self.rows_in_all
        speed = ""
        if self._began is not None:
            (task,) = self.progress.tasks
            first, began_at_s = self._began
            took_s = task.get_time() - began_at_s
            speed = f"{(rows - first) / took_s:,.0f} rows/s" if took_s > 0 else ""
        of = f" of {self.rows_in_all:,}" if self.rows_in_all else ""
        words = f"{rows:,}{of} rows{_of_bound(self.bound)}"
        self.progress.update(self._task, completed=share, rows=words, speed=speed)

    def on_writing(self) -> None:
        """Say that all is answered, and being written, which no share is known of."""
        self.progress.update(self._task, description="writing the output", total=None)


def _of_bound(bound: PriceBound) -> str:
    if not bound.most:
        return ""
    return f", {show_credits(bound.charged)} of at most {show_credits(bound.most)} credits"


def _tell(files: JobFiles, end: JobEnd, bundles: _Bundles, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "out": str(files.out),
                "receipts": str(files.receipts),
                "rows": end.rows,
                "rows_before": end.rows_before,
                "bad_rows": end.bad_rows,
                "bundles": end.bundles,
                "tasks_kept_before": bundles.kept_before,
                "charged": bundles.bound.charged,
                "price_max": bundles.bound.most,
            }
        )
        return
    before = f", {end.rows_before:,} of them before" if end.rows_before else ""
    cost = _of_bound(bundles.bound)
    console.print(f"{plural(end.rows, 'row')} in {files.out}{before}{cost}")
    if end.bad_rows:
        console.print(
            f"[yellow]{plural(end.bad_rows, 'row')} marked: see the column error[/yellow]"
        )
    have = "has its receipt" if end.bundles == 1 else "have receipts"
    console.print(f"{plural(end.bundles, 'bundle')} {have} in {files.receipts}")
    console.print(hint(f"  check a row: python -m node verify {files.receipts} --row 0"))
