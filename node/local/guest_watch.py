"""Looks at the clock and the machine, and has the peer pause for its owner."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import trio

from node.guest.machine_use import CpuUse, GpuUse
from node.guest.rules import OwnerPolicy, Seen
from node.guest.sensors import SensorReading
from node.peer import Node

LOOK_EVERY_S = 2.0


@dataclass(slots=True)
class MachineLook:
    """The machine as its system reports it. `wall_s` is the clock; the zone is the system's."""

    wall_s: Callable[[], float]
    gpus: tuple[int, ...] = ()
    # What the sensors told last, and the bytes of this month.
    reading: Callable[[], SensorReading] = SensorReading
    month_bytes: Callable[[], int] = int
    _cpu: CpuUse = field(default_factory=CpuUse)
    _gpu: GpuUse = field(init=False)

    def __post_init__(self) -> None:
        self._gpu = GpuUse(self.gpus)

    async def __call__(self, *, resting: bool) -> Seen:
        # What others write is read here, and only the machine in the thread.
        month_bytes, reading = self.month_bytes(), self.reading()
        return await trio.to_thread.run_sync(self._look, resting, month_bytes, reading)

    def _look(self, resting: bool, month_bytes: int, reading: SensorReading) -> Seen:
        local = datetime.fromtimestamp(self.wall_s()).astimezone()
        cpu_share = self._cpu.others()
        return Seen(
            minute=local.hour * 60 + local.minute,
            cpu_share=cpu_share,
            gpu_share=self._gpu.others(self._cpu.own, resting=resting) if self.gpus else None,
            celsius=reading.celsius,
            on_battery=reading.on_battery,
            metered=reading.metered,
            month_bytes=month_bytes,
        )


class Look(Protocol):
    """Looks at the machine; `resting`: whether this peer does no work now."""

    async def __call__(self, *, resting: bool) -> Seen: ...


async def watch_owner(node: Node, policy: OwnerPolicy, look: Look) -> None:
    """Pause and go on as the owner's rules say; other peers hear of each change at once."""
    untold: list[str] = []
    node.status_sources["guest"] = lambda: {"cannot_tell": list(untold)}
    while True:
        # Legs that have begun go on while the peer is paused.
        resting = not node.dependencies.engine.statistics().jobs_queued
        seen = await look(resting=resting)
        node.pause(policy.decide(seen, trio.current_time()))
        untold[:] = policy.untold(seen)
        await trio.sleep(LOOK_EVERY_S)
