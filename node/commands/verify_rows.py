"""`verify OUT` and `verify OUT.receipts`: a table of answers and its receipts, checked offline."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.checking.audit import audit
from node.checking.report import Status
from node.commands.output import console, safe, show_json
from node.rows.comparing import TableCheck, answer_columns, outputs_in, read_as_table
from node.rows.job import RECEIPTS_SUFFIX
from node.rows.journal import read_every_frame
from node.rows.reading import TableColumns, open_rows
from wire import limits
from wire.content import ContentId, PeerId
from wire.errors import BatonError, InputError, Malformed, WireError
from wire.plural import plural
from wire.receipt import Answer, Receipt
from wire.rows import (
    RowBundle,
    RowDigest,
    check_row,
    digests_of,
    path_of_row,
    root_of_rows,
)
from wire.signed import Signed, open_signed
from wire.task import Task


@dataclass(slots=True)
class _Found:
    """What was found, over all bundles."""

    rows: int = 0
    bad_rows: int = 0
    bundles: int = 0
    receipts: int = 0
    signers: set[PeerId] = field(default_factory=set)
    answered_by: set[PeerId] = field(default_factory=set)
    # Of the one row that was asked for.
    row: dict[str, Any] | None = None
    # The table of answers beside the receipts, if there is one.
    table: TableCheck | None = None


def verify_table(path: Path, row: int | None, *, as_json: bool) -> None:
    """As `verify_rows`, of a table whose receipts have to lie beside it."""
    receipts = path.with_name(path.name + RECEIPTS_SUFFIX)
    if not receipts.exists():
        raise InputError(
            f"there are no receipts of {path}: {receipts} is not there",
            todo="a table of answers is checked by the file of receipts that ask --rows wrote",
        )
    verify_rows(receipts, row, as_json=as_json, table_needed=True)


def verify_rows(path: Path, row: int | None, *, as_json: bool, table_needed: bool = False) -> None:
    """Check all bundles, or the one with a row, and the table of answers if it lies beside them.

    InputError names the first rows that do not hold.
    """
    table = path.with_name(path.name.removesuffix(RECEIPTS_SUFFIX))
    with ExitStack() as stack:
        is_there = table_needed or (table != path and table.exists())
        _verify(path, table if is_there else None, row, stack, as_json=as_json)


def _verify(
    path: Path, table: Path | None, row: int | None, stack: ExitStack, *, as_json: bool
) -> None:
    found = _Found()
    frames = _frames(path)
    head, due = next(frames), 0
    for frame in frames:
        try:
            first, last = int(frame["first"]), int(frame["last"])
            if table is not None and found.table is None:
                found.table = _table_check(table, path, head, stack)
            if first != due:
                raise Malformed(f"rows from {due} on are missing before them")
            due = last + 1
            if row is None or first <= row <= last:
                _check(found, frame, head, row)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path} is damaged: a bundle is not as it should be") from error
        except BatonError as error:
            raise InputError(
                f"rows {first} to {last} do not hold: {error.message}",
                todo="do not rely on them; have them done again: --force",
            ) from error
    if row is not None and found.row is None:
        raise InputError(f"{path} has no row {row}", todo=f"it has {plural(due, 'row')}, from 0 on")
    if found.table is not None and row is None:
        try:
            found.table.end()
        except WireError as error:
            raise _not_signed(error) from error
    _show(found, head, as_json=as_json)


def _table_check(
    table: Path, receipts: Path, head: Mapping[str, Any], stack: ExitStack
) -> TableCheck:
    """The table, opened for as long as `stack` is."""
    operation, keep = str(head["operation"]), tuple(map(str, head.get("keep", ())))
    frames = _frames(receipts)
    next(frames)
    # The outputs of a function are known from the first bundle that has any.
    output = next((it for one in frames for it in outputs_in(one, operation)), None)
    names = answer_columns(operation, keep, output)
    source = open_rows(table, TableColumns(kept=("row", *names.values())))
    stack.callback(source.close)
    return TableCheck(operation, keep, read_as_table(iter(source)))


def _not_signed(error: BatonError) -> InputError:
    return InputError(
        f"the table does not hold: {error.message}",
        todo="do not rely on it; have it written again: --force",
    )


def _frames(path: Path) -> Iterator[Mapping[str, Any]]:
    frames = read_every_frame(path)
    head = next(frames, None)
    if head is None or not {"model", "operation", "column"} <= head.keys():
        raise InputError(f"{path} is not a file of receipts of a table")
    yield head
    yield from frames


def _check(
    found: _Found, frame: Mapping[str, Any], head: Mapping[str, Any], row: int | None
) -> None:
    """Everything about one bundle; BatonError for what does not hold."""
    bad = {int(number): str(why) for number, why in frame["bad"]}
    if not 0 <= frame["last"] - frame["first"] < limits.BUNDLE_ROWS_MAX:
        raise Malformed(f"there are more than {limits.BUNDLE_ROWS_MAX}, or none")
    numbers = [it for it in range(frame["first"], frame["last"] + 1) if it not in bad]
    digests = digests_of(numbers, frame["rows"])
    found.rows += len(digests)
    found.bad_rows += len(bad)
    if row is not None and row in bad:
        found.row = {"row": row, "problem": bad[row]}
    if not digests:
        if found.table is not None:
            found.table.check(frame, digests, row)
        return
    signed = open_signed(frame["signed"], RowBundle)
    bundle = signed.record
    if (bundle.first, bundle.last) != (digests[0].number, digests[-1].number):
        raise Malformed("other rows were signed")
    if (bundle.rows, bundle.root) != (len(digests), root_of_rows(digests)):
        raise Malformed("the rows are not those that were signed")
    if str(bundle.model) != head["model"]:
        raise Malformed(f"they are of another model, {bundle.model}")
    if tuple(map(ContentId.of, frame["answers"])) != bundle.answers:
        raise Malformed("the receipts are not those that were signed")
    answers = [_answer(found, it, signed, head) for it in frame["answers"]]
    found.bundles += 1
    found.signers.add(signed.signer)
    if found.table is not None:
        found.table.check(frame, digests, row)
    if row is not None and row not in bad:
        found.row = _one(digests, row, bundle, answers)


def _answer(
    found: _Found, raw: bytes, bundle: Signed[RowBundle], head: Mapping[str, Any]
) -> Signed[Answer]:
    """One receipt: it holds by itself, is of this model, and was asked by who signed the bundle."""
    report = audit(raw, _nothing)
    bad = next((it for it in report.points if it.status is Status.FAILS), None)
    if bad is not None or report.answer is None or report.task is None:
        what = "it cannot be read" if bad is None else bad.what
        raise Malformed(f"a receipt does not hold; what fails is {what!r}")
    stage = report.task.record.stages[-1]
    if (stage.model, stage.operation) != (bundle.record.model, head["operation"]):
        raise Malformed("a receipt is of another model or operation")
    if report.task.signer != bundle.signer:
        raise Malformed(f"a receipt was asked for by another peer, {report.task.signer}")
    found.receipts += 1
    found.answered_by.add(report.receipts[-1].signer)
    return report.answer


def _nothing(_: ContentId) -> bytes | None:
    return None


def _one(
    digests: list[RowDigest], row: int, bundle: RowBundle, answers: list[Signed[Answer]]
) -> dict[str, Any]:
    """The proof of one row, which holds without the others."""
    index = next(place for place, it in enumerate(digests) if it.number == row)
    path = path_of_row(digests, index)
    check_row(bundle, digests[index], index, path)
    answer = answers[index if len(answers) > 1 else 0]
    last = open_signed(answer.record.receipts[-1], Receipt)
    # An output of one block is named by its own hash.
    by_itself = len(answers) == bundle.rows > 1 and not last.record.output.is_tree
    if by_itself and last.record.output.digest != digests[index].output:
        raise Malformed(f"the receipt of row {row} is of another output")
    return {
        "row": row,
        "index": index,
        "rows_in_bundle": bundle.rows,
        "source_sha256": digests[index].source.hex(),
        "output_sha256": digests[index].output.hex(),
        "path": [path[at : at + 32].hex() for at in range(0, len(path), 32)],
        "root": bundle.root.hex(),
        "receipt": str(answer.id),
        "answered_by": str(last.signer),
        "level": open_signed(answer.record.task, Task).record.checking.level.word,
        "verdicts": len(answer.record.verdicts),
    }


def _show(found: _Found, head: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "holds": True,
                "model": head["model"],
                "operation": head["operation"],
                "rows": found.rows,
                "bad_rows": found.bad_rows,
                "bundles": found.bundles,
                "receipts": found.receipts,
                "asked_by": sorted(map(str, found.signers)),
                "answered_by": sorted(map(str, found.answered_by)),
                "row": found.row,
                "table": None
                if found.table is None
                else {"same": found.table.same, "unknown": found.table.unknown},
            }
        )
        return
    tell: Callable[[str], None] = console.print
    if found.row is not None and "problem" in found.row:
        tell(f"row {found.row['row']} was not asked: {safe(found.row['problem'])}")
    elif found.row is not None:
        one = found.row
        path = plural(len(one["path"]), "hash")
        tell(f"[green]✓[/green] row {one['row']} is one of {one['rows_in_bundle']} signed together")
        tell(f"  question  sha256 {one['source_sha256']}")
        tell(f"  answer    sha256 {one['output_sha256']}")
        tell(f"  path      {path}, to the root {one['root']}")
        tell(f"  receipt   {one['receipt']}, by {one['answered_by']}")
        tell(f"  level     {one['level']}, with {plural(one['verdicts'], 'verdict')}")
    else:
        tell(
            f"[green]✓[/green] {plural(found.rows, 'row')} in"
            f" {plural(found.bundles, 'bundle')}, with"
            f" {plural(found.receipts, 'receipt')}, hold"
        )
        if found.bad_rows:
            tell(f"  {plural(found.bad_rows, 'row')} marked as bad, and not asked")
    tell(f"  asked by {', '.join(sorted(map(str, found.signers)))}")
    if found.table is None:
        tell("[yellow]?[/yellow] the table of answers: it does not lie beside its receipts")
        return
    if found.table.same:
        tell(
            f"[green]✓[/green] {plural(found.table.same, 'row')} of the table beside it"
            f" {'is' if found.table.same == 1 else 'are'} what was signed"
        )
    if found.table.unknown:
        tell(
            f"[yellow]?[/yellow] {plural(found.table.unknown, 'row')} of the table: what is at"
            " hand does not say what was signed"
        )
    if head.get("keep"):
        tell("[yellow]?[/yellow] the columns that were copied: nobody signs them")
