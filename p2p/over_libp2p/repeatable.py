"""What makes two runs of libp2p differ, taken out: the system's time, and the order of addresses.

libp2p measures by the system's clock how long ago a neighbour was pruned from the mesh. In virtual
time minutes pass in a moment of it, and every neighbour that comes back would look like a flood.
And it keeps a connection's streams in a set of objects: they end in the order of their addresses in
memory, one after the other.
"""

import sys
from collections.abc import Callable, Iterator, MutableSet
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from libp2p.network.connection import swarm_connection
from libp2p.network.connection.swarm_connection import SwarmConn

_LIBRARY = "libp2p"


class _Time(ModuleType):
    """Stands for the module `time` in libp2p's modules; what else that has, this lacks."""

    def __init__(self, wall_s: Callable[[], float]) -> None:
        super().__init__("time")
        self.time = self.monotonic = self.perf_counter = wall_s
        self.time_ns = lambda: int(wall_s() * 1e9)


class _InOrder(MutableSet[Any]):
    """A set that is walked in the order in which it was filled."""

    def __init__(self) -> None:
        self._items: dict[Any, None] = {}

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: Any) -> None:
        self._items[value] = None

    def discard(self, value: Any) -> None:
        self._items.pop(value, None)

    def copy(self) -> list[Any]:
        return list(self._items)


class _OrderedConnection(SwarmConn):  # type: ignore[misc]
    """A connection whose streams end in the order in which they began."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.streams = _InOrder()


@contextmanager
def repeatable_library(wall_s: Callable[[], float]) -> Iterator[None]:
    """Have libp2p read `wall_s` and keep its order while the block runs, in this whole process."""
    told, system = _Time(wall_s), sys.modules["time"]
    readers = [
        module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == _LIBRARY and getattr(module, "time", None) is system
    ]
    for module in readers:
        module.time = told  # type: ignore[attr-defined]
    # The swarm looks the class up there for each connection.
    swarm_connection.SwarmConn = _OrderedConnection
    try:
        yield
    finally:
        swarm_connection.SwarmConn = SwarmConn
        for module in readers:
            module.time = system  # type: ignore[attr-defined]
