"""A guest's manners while a peer runs: what the machine tells, what moved, and when to pause."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import trio

from node.guest.monthly import MonthlyTraffic
from node.guest.rules import GuestConfig, OwnerPolicy
from node.guest.sensors import SensorReading, Sensors
from node.local.guest_watch import MachineLook, watch_owner
from node.peer import Node
from p2p.traffic import Traffic
from store.seam import Table
from wire.codec import pack, unpack
from wire.errors import StoreError, WireError

SENSORS_EVERY_S = 5.0
# What a crash may lose of the month's sum.
KEPT_EVERY_S = 20.0
_MONTHS = b"traffic by month"


async def keep_manners(
    node: Node, wall_s: Callable[[], float], traffic: Traffic, sensors: Sensors | None = None
) -> None:
    """Hold the peer to what its machine's owner allows, and have `status` tell, until cancelled."""
    config = node.config.guest
    traffic.limit(config.up_bytes_per_s, config.down_bytes_per_s)
    machine = _Machine(sensors or Sensors())
    metering = _Metering(node, traffic, wall_s, _kept(node))
    node.status_sources["traffic"] = metering.as_map
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metering.keep)
        if config.needs_sensors or node.config.console is not None:
            node.status_sources["machine"] = machine.as_map
            nursery.start_soon(machine.watch)
        if config.pauses:
            look = MachineLook(wall_s, config.watched_gpus, machine.read, metering.month_bytes)
            nursery.start_soon(watch_owner, node, OwnerPolicy(config), look)


@dataclass(slots=True)
class _Machine:
    """What the sensors told last."""

    sensors: Sensors
    reading: SensorReading = field(default_factory=SensorReading)

    async def watch(self) -> None:
        while True:
            self.reading = await trio.to_thread.run_sync(self.sensors.read)
            await trio.sleep(SENSORS_EVERY_S)

    def read(self) -> SensorReading:
        return self.reading

    def as_map(self) -> dict[str, Any]:
        return self.reading.as_map()


@dataclass(slots=True)
class _Metering:
    """The bytes that moved, this month's with those of earlier starts."""

    node: Node
    traffic: Traffic
    wall_s: Callable[[], float]
    months: MonthlyTraffic

    def month_bytes(self) -> int:
        local = datetime.fromtimestamp(self.wall_s()).astimezone()
        moved = self.traffic.sent_bytes + self.traffic.received_bytes
        return self.months.moved(moved, f"{local.year:04}-{local.month:02}")

    async def keep(self) -> None:
        """Keep the sums, now and then; what a disk does not take is told, and tried again."""
        kept = dict(self.months.sums)
        while True:
            await trio.sleep(KEPT_EVERY_S)
            self.month_bytes()
            if self.months.sums == kept:
                continue
            try:
                store = self.node.dependencies.store
                await store.write(Table.META, _MONTHS, pack(dict(self.months.sums)))
                kept = dict(self.months.sums)
            except StoreError as error:
                self.node.note(f"the month's traffic could not be kept: {error.message}")

    def as_map(self) -> dict[str, Any]:
        guest: GuestConfig = self.node.config.guest
        return {
            "sent_bytes": self.traffic.sent_bytes,
            "received_bytes": self.traffic.received_bytes,
            "month_bytes": self.month_bytes(),
            "month_bytes_max": guest.month_bytes_max,
            "up_bytes_per_s": guest.up_bytes_per_s,
            "down_bytes_per_s": guest.down_bytes_per_s,
        }


def _kept(node: Node) -> MonthlyTraffic:
    try:
        raw = node.dependencies.store.read(Table.META, _MONTHS)
        return MonthlyTraffic.of(None if raw is None else unpack(raw))
    except (StoreError, WireError) as error:
        node.note(f"the month's traffic could not be read: {error.message}")
        return MonthlyTraffic()
