"""HTTP/1.1 on this peer's own event loop: who may connect, and that nobody's bytes hurt another.

Whatever exception a client causes ends its own connection alone, and is counted by its kind. What
requests mean is decided by the handler, which is given one `Exchange` for each.
"""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from typing import Any

import trio

from node.gateway.connection_limits import ConnectionSlot, ConnectionTable, prefix_of
from node.gateway.http_connection import (
    Connection,
    Handler,
    HttpLimits,
    HttpStatistics,
    count,
    turn_away,
)

# Connections taken from the kernel before others get their turn.
ACCEPTED_AT_ONCE = 32
# When the machine has no descriptors left.
PAUSE_S = 0.1
# For so long at the end whoever asks is told to go elsewhere, where a closed connection would do.
PARTING_S = 1.0
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_KINDS_MAX = 32


def listening_on(host: str, port: int, backlog: int) -> socket.socket:
    """A socket that listens at an address in digits, so that nothing is looked up; OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.setblocking(False)
    try:
        place.bind((host, port))
        place.listen(backlog)
    except OSError:
        place.close()
        raise
    return place


@dataclass(slots=True)
class HttpServer:
    """The connections of one listener, and what became of them."""

    handler: Handler
    limits: HttpLimits
    wall_s: Callable[[], float]
    # Told of exceptions that nobody expected, by their kind and words.
    note: Callable[[str], None]
    statistics: HttpStatistics = field(default_factory=HttpStatistics)
    table: ConnectionTable = field(init=False)
    _connections: dict[ConnectionSlot, Connection] = field(default_factory=dict)
    _date: tuple[int, bytes] = (-1, b"")
    _closing: bool = False

    def __post_init__(self) -> None:
        self.table = ConnectionTable(self.limits.connections_max)

    def status(self) -> dict[str, Any]:
        """What `status` shows: who is connected now, and counts since the start."""
        return {
            "open": len(self._connections),
            "at_work": sum(it.at_work for it in self._connections),
            **asdict(self.statistics),
        }

    async def accept_all(self, listening: socket.socket, nursery: trio.Nursery) -> None:
        """Serve whoever connects, each as a task of `nursery`, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(listening.fileno())
            for _ in range(ACCEPTED_AT_ONCE):
                try:
                    accepted, address = listening.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    # Else a client was gone before its turn came.
                    if error.errno in _SCARCE:
                        self._evict(self.table.quietest())
                        await trio.sleep(PAUSE_S)
                        break
                    continue
                accepted.setblocking(False)
                with suppress(OSError):
                    # Of a client that is gone by now some systems take no options.
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                nursery.start_soon(self.serve, accepted, (address[0], address[1]))

    async def serve(self, connected: socket.socket, address: tuple[str, int]) -> None:
        """One connection, to its end; the socket is closed by then."""
        place = self.table.add(prefix_of(address[0]), trio.current_time())
        self.statistics.connections += 1
        try:
            evicted = self.table.evicted(place)
            self._evict(evicted)
            if evicted is place:
                turn_away(connected, self._date_now())
                return
            connection = Connection(
                connected,
                address,
                place,
                self.limits,
                self.statistics,
                self.handler,
                self._date_now,
                is_last=self._closing,
            )
            self._connections[place] = connection
            with self._contained():
                await connection.run()
        finally:
            self.table.remove(place)
            self._connections.pop(place, None)
            connected.close()

    async def close(self, within_s: float, leaving: Handler | None = None) -> None:
        """Finish the requests at work, as far as there is time; new ones are given to `leaving`.

        Who is between two requests may be sending one now, and is given a moment to be told.
        """
        self.handler, self._closing = leaving or self.handler, True
        for connection in self._connections.values():
            connection.end_with(self.handler)
        polite_until_at_s = trio.current_time() + PARTING_S
        with trio.move_on_after(within_s):
            while any(it.is_busy for it in self._connections.values()) or (
                self._connections and trio.current_time() < polite_until_at_s
            ):
                await trio.sleep(0.02)
        for connection in list(self._connections.values()):
            connection.scope.cancel()

    def _evict(self, place: ConnectionSlot | None) -> None:
        if place is None:
            return
        self.statistics.evicted += 1
        # A newcomer for whom there is no room has none yet.
        if (connection := self._connections.get(place)) is not None:
            connection.turn_away()

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """Around one connection. Cancellation is no `Exception`, and passes."""
        try:
            yield
        except* Exception as group:  # noqa: BLE001 - the reason stands in tests/tidy
            for error in _leaves(group):
                kind = type(error).__name__
                if kind in self.statistics.errors or len(self.statistics.errors) < _KINDS_MAX:
                    count(self.statistics.errors, kind)
                self.note(f"http: {kind}: {error}")

    def _date_now(self) -> bytes:
        """Now, as a `Date` header says it."""
        now = int(self.wall_s())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True).encode())
        return self._date[1]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
