"""Looks at the clock and the machine, and has the peer pause for its owner."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import trio

from node.guest.machine_use import CpuUse, GpuUse
from node.guest.rules import OwnerPolicy, Seen
from node.guest.sensors import Sensors
from node.peer import Node

LOOK_EVERY_S = 2.0
SENSORS_EVERY_S = 5.0


@dataclass(slots=True)
class MachineLook:
    """The machine as its system reports it. `wall_s` is the clock; the zone is the system's."""

    wall_s: Callable[[], float]
    gpus: tuple[int, ...] = ()
    _cpu: CpuUse = field(default_factory=CpuUse)
    _gpu: GpuUse = field(init=False)

    def __post_init__(self) -> None:
        self._gpu = GpuUse(self.gpus)

    async def __call__(self, *, resting: bool) -> Seen:
        return await trio.to_thread.run_sync(self._look, resting)

    def _look(self, resting: bool) -> Seen:
        local = datetime.fromtimestamp(self.wall_s()).astimezone()
        cpu_share = self._cpu.others()
        return Seen(
            minute=local.hour * 60 + local.minute,
            cpu_share=cpu_share,
            gpu_share=self._gpu.others(self._cpu.own, resting=resting) if self.gpus else None,
        )


class Look(Protocol):
    """Looks at the machine; `resting`: whether this peer does no work now."""

    async def __call__(self, *, resting: bool) -> Seen: ...


async def watch_sensors(node: Node, sensors: Sensors) -> None:
    """Have `status` say how hot the machine is and what it runs on, until cancelled."""
    seen: dict[str, float | bool | None] = {}
    node.status_sources["machine"] = seen.copy
    while True:
        seen |= (await trio.to_thread.run_sync(sensors.read)).as_map()
        await trio.sleep(SENSORS_EVERY_S)


async def watch_owner(node: Node, policy: OwnerPolicy, look: Look) -> None:
    """Pause and go on as the owner's rules say; other peers hear of each change at once."""
    while True:
        # Legs that have begun go on while the peer is paused.
        resting = not node.dependencies.engine.statistics().jobs_queued
        seen = await look(resting=resting)
        node.pause(policy.decide(seen, trio.current_time()))
        await trio.sleep(LOOK_EVERY_S)
