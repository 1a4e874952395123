"""libp2p's services, as they run here: a task finds the task that started it without a search.

libp2p goes through all tasks of a service for each that it starts: with many connections that is
hundreds, for every peer that comes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.tools.anyio_service.trio_manager import TrioManager
from libp2p.tools.anyio_service.trio_tasks import FunctionTask


class ServiceTasks(TrioManager):  # type: ignore[misc]
    """The tasks of one service."""

    def __init__(self, service: Any) -> None:
        super().__init__(service)
        self._running: dict[trio.lowlevel.Task, FunctionTask] = {}

    async def _run_and_manage_task(self, task: Any) -> None:
        me = trio.lowlevel.current_task()
        if isinstance(task, FunctionTask):
            self._running[me] = task
        try:
            await super()._run_and_manage_task(task)
        finally:
            self._running.pop(me, None)

    def _find_parent_task(self, trio_task: trio.lowlevel.Task) -> FunctionTask | None:
        return self._running.get(trio_task)


@asynccontextmanager
async def running(service: Any) -> AsyncIterator[None]:
    """Have a service run until the block ends."""
    service._manager = manager = ServiceTasks(service)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        await manager.wait_started()
        try:
            yield
        finally:
            await manager.stop()
