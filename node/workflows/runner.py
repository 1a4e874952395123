"""One workflow as it runs: it waits for its slots, and sees each to its one end.

A run that was cut off by the end of this peer is gone on with when the peer is back: a task that
was asked for is not asked for again. A try that fails is followed by another, with pauses; when
all have failed, the slot has failed, and that is its entry.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from node.ingest.table import DataTable
from node.task.price_bound import PriceBound, part_of_fetches
from node.task.tensor_maps import tensor_maps
from node.workflows.definition import Workflow
from node.workflows.history import (
    BegunSlot,
    SlotResult,
    WorkflowHistory,
    document_size_bytes,
    result_id,
)
from node.workflows.lease import FeedLease
from node.workflows.slots import DueItem, LostSlots, due
from node.workflows.steps import BroughtInput, ModelAnswer, Steps
from p2p.timeouts import stretched
from wire import limits
from wire.content import ContentId
from wire.errors import BatonError, Refused, TooSlow
from wire.feed import DONE, FAILED, MISSED, FeedEntry, SlotSpan

# The wall clock may be set anew at any time: it is looked at this often at least.
# Results of sources are written on the loop up to this size.
_INLINE_BYTES_MAX = 16 << 10
LOOK_S = 20.0
# After a store that would not take something.
STORE_PAUSE_S = 10.0
PAUSE_S, PAUSE_S_MAX = 1.0, 60.0
# For what is asked beside the task itself: a model that has to be known, contents that are fetched.
BESIDE_S = 60.0


@dataclass(slots=True, eq=False)
class _ByHand:
    """Somebody who asked for a run, and waits for its entry."""

    done: trio.Event = field(default_factory=trio.Event)
    number: int = 0


@dataclass(slots=True, eq=False)
class WorkflowRunner:
    """Runs one workflow until it is cancelled."""

    workflow: Workflow
    lease: FeedLease
    history: WorkflowHistory
    steps: Steps
    wall_ms: Callable[[], int]
    paused: bool = False
    # Told once an entry is durable.
    on_entry: Callable[[], None] = lambda: None
    # Why nothing happens, where that is so.
    problem: str = ""
    _busy_until_ms: int = 0
    _wake: trio.Event = field(default_factory=trio.Event)
    _by_hand: _ByHand | None = None
    _stepping: trio.Lock = field(default_factory=trio.Lock)
    _halts: int = 0
    _step_scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def feed(self) -> ContentId:
        """The feed that its entries are of."""
        return self.lease.feed

    async def run(self) -> None:
        """Run every slot at its time, for ever, while this peer holds the feed."""
        while True:
            async with self._stepping:
                if self._halts:
                    # Others wait for the lock, and have it before this loop does again.
                    continue
                with trio.CancelScope() as self._step_scope:
                    try:
                        await self._step()
                        self.problem = ""
                    except BatonError as error:
                        # The store takes nothing now. What is begun stays so.
                        self.problem = str(error)
                        await trio.sleep(STORE_PAUSE_S)

    @asynccontextmanager
    async def halted(self) -> AsyncIterator[None]:
        """No step is under way in the block: one that was is cut off, as if the peer had ended."""
        self._halts += 1
        self._step_scope.cancel()
        try:
            async with self._stepping:
                yield
                if self.lease.epoch is None and self._by_hand is not None:
                    self._by_hand.done.set()
                    self._by_hand = None
        finally:
            self._halts -= 1

    async def run_now(self) -> int:
        """Have one run out of turn, and wait for it; the number of its entry.

        Refused if one is under way that somebody asked for, or another peer keeps the feed.
        """
        self.lease.check_held()
        if self._by_hand is not None:
            raise Refused("a run that somebody asked for is under way", retry_after_s=5.0)
        asked = self._by_hand = _ByHand()
        self.wake()
        await asked.done.wait()
        if not asked.number:
            self.lease.check_held()
        return asked.number

    def wake(self) -> None:
        """Look again at once."""
        self._wake.set()

    @property
    def next_ms(self) -> int:
        """When the next slot is due."""
        return self.workflow.schedule.after(max(self.wall_ms(), self.history.head.cursor_ms))

    async def _step(self) -> None:
        """Do what is due, or wait until something may be."""
        if self.lease.epoch is None:
            await self._wait(self.wall_ms() + int(LOOK_S * 1000))
            return
        if self.history.begun is not None:
            await self._finish(self.history.begun)
        if self._by_hand is not None:
            now_ms = self.wall_ms()
            await self._begin(BegunSlot(slot_ms=now_ms, by_hand=True, began_at_ms=now_ms))
        now_ms = self.wall_ms()
        items = self._due(now_ms)
        for item in items:
            await self._settle(item)
            if self._by_hand is not None:
                return
        if not items:
            await self._wait(self.next_ms)

    def _due(self, now_ms: int) -> list[DueItem]:
        cursor_ms = self.history.head.cursor_ms
        if now_ms <= cursor_ms:
            return []
        schedule = self.workflow.schedule
        if self.paused:
            passed = schedule.between(cursor_ms, now_ms)
            return [] if passed is None else [LostSlots(passed, MISSED)]
        return due(
            schedule,
            self.workflow.rules,
            cursor_ms=cursor_ms,
            busy_until_ms=self._busy_until_ms,
            now_ms=now_ms,
        )

    async def _settle(self, item: DueItem) -> None:
        if isinstance(item, LostSlots):
            await self._lose(item)
        else:
            begun = BegunSlot(slot_ms=item, by_hand=False, began_at_ms=self.wall_ms())
            await self._begin(begun)
            self._busy_until_ms = self.wall_ms()

    async def _wait(self, until_ms: int) -> None:
        left_s = max(0.0, (until_ms - self.wall_ms()) / 1000)
        with trio.move_on_after(min(LOOK_S, left_s)):
            await self._wake.wait()
        self._wake = trio.Event()

    # One slot

    async def _begin(self, begun: BegunSlot) -> None:
        await self.history.begin(begun)
        await self._finish(begun)

    async def _finish(self, begun: BegunSlot) -> None:
        """See a slot to its end, from wherever it is."""
        while True:
            if not begun.task and begun.tries >= self.workflow.tries:
                await self._end(begun, None, None)
                return
            try:
                begun, answer, result = await self._try(begun)
            except BatonError as error:
                begun = replace(self._undone(begun), why=_reason(error))
                await self.history.begin(begun)
                if begun.tries < self.workflow.tries:
                    await trio.sleep(min(PAUSE_S * 2 ** max(0, begun.tries - 1), PAUSE_S_MAX))
            else:
                await self._end(begun, answer, result)
                return

    def _undone(self, begun: BegunSlot) -> BegunSlot:
        """A slot whose try has failed."""
        latest = self.history.begun
        tries = begun.tries if latest is None else max(begun.tries, latest.tries)
        cost = begun.cost if latest is None else max(begun.cost, latest.cost)
        return replace(begun, tries=tries, task=b"", answers=(), contents=(), cost=cost)

    async def _try(self, begun: BegunSlot) -> tuple[BegunSlot, ModelAnswer | None, bytes]:
        """One try, or the rest of one that was cut off; what came of it, as JSON."""
        deadline_s, model = self.workflow.deadline_s, self.workflow.model
        try:
            with trio.fail_after(2 * deadline_s + stretched(BESIDE_S)):
                if begun.task:
                    return await self._told(begun)
                begun = replace(begun, tries=begun.tries + 1)
                # Fetches that a crash cuts off count for all that they may cost.
                may_cost = self._fetches_cost(begun)
                await self.history.begin(replace(begun, cost=begun.cost + may_cost))
                brought, cost = await self._brought(begun)
                begun = replace(
                    begun, answers=brought.answers, contents=brought.contents, cost=cost
                )
                if model is None:
                    return begun, None, await self._of_source(begun, brought)
                left = max(0, self.workflow.price_max - cost)
                task = await self.steps.submit(model, brought, deadline_s, left)
                begun = replace(begun, task=bytes(task))
                await self.history.begin(begun)
                return await self._told(begun)
        except trio.TooSlowError as error:
            raise TooSlow(f"the run took longer than {2 * deadline_s + BESIDE_S:.0f} s") from error

    def _fetches_cost(self, begun: BegunSlot) -> int:
        """What the fetches of a try may cost."""
        workflow = self.workflow
        left, fetches = workflow.price_max - begun.cost, workflow.source.quorum
        part = part_of_fetches(max(0, left), fetches, then=workflow.model is not None)
        return part * fetches

    async def _brought(self, begun: BegunSlot) -> tuple[BroughtInput, int]:
        """What the source gives, and what the slot has cost by then."""
        workflow = self.workflow
        bound = PriceBound(workflow.price_max, begun.cost)
        try:
            brought = await self.steps.bring(
                workflow.source, workflow.deadline_s, bound, then=workflow.model is not None
            )
        finally:
            # A try that failed has cost it all the same.
            if self.history.begun is not None:
                self.history.begun = replace(self.history.begun, cost=bound.charged)
        return brought, bound.charged

    async def _told(self, begun: BegunSlot) -> tuple[BegunSlot, ModelAnswer, bytes]:
        """What the model says that was asked, as JSON, and what the slot has cost then."""
        task = ContentId(begun.task)
        try:
            answer = await self.steps.outcome(task)
        except BatonError:
            if self.history.begun is not None and (cost := self.steps.cost_of(task)):
                self.history.begun = replace(begun, cost=begun.cost + cost)
            raise
        begun = replace(begun, cost=begun.cost + answer.cost)
        return begun, answer, await self._of_model(begun, answer)

    async def _of_source(self, begun: BegunSlot, brought: BroughtInput) -> bytes:
        def document() -> bytes:
            return self._document(begun, _plain(brought))

        # Others say how many numbers or rows there are: millions take seconds to write.
        if len(brought.output) > _INLINE_BYTES_MAX:
            return await trio.to_thread.run_sync(document)
        return document()

    async def _of_model(self, begun: BegunSlot, answer: ModelAnswer) -> bytes:
        # The numbers of a function, as many as the model gives.
        if "outputs" in answer.result:
            return await trio.to_thread.run_sync(self._document, begun, answer.result)
        return self._document(begun, answer.result)

    def _document(self, begun: BegunSlot, result: Mapping[str, Any]) -> bytes:
        found = {"workflow": self.workflow.name, "slot_ms": begun.slot_ms, **result}
        data = json.dumps(found, separators=(",", ":")).encode()
        document_size_bytes(data)
        return data

    async def _end(
        self, begun: BegunSlot, answer: ModelAnswer | None, result: bytes | None
    ) -> None:
        contents = (*begun.contents, *(() if answer is None else answer.contents))
        entry = self._entry(
            end=FAILED if result is None else DONE,
            span=SlotSpan(first_ms=begun.slot_ms, last_ms=begun.slot_ms, slots=1),
            by_hand=begun.by_hand,
            began_at_ms=begun.began_at_ms,
            tries=begun.tries,
            result=None if result is None else result_id(result),
            answer=None if answer is None else answer.answer,
            fetches=begun.answers,
            why=begun.why if result is None else "",
        )
        cursor_ms = 0 if begun.by_hand else begun.slot_ms
        await self.history.append(
            entry, cursor_ms, SlotResult(data=result, contents=contents, cost=begun.cost)
        )
        if begun.by_hand and self._by_hand is not None:
            self._by_hand.number = entry.number
            self._by_hand.done.set()
            self._by_hand = None
        self.on_entry()

    async def _lose(self, lost: LostSlots) -> None:
        now_ms = self.wall_ms()
        entry = self._entry(
            end=lost.end,
            span=lost.span,
            began_at_ms=now_ms,
            why="it was paused" if self.paused else "",
        )
        await self.history.append(entry, lost.span.last_ms, SlotResult())
        self.on_entry()

    def _entry(self, **fields: Any) -> FeedEntry:
        head = self.history.head
        settled: dict[str, Any] = {
            "by_hand": False,
            "tries": 0,
            "result": None,
            "answer": None,
            "fetches": (),
            "epoch": self.lease.held_epoch(),
        }
        return FeedEntry(
            feed=self.feed,
            number=head.number + 1,
            previous=head.digest,
            ended_at_ms=self.wall_ms(),
            **(settled | fields),
        )


def _reason(error: BatonError) -> str:
    """An error as an entry has it: as much of it as fits."""
    return str(error).encode(errors="replace")[: limits.REASON_BYTES_MAX].decode(errors="ignore")


def _plain(brought: BroughtInput) -> dict[str, Any]:
    """A result that no model made: the table, the tensor or the text that came."""
    if brought.tensor_of is not None:
        return {"outputs": tensor_maps(brought.output)}
    if brought.table is not None:
        table: DataTable = brought.table
        return {"columns": list(table.columns), "rows": [list(it) for it in table.rows]}
    return {"text": brought.output.decode(errors="replace")}
