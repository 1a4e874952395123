"""A gateway with an engine in place of the network: only the application and the server."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import trio

from node.asking.following import Follower
from node.asking.run import TaskRequest
from node.engines.hash_engine import HashEngine, hash_manifest
from node.engines.interface import Job
from node.peer import Node
from p2p.joining import Joining
from p2p.notes import Notes
from p2p.score import Standing
from wire.content import ContentId
from wire.errors import Missing
from wire.signing import SigningKey

JOBS_MAX = 512
ME = SigningKey(bytes(32)).peer


@dataclass(slots=True)
class DirectTasks:
    """Takes the place of a peer's tasks: it calls the engine at once."""

    engine: HashEngine
    checking: Any = field(
        default_factory=lambda: SimpleNamespace(
            verifiers=lambda _: [], owners=lambda: SimpleNamespace(owner_of=lambda peer: peer)
        )
    )
    _requests: dict[ContentId, TaskRequest] = field(default_factory=dict)
    _count: int = 0

    async def submit(self, request: TaskRequest) -> ContentId:
        self._count += 1
        task = ContentId.of(self._count.to_bytes(8))
        self._requests[task] = request
        return task

    async def watch(self, task: ContentId, tell: object) -> Any:
        request = self._requests.get(task)
        if request is None:
            raise Missing(f"no answer to the task {task} is kept here")
        (stage,) = request.stages
        assert stage.model is not None
        assert request.input is not None
        job = Job(
            model=stage.model,
            operation=stage.operation,
            input=request.input,
            parameters=stage.parameters,
            deadline_s=request.deadline_s,
        )
        output = await self.engine.infer(job)
        return SimpleNamespace(answer=SimpleNamespace(id=task), output=output.data)

    async def ask(self, request: TaskRequest, follower: Follower) -> Any:
        task = await self.submit(request)
        follower.accepted(task)
        try:
            return await self.watch(task, follower.on_event)
        finally:
            self.cancel(task)

    def cancel(self, task: ContentId) -> None:
        self._requests.pop(task, None)

    def under_way(self, task: ContentId) -> bool:
        return False

    def owner_of(self, task: ContentId) -> bytes | None:
        request = self._requests.get(task)
        return None if request is None else request.owner

    def statistics(self) -> Any:
        return SimpleNamespace(under_way=len(self._requests))


async def direct_node(state: Path) -> Node:
    """The parts of a peer that a gateway needs. `state` is where its API keys would be."""
    # As many jobs as there are clients: what a gateway refuses is measured elsewhere.
    engine, manifest = HashEngine(jobs_max=JOBS_MAX), hash_manifest()
    await engine.load(manifest, {})

    async def nobody(*arguments: object, **options: object) -> None:
        return None

    async def not_kept(content: ContentId) -> bytes:
        raise Missing(f"{content} is not kept here")

    peers = SimpleNamespace(
        mine=lambda: SimpleNamespace(record=SimpleNamespace(plays=lambda _: False)),
        me=ME,
        connected=frozenset,
        joining=Joining,
        standing=lambda _: Standing.GOOD,
        view=SimpleNamespace(living=lambda _: [], advert_of=lambda _: None),
        # There is nobody to meet first.
        neighbours=SimpleNamespace(bootstraps=()),
        dialing=SimpleNamespace(known=dict),
        answered_last_minute=lambda: (0, 0),
        seek=nobody,
    )
    models = SimpleNamespace(
        known=lambda: {manifest.id: manifest},
        manifest_of={manifest.id: manifest}.get,
        name_of=lambda _: manifest.name,
    )
    directory = SimpleNamespace(playing=lambda _: [SimpleNamespace(signer=ME)])
    dependencies = SimpleNamespace(
        engine=SimpleNamespace(statistics=lambda: SimpleNamespace(loading={})),
        environment=SimpleNamespace(wall_s=trio.current_time, random=Random(1), entropy=os.urandom),
        store=SimpleNamespace(get=not_kept),
    )
    notes = Notes(8, trio.current_time)
    node = SimpleNamespace(
        tasks=DirectTasks(engine),
        models=models,
        peers=peers,
        leg_server=SimpleNamespace(dispatcher=SimpleNamespace(directory=directory)),
        # It is known by now that nobody checks.
        started_at_s=-math.inf,
        dependencies=dependencies,
        config=SimpleNamespace(state=state, leave_s=1.0),
        status_sources={},
        ledger=None,
        notes=notes,
        note=notes.note,
    )
    return cast("Node", node)
