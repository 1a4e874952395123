"""Results on their way to a file or a server: kept until they are taken, one after the other.

What cannot be delivered waits on the disk, in order, as long as its entry is kept, and is tried
again with longer and longer pauses. So a server that is down for a day gets all of it afterwards.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import trio

from node.workflows.history import WorkflowHistory
from wire.errors import BatonError
from wire.feed import FeedEntry
from wire.signed import Signed

PAUSE_S, PAUSE_S_MAX = 1.0, 900.0
# What has gone wrong in the store is looked at again so soon.
STORE_PAUSE_S = 10.0

# The end of the year 9999: what other peers sign may be of any time.
_LAST_MS = 253_402_300_799_000

# Takes the id of a message, its number and its bytes.
Send = Callable[[str, int, bytes], Awaitable[None]]


@dataclass(slots=True)
class Delivery:
    """One destination of a workflow: the one at place `number` in its file; `send` gives to it."""

    history: WorkflowHistory
    number: int
    what: str
    name: str
    send: Send
    delivered: int = 0
    problem: str = ""
    failed: int = 0
    _wake: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            waiting = self.history.waiting(self.number, 1)
            if not waiting:
                await self._wake.wait()
                self._wake = trio.Event()
                continue
            try:
                await self._one(waiting[0])
            except BatonError as error:
                self.problem, self.failed = str(error), self.failed + 1
                await trio.sleep(min(PAUSE_S * 2 ** min(self.failed - 1, 20), PAUSE_S_MAX))
            else:
                self.problem, self.failed, self.delivered = "", 0, self.delivered + 1

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    def progress_map(self) -> dict[str, Any]:
        """How it stands, as `workflows show` tells it."""
        waiting = self.history.waiting(self.number, self.history.keep + 1)
        return {
            "kind": self.what.partition(" ")[0],
            "place": self.what.partition(" ")[2],
            "delivered": self.delivered,
            "waiting": len(waiting),
            "oldest": waiting[0] if waiting else None,
            "failed": self.failed,
            "problem": self.problem,
        }

    async def _one(self, number: int) -> None:
        found = self.history.entries(number, 1)
        if found and found[0].record.number == number:
            result = await self.history.result_of(found[0].record)
            body = delivered_bytes(self.name, found[0], result)
            await self.send(_message_id(found[0].record), number, body)
        await self.history.delivered(self.number, number)


def _message_id(record: FeedEntry) -> str:
    """What a server knows a message by: each keeper numbers those of its own epochs."""
    epoch = f".{record.epoch}" if record.epoch else ""
    return f"{record.feed}.{record.number}{epoch}"


def delivered_bytes(name: str, entry: Signed[FeedEntry], result: bytes | None) -> bytes:
    """An entry with its result, as one line of JSON."""
    record = entry.record
    found: dict[str, Any] = {
        "workflow": name,
        "feed": str(record.feed),
        "number": record.number,
        "slot": told_time(record.slot_ms),
        "end": record.end,
        "late_ms": late_ms(record),
        "receipt": None if record.answer is None else str(record.answer),
        "result": None if result is None else _result(result),
    }
    if record.span.slots > 1:
        found |= {"first_slot": told_time(record.span.first_ms), "slots": record.span.slots}
    if record.epoch:
        found["epoch"] = record.epoch
    if record.why:
        found["why"] = record.why
    return json.dumps(found, separators=(",", ":")).encode()


def _result(data: bytes) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(data)
    return {key: it for key, it in found.items() if key not in ("workflow", "slot_ms")}


def late_ms(record: FeedEntry) -> int:
    """How long after its time a slot was begun, or lost."""
    return max(0, record.began_at_ms - record.slot_ms)


def told_time(at_ms: int) -> str:
    """A moment as ISO 8601 has it, in UTC; the last one that it has for what is later."""
    moment = datetime.fromtimestamp(min(at_ms, _LAST_MS) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
