"""`workflows` in the running peer: added, looked at, run out of turn, paused and forgotten."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.asking.as_maps import fitting
from node.local.arguments import read_number, read_text
from node.local.control import Command, Emit
from node.workflows.delivery import late_ms, told_time
from node.workflows.keeper import RunningWorkflow, WorkflowKeeper
from wire.errors import InputError
from wire.feed import FeedEntry
from wire.signed import Signed

ENTRIES_DEFAULT, ENTRIES_MAX = 20, 1000
# Of one result in a list; the whole of it is `get`.
RESULT_CHARS = 2000
NEXT_SLOTS = 3


@dataclass(frozen=True, slots=True)
class WorkflowCommands:
    """The commands, by name, for one running peer."""

    keeper: WorkflowKeeper

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "workflows-add": self.add,
            "workflows-list": self.all,
            "workflows-show": self.show,
            "workflows-run": self.run,
            "workflows-history": self.history,
            "workflows-pause": self.pause,
            "workflows-resume": self.resume,
            "workflows-rm": self.remove,
        }

    async def add(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep the workflow that `text` describes, called `name` unless it says another name."""
        name = read_text(arguments, "name")
        found = await self.keeper.add(read_text(arguments, "text"), name)
        return {**self._row(found), "slots": self._next_slots(found)}

    async def all(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Every workflow, with its next slot and its last entry."""
        rows = [self._row(it) for it in self.keeper.running.values()]
        broken = [{"name": it, "problem": why} for it, why in self.keeper.problems.items()]
        return {"workflows": rows, "broken": broken}

    async def show(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """One workflow: its file, its next slots, and what waits to be delivered."""
        found = self._named(arguments)
        begun = found.runner.history.begun
        return {
            **self._row(found),
            "slots": self._next_slots(found),
            "text": found.kept_workflow.text,
            "keepers": [str(it) for it in found.kept_workflow.feed.keepers],
            "begun": None
            if begun is None
            else {
                "slot": told_time(begun.slot_ms),
                "tries": begun.tries,
                "why": begun.why,
                "asked": bool(begun.task),
            },
            "destinations": [it.progress_map() for it in found.deliveries],
        }

    async def run(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Run a workflow now, out of turn; its entry."""
        found = self._named(arguments)
        number = await found.runner.run_now()
        (entry,) = found.runner.history.entries(number, 1)
        return await self._entry_row(found, entry)

    async def history(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The last `count` entries of a workflow, latest first, as many as one answer has."""
        found = self._named(arguments)
        count = read_number(arguments, "count", ENTRIES_DEFAULT)
        if not 1 <= count <= ENTRIES_MAX:
            raise InputError(f"{count} entries cannot be shown", todo=f"1 to {ENTRIES_MAX}")
        history = found.runner.history
        entries = history.entries(history.head.number - count + 1, count)
        rows = [await self._entry_row(found, it) for it in reversed(entries)]
        kept = list(fitting(rows))
        name = found.kept_workflow.name
        return {"name": name, "entries": kept, "left_out": len(rows) - len(kept)}

    async def pause(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Begin no slot any more; one that is begun is finished."""
        name = read_text(arguments, "name")
        return self._row(await self.keeper.set_paused(name, paused=True))

    async def resume(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Go on from the next slot; those that passed are missed."""
        name = read_text(arguments, "name")
        return self._row(await self.keeper.set_paused(name, paused=False))

    async def remove(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Forget a workflow and its history."""
        name = read_text(arguments, "name")
        await self.keeper.remove(name)
        return {"name": name}

    # As maps

    def _named(self, arguments: Mapping[str, Any]) -> RunningWorkflow:
        return self.keeper.get(read_text(arguments, "name"))

    def _row(self, found: RunningWorkflow) -> dict[str, Any]:
        runner, feed = found.runner, found.kept_workflow.feed
        last = runner.history.entries(runner.history.head.number, 1)
        waiting = sum(it.progress_map()["waiting"] for it in found.deliveries)
        problems = [runner.problem, *(it.problem for it in found.deliveries)]
        return {
            "name": found.kept_workflow.name,
            "feed": str(feed.id),
            "schedule": feed.schedule,
            "zone": feed.zone,
            "paused": runner.paused,
            "running": runner.history.begun is not None,
            "next": None if runner.paused else told_time(runner.next_ms),
            "entries": runner.history.head.number,
            "last": _entry_map(last[0]) if last else None,
            "waiting": waiting,
            "problem": next(filter(None, problems), ""),
        }

    def _next_slots(self, found: RunningWorkflow) -> list[str]:
        slots, at_ms = [], found.runner.next_ms
        for _ in range(NEXT_SLOTS):
            slots.append(told_time(at_ms))
            at_ms = found.runner.workflow.schedule.after(at_ms)
        return slots

    async def _entry_row(self, found: RunningWorkflow, entry: Signed[FeedEntry]) -> dict[str, Any]:
        data = await found.runner.history.result_of(entry.record)
        result: Any = None
        if data is not None:
            kept = {k: v for k, v in json.loads(data).items() if k not in ("workflow", "slot_ms")}
            # What is long is shown as the beginning of its JSON.
            text = json.dumps(kept)
            result = kept if len(text) <= RESULT_CHARS else text[:RESULT_CHARS] + "…"
        return {**_entry_map(entry), "result": result}


def _entry_map(entry: Signed[FeedEntry]) -> dict[str, Any]:
    it = entry.record
    return {
        "number": it.number,
        "slot": told_time(it.slot_ms),
        "slots": it.span.slots,
        "end": it.end,
        "by_hand": it.by_hand,
        "late_ms": late_ms(it),
        "took_ms": max(0, it.ended_at_ms - it.began_at_ms),
        "tries": it.tries,
        "receipt": None if it.answer is None else str(it.answer),
        "fetch_receipts": [str(one) for one in it.fetches],
        "result_id": None if it.result is None else str(it.result),
        "why": it.why,
    }
