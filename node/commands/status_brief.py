"""`status` on one screen: who this peer is, whether it serves, how it is reached, what is wrong.

However much there is to tell, 24 rows of 80 columns hold it.
"""

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

from rich.cells import cell_len
from rich.markup import escape
from rich.text import Text

from node.commands.output import clock_words, plain_text
from node.commands.status_lines import (
    belonging_lines,
    model_line,
    network_words,
    news_of,
    noted_words,
    up_words,
    wrong_rows_lines,
)
from node.commands.terminal import LineConsole, broken
from node.commands.to_type import advised, hint
from node.health.reach_words import ALONE, reach_words
from wire.plural import plural

MODELS_MAX = 4
NAME_SHOWN_MAX = 40
COLUMNS = 80
# Besides the line that was typed, and the one that is typed next.
ROWS_MAX = 22
# What is wrong is three rows at most; the whole line is in `status --all`.
LINE_CELLS_MAX = 230
# Whether it is paused is told by what it serves; that it once was is nothing wrong.
_TOLD_ABOVE = ("paused: ", "goes on: ")
_OF_DISK = "store: "
_UNWELL = ("yellow", "red")
_SCREEN = LineConsole(file=StringIO(), width=COLUMNS)


def brief_lines(found: Mapping[str, Any]) -> list[str]:
    """The screen, in markup."""
    belonging = belonging_lines(found)
    head = f"[bold]peer {found['peer']}[/bold] in the network {network_words(found)}"
    lines = [
        _one_row(it)
        for it in (
            _serving_line(found),
            *_reach_lines(found),
            *[it for it in belonging if not _is_unwell(it)][-2:],
            *_model_lines(found["models"]),
            *_work_lines(found),
        )
    ]
    news = [it for it in news_of(found) if not it["line"].startswith(_TOLD_ABOVE)]
    # Strangers cause news without end; what the disk does is not hidden by it.
    of_disk = [it for it in news if it["line"].startswith(_OF_DISK)]
    wrong = [
        *_wrong(found),
        *(_one_row(it, LINE_CELLS_MAX) for it in belonging if _is_unwell(it)),
        *map(_noted_line, of_disk),
    ]
    rest = [_noted_line(it) for it in news if it not in of_disk]
    is_well = not wrong and not rest and not any(map(_is_unwell, lines))
    lines += _fitting(wrong, rest, ROWS_MAX - 1 - len(lines))
    if is_well:
        lines.append("[green]nothing is known to be wrong[/green]")
    return [_one_row(head, COLUMNS), *(f"  {it}" for it in lines)]


def _noted_line(note: Mapping[str, Any]) -> str:
    return f"[yellow]{_cut(advised(noted_words(note)))}[/yellow]"


def _fitting(first: Sequence[str], last: Sequence[str], rows: int) -> list[str]:
    """What has room in so many rows: of the first lines the first, then of the last the last.

    How many were left out is told by a line more.
    """
    lines = [*first, *reversed(last)]
    most, left_out = _fitting_count(lines, rows)
    newest = lines[len(first) : most]
    more = hint(f"and {left_out} more: python -m node status --all")
    return [*lines[: min(most, len(first))], *reversed(newest), *([more] if left_out else [])]


def _fitting_count(lines: Sequence[str], rows: int) -> tuple[int, int]:
    """How many of the lines have room, and how many have none."""
    for place, line in enumerate(lines):
        taken = broken(Text.from_markup(f"  {line}"), _SCREEN).plain.split("\n")
        rows -= sum(1 + (cell_len(it) - 1) // COLUMNS for it in taken)
        # One row is kept for the last line, unless nothing is left for it to tell.
        if rows < (place + 1 < len(lines)):
            return place, len(lines) - place
    return len(lines), 0


def _one_row(line: str, cells: int = COLUMNS - 2) -> str:
    text = Text.from_markup(" ".join(line.split()))
    text.truncate(cells, overflow="ellipsis")
    return text.markup


def _is_unwell(line: str) -> bool:
    return any(it.style in _UNWELL for it in Text.from_markup(line).spans)


def _serving_line(found: Mapping[str, Any]) -> str:
    up = up_words(found)
    roles = ", ".join(found["roles"]) or "nobody"
    if found["paused"]:
        return f"[yellow]serves nobody now: {_cut(found['paused'])}[/yellow]; {up}"
    return f"serves as {roles}; {up}"


def _reach_lines(found: Mapping[str, Any]) -> Iterator[str]:
    reach = found.get("reach")
    if reach is not None:
        line = _cut(reach_words(reach))
        yield f"[yellow]{line}[/yellow]" if reach["how"] == ALONE else line
    seen, there = found["answered_last_minute"], found["connected"]
    if not there:
        # The first of a network is alone, and nothing is wrong with it.
        yield f"[bold]no other peer is connected[/bold]; {found['known']} known"
        return
    colour = "green" if seen else "yellow"
    yield (
        f"[{colour}]{seen} of {plural(there, 'connected peer')} answered it in the last"
        f" minute[/{colour}];"
        f" {found['known']} known"
    )


def _model_lines(models: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    # What does not run comes first: who looks here asks why.
    ordered = sorted(models, key=lambda it: not it["problem"])
    shown = ordered if len(ordered) <= MODELS_MAX else ordered[: MODELS_MAX - 1]
    for model in shown:
        yield model_line({**model, "name": str(model["name"])[:NAME_SHOWN_MAX]}, _cut)
    if rest := ordered[len(shown) :]:
        aside = sum(bool(it["problem"]) for it in rest)
        yield f"and {plural(len(rest), 'model')} more, {aside} with a problem"


def _work_lines(found: Mapping[str, Any]) -> Iterator[str]:
    tasks = found["tasks"]
    yield (
        f"done here: {plural(found['legs_done'], 'leg')} and"
        f" {plural(found['checks_done'], 'check')}"
    )
    yield (
        f"own tasks: {tasks['answered']} answered, {tasks['failed']} failed,"
        f" {tasks['under_way']} under way"
    )


def _wrong(found: Mapping[str, Any]) -> list[str]:
    """What is wrong, the worst first."""
    red, yellow = [], []
    if found["same_key_elsewhere"]:
        red.append("another machine uses this key: a state folder was copied")
    if found["clock_wrong_s"] is not None:
        red.append(f"this machine's clock is {clock_words(found['clock_wrong_s'])} most others'")
    for model in found["models"]:
        red += wrong_rows_lines(model)
    if wrong := found["background_checks"].get("wrong"):
        red.append(f"found wrong afterwards: {plural(wrong, 'answer')} that nobody had checked")
    if found["unmet"]:
        yellow.append(found["unmet"])
    if problem := found.get("ledger", {}).get("problem"):
        yellow.append(f"ledger: {problem}")
    yellow += [f"cannot be kept to: {it}" for it in found.get("guest", {}).get("cannot_tell", ())]
    if found["engine"]["last_failure"]:
        yellow.append(f"engine: {found['engine']['last_failure']}")
    return [
        *(f"[red]{_cut(it)}[/red]" for it in red),
        *(f"[yellow]{_cut(it)}[/yellow]" for it in yellow),
    ]


def _cut(words: object) -> str:
    """Words of others in one line, cut by what is seen of them, and by what is not."""
    line = " ".join(str(words).split())[: 2 * LINE_CELLS_MAX]
    text = Text(plain_text(line))
    text.truncate(LINE_CELLS_MAX, overflow="ellipsis")
    return escape(text.plain)
