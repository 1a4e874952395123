"""`workflows` in the running peer: added, looked at, run out of turn, paused and forgotten."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from node.asking.as_maps import fitting
from node.local.arguments import read_number, read_path, read_text
from node.local.control import Command, Emit
from node.workflows.delivery import late_ms, told_time
from node.workflows.entry_file import EntryFile
from node.workflows.feed_reading import FeedName
from node.workflows.following import ENTRIES_KEPT, FeedFollower
from node.workflows.history import RESULT_BYTES_MAX
from node.workflows.keeper import RunningWorkflow, WorkflowKeeper
from node.workflows.lost_entries import LostEntries
from wire.content import ContentId
from wire.errors import InputError, StoreError, WireError
from wire.feed import FeedEntry
from wire.plural import plural
from wire.signed import Signed

ENTRIES_DEFAULT, ENTRIES_MAX = 20, 1000
# Of one result in a list; the whole of it is `get`.
RESULT_CHARS = 2000
NEXT_SLOTS = 3
_FORM = "give FEED@KEY, as the keeper's python -m node workflows list --json shows it"


@dataclass(frozen=True, slots=True)
class WorkflowCommands:
    """The commands, by name, for one running peer."""

    keeper: WorkflowKeeper
    follower: FeedFollower

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
            "workflows-follow": self.follow,
            "workflows-export": self.export,
        }

    async def add(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Keep the workflow that `text` describes, called `name` unless it says another name.

        With `standby_of`, FEED@KEY, this peer stands by for that keeper.
        """
        name, text = read_text(arguments, "name"), read_text(arguments, "text")
        standby_of = None
        if arguments.get("standby_of"):
            standby_of = _feed_name(read_text(arguments, "standby_of"))
        found = await self.keeper.add(text, name, standby_of)
        return {**self._row(found), "slots": self._next_slots(found)}

    async def all(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Every workflow, with its next slot and its last entry."""
        rows = [self._row(it) for it in self.keeper.running.values()]
        broken = [{"name": it, "problem": why} for it, why in self.keeper.problems.items()]
        return {"workflows": rows, "broken": broken, "followed": self.follower.as_maps()}

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
        workflow = found.runner.workflow
        emit({"event": "running", "deadline_s": workflow.deadline_s, "tries": workflow.tries})
        number = await found.runner.run_now()
        (entry,) = found.runner.history.entries(number, 1)
        return await self._entry_row(entry, cost=found.runner.history.cost_of(number))

    async def history(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The last `count` entries of a workflow, or of a feed, as many as one answer has."""
        count = read_number(arguments, "count", ENTRIES_DEFAULT)
        if not 1 <= count <= ENTRIES_MAX:
            raise InputError(
                f"{plural(count, 'entry')} cannot be shown", todo=f"1 to {ENTRIES_MAX}"
            )
        name = read_text(arguments, "name")
        history = None
        if (feed := self._followed(name)) is not None:
            entries = self.follower.entries(feed, count)
        else:
            history = self.keeper.get(name).runner.history
            entries = history.entries(history.head.number - count + 1, count)
        lost = self._lost(name)
        rows = []
        for entry in reversed(entries):
            cost = 0 if history is None else history.cost_of(entry.record.number)
            rows.append(await self._entry_row(entry, lost, cost))
        kept = list(fitting(rows))
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
        if (feed := self._followed(name)) is not None:
            await self.follower.forget(feed)
        else:
            await self.keeper.remove(name)
        return {"name": name}

    async def follow(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Follow the feed `FEED@KEY` from now on, and look at it at once."""
        name = _feed_name(read_text(arguments, "feed"))
        found = await self.follower.follow(name)
        await self.follower.look(found)
        row = next(it for it in self.follower.as_maps() if it["feed"] == str(name))
        return {**row, "keepers": [str(it) for it in found.record.keepers] if found.record else []}

    async def export(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Write one entry to the file `path`, with what is needed to check it."""
        path, name = read_path(arguments), read_text(arguments, "name")
        number = read_number(arguments, "number", 1)
        if (feed := self._followed(name)) is not None:
            record = self.follower.feeds[feed].record
            entries = self.follower.entries(feed, ENTRIES_KEPT)
        else:
            kept = self.keeper.get(name)
            record, entries = kept.kept_workflow.feed, kept.runner.history.entries(number, 1)
        entry = next((it for it in entries if it.record.number == number), None)
        if entry is None or record is None:
            raise InputError(f"{name[:40]} has no entry {number} here", todo="see its history")
        result = await self._result(entry) or b""
        data = EntryFile(record=record.to_bytes(), entry=entry.raw, result=result).to_bytes()
        try:
            await trio.to_thread.run_sync(path.write_bytes, data)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from error
        return {"path": str(path), **_entry_map(entry)}

    # As maps

    def _named(self, arguments: Mapping[str, Any]) -> RunningWorkflow:
        return self.keeper.get(read_text(arguments, "name"))

    def _followed(self, name: str) -> ContentId | None:
        """The feed that is followed under this name, `FEED@KEY` or `FEED`."""
        feed = name.partition("@")[0]
        return next((it for it in self.follower.feeds if str(it) == feed), None)

    async def _result(self, entry: Signed[FeedEntry]) -> bytes | None:
        if entry.record.result is None:
            return None
        try:
            store = self.keeper.seams.store
            return await store.get(entry.record.result, size_bytes_max=RESULT_BYTES_MAX)
        except StoreError:
            return None

    def _row(self, found: RunningWorkflow) -> dict[str, Any]:
        runner, feed = found.runner, found.kept_workflow.feed
        last = runner.history.entries(runner.history.head.number, 1)
        waiting = sum(it.progress_map()["waiting"] for it in found.deliveries)
        problems = [runner.problem, *(it.problem for it in found.deliveries)]
        return {
            "name": found.kept_workflow.name,
            "feed": f"{feed.id}@{self.keeper.seams.key.peer}",
            "schedule": feed.schedule,
            "zone": feed.zone,
            "paused": runner.paused,
            "running": runner.history.begun is not None,
            "next": None if runner.paused else told_time(runner.next_ms),
            "entries": runner.history.head.number,
            "last": _entry_map(last[0]) if last else None,
            "waiting": waiting,
            "standing": None if found.watch is None else found.watch.as_map(),
            "problem": next(filter(None, problems), ""),
        }

    def _next_slots(self, found: RunningWorkflow) -> list[str]:
        slots, at_ms = [], found.runner.next_ms
        for _ in range(NEXT_SLOTS):
            slots.append(told_time(at_ms))
            at_ms = found.runner.workflow.schedule.after(at_ms)
        return slots

    def _lost(self, name: str) -> LostEntries | None:
        """What does not count of a workflow or a feed; None where there is one keeper."""
        feed = self._followed(name)
        record = (
            self.keeper.get(name).kept_workflow.feed
            if feed is None
            else self.follower.feeds[feed].record
        )
        if record is None or len(record.keepers) == 1:
            return None
        return LostEntries(self.keeper.seams.store, record)

    async def _entry_row(
        self, entry: Signed[FeedEntry], lost: LostEntries | None = None, cost: int = 0
    ) -> dict[str, Any]:
        data = await self._result(entry)
        result: Any = None
        if data is not None:
            kept = _shown(data)
            # What is long is shown as the beginning of its JSON.
            text = json.dumps(kept)
            result = kept if len(text) <= RESULT_CHARS else text[:RESULT_CHARS] + "…"
        others = [] if lost is None else lost.of_slot(entry.record.slot_ms)
        doubles = [
            {"keeper": str(it.signer), "epoch": it.record.epoch, "result_id": str(it.record.result)}
            for it in others
            if it.record != entry.record
        ]
        return {**_entry_map(entry), "result": result, "doubles": doubles, "charged": cost}


def _feed_name(text: str) -> FeedName:
    try:
        return FeedName.parse(text)
    except WireError as error:
        raise InputError(f"{text[:80]!r} is not the name of a feed", todo=_FORM) from error


def _shown(data: bytes) -> Any:
    """A result without what its entry says too; another peer may have made it."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return found
    return {key: it for key, it in found.items() if key not in ("workflow", "slot_ms")}


def _entry_map(entry: Signed[FeedEntry]) -> dict[str, Any]:
    it = entry.record
    return {
        "number": it.number,
        "keeper": str(entry.signer),
        "epoch": it.epoch,
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
