"""What `workflows` does: it asks the running peer, and shows what that says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.commands.ask import SOCKET
from node.commands.output import console, safe, short, show_json, show_table
from node.commands.to_type import hint
from node.commands.typed_file import read_text
from node.local.control import call, unheard
from node.workflows.definition import FILE_BYTES_MAX
from node.workflows.entry_file import ENTRY_SUFFIX
from wire import limits
from wire.amount import show_credits
from wire.errors import InputError
from wire.plural import plural

CALL_S = 30.0
RESULT_CHARS = 60


async def add(state: Path, file: Path, standby_of: str, *, as_json: bool) -> None:
    """Keep a workflow, or stand by for a feed's keeper; InputError names the line that is wrong."""
    text = read_text(file, FILE_BYTES_MAX)
    name = "".join(it if it.isalnum() and it.isascii() else "-" for it in file.stem.lower())
    arguments = {"text": text, "name": name.strip("-")[:32] or "workflow"}
    arguments["standby_of"] = standby_of
    found = await _call(state, "add", arguments)
    if as_json:
        show_json(found)
        return
    name = safe(found["name"])
    console.print(f"kept the workflow [bold]{name}[/bold], whose feed is\n{found['feed']}")
    standing = found["standing"]
    if standby_of:
        takes_s = standing["takeover_s"]
        console.print(f"this peer stands by for {standing['holder']}")
        console.print(f"it takes over when that one was silent for {takes_s} s or more")
        return
    console.print(f"it runs next at {', '.join(found['slots'])}")
    if standing is not None:
        console.print(
            "on each of its standbys, with the same file:\n"
            f"python -m node workflows add {safe(file.name)} --standby-of {found['feed']}"
        )
    console.print(hint(f"run it now: python -m node workflows run {name}"))


async def list_workflows(state: Path, *, as_json: bool) -> None:
    """Show every workflow of the peer."""
    found = await _call(state, "list", {})
    if as_json:
        show_json(found)
        return
    if not found["workflows"] and not found["broken"] and not found["followed"]:
        console.print(hint("no workflows yet; add one: python -m node workflows add FILE.toml"))
        return
    columns = ("name", "schedule", "next", "entries", "last", "waiting")
    rows = [[safe(it) for it in _listed(row)] for row in found["workflows"]]
    if rows:
        show_table("workflows", columns, rows)
    if found["followed"]:
        names = ("feed", "name", "schedule", "entries")
        feeds = [[safe(row[it]) for it in names] for row in found["followed"]]
        show_table("followed feeds", names, feeds)
    for row in found["workflows"]:
        if row["standing"] is not None:
            console.print(f"{safe(row['name'])}: {safe(_standing(row['standing']))}")
    for row in found["followed"]:
        if row["doubles"]:
            doubles = row["doubles"]
            console.print(
                f"{safe(row['name'])}: {plural(doubles, 'slot')} had results of two keepers"
            )
    for row in (*found["workflows"], *found["broken"], *found["followed"]):
        if row["problem"]:
            console.print(f"[yellow]{safe(row['name'])}: {safe(row['problem'])}[/yellow]")


def _standing(standing: Mapping[str, Any]) -> str:
    """Which of several keepers runs a workflow, and how the others are, in one line."""
    others = [
        f"{short(it['peer'])} "
        + (f"silent for {it['silent_s']} s" if it["silent_s"] else it["problem"] or "answers")
        for it in standing["keepers"]
    ]
    where = "here" if standing["holds"] else f"at {standing['holder']}, and this peer stands by"
    why = f"; not taken over: {standing['waits']}" if standing["waits"] else ""
    return f"runs {where} (epoch {standing['epoch']}; {', '.join(others)}){why}"


def _listed(row: Mapping[str, Any]) -> list[str]:
    last = row["last"]
    zone = "" if row["zone"] == "UTC" else f" {row['zone']}"
    return [
        row["name"],
        f"{row['schedule']}{zone}",
        row["next"] or "paused",
        str(row["entries"]),
        "" if last is None else f"{last['end']} {last['slot']}",
        str(row["waiting"]),
    ]


async def show(state: Path, name: str, *, as_json: bool) -> None:
    """Show one workflow: its file, its slots, its destinations."""
    found = await _call(state, "show", {"name": name})
    if as_json:
        show_json(found)
        return
    console.print(safe(found["text"].rstrip()) + "\n")
    if found["standing"] is not None:
        console.print(f"keepers  {safe(_standing(found['standing']))}")
    told = "it is paused" if found["paused"] else f"it runs next at {', '.join(found['slots'])}"
    console.print(f"feed     {found['feed']}\n{told}")
    if found["begun"] is not None:
        begun = found["begun"]
        console.print(f"under way: the slot {begun['slot']}, try {begun['tries']}")
        if begun["why"]:
            console.print(f"  [yellow]the try before: {safe(begun['why'])}[/yellow]")
    for to in found["destinations"]:
        console.print(
            f"{to['kind']} {safe(to['place'])}: {to['delivered']} delivered since the start,"
            f" {to['waiting']} waiting"
        )
        if to["problem"]:
            tried = f"failed {plural(to['failed'], 'time')}"
            console.print(f"  [yellow]{tried}, and tried again: {safe(to['problem'])}[/yellow]")
    if found["problem"] not in ("", *(it["problem"] for it in found["destinations"])):
        console.print(f"[yellow]{safe(found['problem'])}[/yellow]")


async def run_now(state: Path, name: str, *, as_json: bool) -> None:
    """Run a workflow, and show its entry; InputError if the run has failed."""
    tell = unheard if as_json else _tell_running
    limit_s = float(limits.DEADLINE_S_MAX)
    entry = await call(state / SOCKET, "workflows-run", {"name": name}, tell, deadline_s=limit_s)
    if as_json:
        show_json(entry)
    else:
        _show_entry(entry)
    if entry["end"] != "done":
        raise InputError(
            f"the run has failed: {entry['why']}",
            todo=f"see python -m node workflows show {name}",
        )


def _tell_running(event: Mapping[str, Any]) -> None:
    console.print(
        f"running: at most {plural(event['tries'], 'try')} of {event['deadline_s']} s each"
    )


def _checked(result: Any) -> str:
    """Whether anybody checked what a model said, as a result tells it."""
    found = result if isinstance(result, dict) else {}
    if (needed := found.get("needed")) is None:
        return ""
    if not needed:
        return 'nobody checked it: [model] says so; verdicts = "2/3" has it checked'
    return f"{plural(int(found.get('verdicts', 0)), 'verdict')}, and {needed} are needed"


def _show_entry(entry: Mapping[str, Any]) -> None:
    console.print(f"entry {entry['number']}: {entry['end']}, in {entry['took_ms'] / 1000:.1f} s")
    if entry["result"] is not None:
        console.print(safe(_as_text(entry["result"])))
    if checked := _checked(entry["result"]):
        console.print(f"[dim]{safe(checked)}[/dim]")
    if entry["receipt"] is not None:
        console.print(
            hint(
                f"receipt {entry['receipt']}\n  check it: python -m node verify {entry['receipt']}"
            )
        )


async def history(state: Path, name: str, count: int, *, as_json: bool) -> None:
    """Show what became of the last slots, latest first."""
    found = await _call(state, "history", {"name": name, "count": count})
    if as_json:
        show_json(found)
        return
    if not found["entries"]:
        console.print(
            hint(
                f"no slot of {safe(name)} has ended yet;"
                f" how far the first is: python -m node workflows show {safe(name)}"
            )
        )
        return
    columns = ["number", "slot", "end", "late", "took", "result", "receipt"]
    rows = [[safe(it) for it in _cells(entry)] for entry in found["entries"]]
    # A peer of an earlier version, which runs on, tells none.
    costs = [entry.get("charged", 0) for entry in found["entries"]]
    if any(costs):
        columns.append("credits")
        rows = [[*row, show_credits(cost)] for row, cost in zip(rows, costs, strict=True)]
    show_table(plural(len(rows), "entry"), columns, rows)
    if len({it["keeper"] for it in found["entries"]}) > 1:
        for keeper in dict.fromkeys(it["keeper"] for it in found["entries"]):
            numbers = [it["number"] for it in found["entries"] if it["keeper"] == keeper]
            console.print(f"{min(numbers)} to {max(numbers)}: {len(numbers)} by {keeper}")
    if found["left_out"]:
        console.print(f"{found['left_out']} more do not fit here: --count, or get RESULT_ID FILE")


def _cells(entry: Mapping[str, Any]) -> list[str]:
    many = f" ({plural(entry['slots'], 'slot')})" if entry["slots"] > 1 else ""
    result = _as_text(entry["result"]) if entry["result"] is not None else entry["why"]
    line = " ".join(result.split())
    return [
        str(entry["number"]),
        entry["slot"],
        entry["end"] + many + (" by hand" if entry["by_hand"] else "") + _doubles(entry),
        f"{entry['late_ms'] / 1000:.1f} s",
        f"{entry['took_ms'] / 1000:.1f} s",
        line if len(line) <= RESULT_CHARS else line[: RESULT_CHARS - 1] + "…",
        "" if entry["receipt"] is None else short(entry["receipt"]),
    ]


def _doubles(entry: Mapping[str, Any]) -> str:
    """Which other keepers ran a slot too, whose results do not count."""
    others = ", ".join(f"{short(it['keeper'])} (epoch {it['epoch']})" for it in entry["doubles"])
    return f"; also by {others}, which does not count" if others else ""


def _as_text(result: Any) -> str:
    """A result as a line: its text where it has one."""
    if isinstance(result, str):
        return result
    if isinstance(result.get("text"), str):
        return str(result["text"])
    rest = {key: it for key, it in result.items() if key not in ("verdicts", "needed")}
    return json.dumps(rest, ensure_ascii=False)


async def follow(state: Path, feed: str, *, as_json: bool) -> None:
    """Follow a feed, and say what is there already."""
    found = await _call(state, "follow", {"feed": feed}, deadline_s=120.0)
    if as_json:
        show_json(found)
        return
    if found["problem"]:
        console.print(f"[yellow]it is followed, but now: {safe(found['problem'])}[/yellow]")
        return
    console.print(f"following {safe(found['name'])} ({safe(found['schedule'])})")
    console.print(
        hint(
            f"{plural(found['entries'], 'entry')} so far; see python -m node workflows"
            f" history {feed}"
        )
    )


async def export(state: Path, name: str, number: int, file: Path, *, as_json: bool) -> None:
    """Write one entry to a file; InputError unless it is called *.entry."""
    if file.suffix != ENTRY_SUFFIX:
        raise InputError(f"{file} has to end in {ENTRY_SUFFIX}", todo="verify knows it by that")
    path = str(file.expanduser().absolute())
    found = await _call(state, "export", {"name": name, "number": number, "path": path})
    if as_json:
        show_json(found)
    else:
        console.print(
            hint(f"wrote {safe(found['path'])}\n  check it: python -m node verify {file}")
        )


_DONE = {"pause": "is paused", "resume": "goes on", "rm": "is forgotten, with its history"}


async def change(state: Path, what: str, name: str, *, as_json: bool) -> None:
    """Pause, resume or forget a workflow."""
    found = await _call(state, what, {"name": name})
    if as_json:
        show_json(found)
    else:
        console.print(f"the workflow {safe(name)} {_DONE[what]}")


async def _call(
    state: Path, what: str, arguments: Mapping[str, Any], deadline_s: float = CALL_S
) -> dict[str, Any]:
    command = f"workflows-{what}"
    return await call(state / SOCKET, command, arguments, unheard, deadline_s=deadline_s)
