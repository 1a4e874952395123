"""All workflows of one peer: kept in its store, each running in a task of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from node.ingest.http_post import HttpPoster
from node.ingest.location import read_url
from node.ingest.owned import OwnedSources
from node.workflows.definition import Destination, SourceStep, Workflow, read_workflow
from node.workflows.delivery import Delivery, Send, told_time
from node.workflows.feed_calls import FeedCalls
from node.workflows.feed_reading import FeedName
from node.workflows.history import (
    KeptWorkflow,
    WorkflowHistory,
    add_workflow,
    kept_workflows,
    remove_workflow,
)
from node.workflows.lease import FeedLease
from node.workflows.lost_entries import LostEntries
from node.workflows.result_file import ResultFile
from node.workflows.runner import WorkflowRunner
from node.workflows.standing_by import KeeperWatch
from node.workflows.steps import Steps
from node.workflows.webhook import Webhook, key_of
from p2p.connect import TROUBLES
from store import Store, Write
from wire.content import PeerId
from wire.errors import InputError, StoreError
from wire.feed import FeedRecord
from wire.signing import SigningKey

# So many of a workflow's last entries are looked through for the last result.
LOOKED_BACK = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSeams:
    """What a keeper of workflows is given: key, store, clock, what asks and what sends."""

    key: SigningKey
    store: Store
    wall_s: Callable[[], float]
    steps: Steps
    owned: OwnedSources
    poster: HttpPoster
    calls: FeedCalls
    # Tells the owner something, in the log of the peer.
    note: Callable[[str], None] = lambda _line: None


@dataclass(slots=True, eq=False)
class RunningWorkflow:
    """A workflow that runs here."""

    kept_workflow: KeptWorkflow
    runner: WorkflowRunner
    deliveries: tuple[Delivery, ...]
    # None where this peer is the only keeper.
    watch: KeeperWatch | None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True)
class WorkflowKeeper:
    """The workflows of one peer. Made by `open_workflows`."""

    seams: KeeperSeams
    nursery: trio.Nursery
    running: dict[str, RunningWorkflow] = field(default_factory=dict)
    # Of workflows that are kept and cannot be run.
    problems: dict[str, str] = field(default_factory=dict)
    _changing: trio.Lock = field(default_factory=trio.Lock)

    def wall_ms(self) -> int:
        return int(self.seams.wall_s() * 1000)

    def resume(self) -> None:
        """Go on with every workflow that is kept."""
        for kept in kept_workflows(self.seams.store):
            try:
                self._start(kept, read_workflow(kept.text, kept.name))
            except InputError as error:
                # A time zone may be gone from this machine. The others run.
                self.problems[kept.name] = error.message
                self.seams.note(f"the workflow {kept.name} does not run: {error.message}")

    async def add(
        self, text: str, default_name: str, standby_of: FeedName | None = None
    ) -> RunningWorkflow:
        """Keep a workflow and run it from its next slot on; InputError if it cannot run.

        With `standby_of` this peer stands by for the keeper of that feed, which has the same file.
        """
        now_ms, me = self.wall_ms(), self.seams.key.peer
        if standby_of is None:
            workflow = read_workflow(text, default_name)
            if me in workflow.standbys:
                raise InputError("the file names this peer itself as a standby", todo=_STAND_BY)
            feed = _feed_of(workflow, me, now_ms)
        else:
            feed = await self._feed_to_stand_by_for(standby_of)
            workflow = read_workflow(text, feed.name)
            _check_same(workflow, feed)
        if workflow.model is not None and workflow.name not in self.running:
            await self.seams.steps.check(workflow.model)
        async with self._changing:
            known = self.running.get(workflow.name)
            if known is not None and known.kept_workflow.text == text:
                return known
            if known is not None or workflow.name in self.problems:
                raise InputError(
                    f"there is another workflow {workflow.name!r} already, whose file differs: it"
                    " is not replaced, since its history would go on under other terms",
                    todo=f"python -m node workflows rm {workflow.name} forgets it with its history",
                )
            await trio.to_thread.run_sync(self._check_owned, workflow)
            kept = KeptWorkflow(name=workflow.name, text=text, feed=feed, paused=False)
            await add_workflow(self.seams.store, kept, min(now_ms, feed.begun_at_ms))
            return self._start(kept, workflow, is_new=standby_of is None)

    async def _feed_to_stand_by_for(self, name: FeedName) -> FeedRecord:
        """The record of a feed that names this peer as a keeper, from the one who keeps it."""
        me = self.seams.key.peer
        if name.keeper == me:
            raise InputError("this peer keeps that feed itself", todo=_STAND_BY)
        try:
            page = await self.seams.calls.page(name.keeper, name.feed, 1)
            record = FeedRecord.from_bytes(page.record)
        except (*TROUBLES, StoreError) as error:
            raise InputError(
                f"the keeper {name.keeper} does not show the feed: {error.message}",
                todo="its file has to name this peer in standbys, and it has to run",
            ) from error
        if record.id != name.feed:
            raise InputError(f"the keeper {name.keeper} shows another feed")
        if me not in record.keepers:
            raise InputError(
                "the keeper's file does not name this peer as a standby",
                todo=f'standbys = ["{me}"] in it, above its first table',
            )
        return record

    def get(self, name: str) -> RunningWorkflow:
        """A workflow by its name; InputError if there is none."""
        found = self.running.get(name)
        if found is None:
            if name in self.problems:
                raise InputError(f"the workflow {name} does not run: {self.problems[name]}")
            known = ", ".join(self.running) or "none"
            raise InputError(
                f"there is no workflow {name[:40]!r} here (known: {known})",
                todo="add it: python -m node workflows add FILE.toml",
            )
        return found

    async def set_paused(self, name: str, *, paused: bool) -> RunningWorkflow:
        """Begin no slot any more, or again; slots that pass meanwhile are missed."""
        async with self._changing:
            found = self.get(name)
            kept = replace(found.kept_workflow, paused=paused)
            await self.seams.store.commit(Write(rows=(kept.row,)))
            found.kept_workflow, found.runner.paused = kept, paused
        found.runner.wake()
        return found

    async def remove(self, name: str) -> None:
        """End a workflow and forget all that was kept of it."""
        async with self._changing:
            if self.problems.pop(name, None) is None:
                found = self.get(name)
                del self.running[name]
                found.scope.cancel()
                await found.ended.wait()
                await found.runner.history.lost.forget()
            await remove_workflow(self.seams.store, name)

    def statistics(self) -> Mapping[str, Any]:
        """What `status` tells."""
        return {
            name: {
                "paused": it.runner.paused,
                "next": told_time(it.runner.next_ms),
                "entries": it.runner.history.head.number,
                "problem": it.runner.problem,
                "standing_by": it.runner.lease.epoch is None,
            }
            for name, it in self.running.items()
        }

    # Running

    def _start(
        self, kept: KeptWorkflow, workflow: Workflow, *, is_new: bool = False
    ) -> RunningWorkflow:
        seams, alone = self.seams, len(kept.feed.keepers) == 1
        numbers = [
            at for at, it in enumerate(workflow.destinations) if it.kind in ("file", "webhook")
        ]
        lost = LostEntries(seams.store, kept.feed)
        history = WorkflowHistory(
            seams.store, seams.key, kept.name, workflow.keep, lost, tuple(numbers)
        )
        # Whoever has standbys first asks them whether one has taken over.
        epoch = history.head.epoch if alone or is_new else None
        lease = FeedLease(kept.feed, seams.key.peer, workflow.takeover_s, epoch, history.head.epoch)
        deliveries = tuple(
            self._delivery(history, kept, at, workflow.destinations[at]) for at in numbers
        )

        def on_entry() -> None:
            for it in deliveries:
                it.wake()

        runner = WorkflowRunner(
            workflow, lease, history, seams.steps, self.wall_ms, kept.paused, on_entry
        )
        watch = None if alone else KeeperWatch(runner, seams.calls, seams.note)
        found = self.running[kept.name] = RunningWorkflow(kept, runner, deliveries, watch)
        self.nursery.start_soon(self._run, found)
        return found

    async def _run(self, found: RunningWorkflow) -> None:
        with found.scope:
            async with trio.open_nursery() as nursery:
                for one in found.deliveries:
                    nursery.start_soon(one.run)
                nursery.start_soon(found.runner.run)
                if found.watch is not None:
                    nursery.start_soon(found.watch.run)
        found.ended.set()

    def _delivery(
        self, history: WorkflowHistory, kept: KeptWorkflow, number: int, to: Destination
    ) -> Delivery:
        send = _to_file(to, str(kept.feed.id)) if to.kind == "file" else self._to_server(to)
        return Delivery(history, number, f"{to.kind} {to.place}", kept.name, send)

    def _to_server(self, to: Destination) -> Send:
        seams = self.seams
        webhook = Webhook(to.place, to.secret, seams.owned, seams.poster, seams.wall_s)

        async def send(message_id: str, _number: int, body: bytes) -> None:
            await webhook.send(message_id, body)

        return send

    def _check_owned(self, workflow: Workflow) -> None:
        """InputError if something in the owner's folder is missing that every run needs."""
        _check_source(self.seams.owned, workflow.source)
        for to in workflow.destinations:
            if to.kind == "webhook":
                key_of(self.seams.owned.credential(to.secret))
                self.seams.owned.rules().check(read_url(to.place), strange=False)
            elif to.kind == "file" and not _path(to.place).parent.is_dir():
                raise InputError(f"there is no folder {_path(to.place).parent}")


_STAND_BY = "on the standby: python -m node workflows add FILE --standby-of FEED@KEY"


def _check_same(workflow: Workflow, feed: FeedRecord) -> None:
    """InputError unless a file is the one that the keeper of a feed runs."""
    if workflow.digest != feed.definition:
        raise InputError(
            "this file is not the one that the keeper runs: they differ",
            todo="copy the keeper's file here, byte for byte",
        )


def _check_source(owned: OwnedSources, source: SourceStep) -> None:
    if source.quorum > 1 and source.name:
        # The record itself is what several peers are asked for.
        owned.get(source.name)


def _to_file(to: Destination, feed: str) -> Callable[[str, int, bytes], Awaitable[None]]:
    file = ResultFile(_path(to.place), feed)

    async def send(_message_id: str, number: int, body: bytes) -> None:
        await trio.to_thread.run_sync(file.add, number, body)

    return send


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _feed_of(workflow: Workflow, me: PeerId, now_ms: int) -> FeedRecord:
    return FeedRecord(
        name=workflow.name,
        keepers=(me, *workflow.standbys),
        schedule=workflow.schedule.text,
        zone=workflow.schedule.zone,
        definition=workflow.digest,
        begun_at_ms=now_ms,
    )


@asynccontextmanager
async def open_workflows(seams: KeeperSeams) -> AsyncIterator[WorkflowKeeper]:
    """Run the workflows that are kept in the store until the block ends.

    Feeds of others are followed by whoever made the steps.
    """
    async with trio.open_nursery() as nursery:
        keeper = WorkflowKeeper(seams, nursery)
        keeper.resume()
        yield keeper
        nursery.cancel_scope.cancel()
