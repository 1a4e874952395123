"""The local network by multicast DNS: the only place where zeroconf is imported.

Its own thread hears and answers; names that it hears of are looked up in threads, a few at a time,
and what it may keep of others is bounded by whoever uses it, by closing it.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import trio
from zeroconf import (
    Error,
    IPVersion,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)

from p2p.ip_address import host_of
from p2p.lan import LanSession
from p2p.lan_peers import SERVICE, LanRecord
from wire.errors import TransportError

NAMES_KEPT = 64
RECORDS_KEPT = 64
LOOK_UPS_PER_S = 4.0
LOOK_UP_MS = 1000
# A DNS name has no more, whatever a packet says.
NAME_BYTES_MAX = 255


@dataclass(slots=True)
class _Session:
    """What one open Zeroconf heard."""

    zeroconf: Zeroconf
    own_name: str
    # Filled by zeroconf's thread; the oldest is dropped when it is full.
    names: deque[str] = field(default_factory=lambda: deque(maxlen=NAMES_KEPT))
    records: deque[LanRecord] = field(default_factory=lambda: deque(maxlen=RECORDS_KEPT))

    def on_change(
        self,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """In zeroconf's thread: note a name to be looked up."""
        gone = state_change is ServiceStateChange.Removed
        if not gone and name != self.own_name and len(name) <= NAME_BYTES_MAX:
            self.names.append(name)

    async def look_up_forever(self) -> None:
        """One name after the other."""
        while True:
            await trio.sleep(1.0 / LOOK_UPS_PER_S)
            if not self.names:
                continue
            name = self.names.popleft()
            record = await trio.to_thread.run_sync(self._looked_up, name)
            if record is not None:
                self.records.append(record)

    def _looked_up(self, name: str) -> LanRecord | None:
        try:
            info = ServiceInfo(SERVICE, name)
            if not info.request(self.zeroconf, LOOK_UP_MS) or info.port is None:
                return None
            hosts = tuple(info.parsed_addresses(IPVersion.V4Only))
            return LanRecord(hosts, info.port, dict(info.properties))
        except (Error, OSError, ValueError):
            # It was no service of ours, or not there any more.
            return None

    def heard(self) -> list[LanRecord]:
        found = list(self.records)
        self.records.clear()
        return found

    def remembered(self) -> int:
        return len(self.zeroconf.cache.cache)


@dataclass(frozen=True, slots=True)
class ZeroconfLan:
    """As `p2p.lan.LanService`."""

    @asynccontextmanager
    async def open(
        self, name: str, addresses: tuple[str, ...], said: dict[str, str]
    ) -> AsyncIterator[LanSession]:
        """Tell of a peer and listen; IPv4 alone, on the interfaces of these addresses."""
        hosts = [host_of(it) for it in addresses if ":" not in host_of(it)]
        if not hosts:
            raise TransportError("the local network is spoken to by IPv4, and there is no address")
        port = int(addresses[0].split("/")[4])
        info = ServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            addresses=[ip_address(it).packed for it in hosts],
            port=port,
            properties=dict[Any, Any](said),
            server=f"baton-{name[-12:]}.local.",
        )

        def begin() -> None:
            session.zeroconf.register_service(info)
            ServiceBrowser(session.zeroconf, SERVICE, handlers=[session.on_change])

        try:
            zeroconf = await trio.to_thread.run_sync(_opened, hosts)
        except (Error, OSError) as error:
            raise TransportError(f"the local network cannot be spoken to: {error}") from error
        session = _Session(zeroconf, info.name)
        try:
            try:
                await trio.to_thread.run_sync(begin)
            except (Error, OSError) as error:
                raise TransportError(f"the local network refuses this peer: {error}") from error
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.look_up_forever)
                yield session
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(zeroconf.close)


def _opened(hosts: list[str]) -> Zeroconf:
    """On these interfaces alone; it takes a moment, in a thread."""
    return Zeroconf(interfaces=hosts, ip_version=IPVersion.V4Only)
