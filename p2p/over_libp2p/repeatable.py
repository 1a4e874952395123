"""What makes two runs of libp2p differ, taken out: time, chance, and the order of addresses.

libp2p measures by the system's clock how long ago a neighbour was pruned from the mesh. In virtual
time minutes pass in a moment of it, and every neighbour that comes back would look like a flood.
And it keeps a connection's streams in a set of objects: they end in the order of their addresses in
memory, one after the other.

Only the thread that asks for it is meant: another may run a network of its own in real time, and
what that draws must not change what comes next here.
"""

import random
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, MutableSet
from contextlib import contextmanager
from typing import Any

from libp2p.network.connection import swarm_connection
from libp2p.network.connection.swarm_connection import SwarmConn

_LIBRARY = "libp2p"
_FUNCTIONS = (types.BuiltinMethodType, types.FunctionType, types.MethodType)


class ForThisThread(types.ModuleType):
    """Stands for a module or an object: `mine` in the thread that made it, `theirs` elsewhere."""

    def __init__(self, mine: object, theirs: object) -> None:
        super().__init__(type(self).__name__)
        self._mine, self._theirs = mine, theirs
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if threading.get_ident() != self._thread:
            return getattr(self._theirs, name)
        mine = getattr(self._mine, name)
        if isinstance(mine, _FUNCTIONS):
            # It is asked for again and again: from now on it is found without this function.
            vars(self)[name] = self._either(name, mine)
        return mine

    def _either(self, name: str, mine: Callable[..., Any]) -> Callable[..., Any]:
        thread, theirs, this_thread = self._thread, self._theirs, threading.get_ident

        def either(*arguments: Any, **options: Any) -> Any:
            if this_thread() == thread:
                return mine(*arguments, **options)
            return getattr(theirs, name)(*arguments, **options)

        return either


class _Time:
    """What libp2p's modules use of `time`; what else that has, this lacks."""

    def __init__(self, wall_s: Callable[[], float]) -> None:
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
def repeatable_library(wall_s: Callable[[], float], seed: int) -> Iterator[None]:
    """Have libp2p read `wall_s`, draw from `seed` and keep its order while the block runs.

    Time and chance are those of this thread alone; the rest holds for the whole process.
    """
    instead = {
        "time": (time, ForThisThread(_Time(wall_s), time)),
        "random": (random, ForThisThread(random.Random(seed), random)),  # noqa: S311
    }
    readers = [
        (module, name)
        for its_name, module in sys.modules.items()
        for name, (system, _) in instead.items()
        if its_name.partition(".")[0] == _LIBRARY and getattr(module, name, None) is system
    ]
    for module, name in readers:
        setattr(module, name, instead[name][1])
    # The swarm looks the class up there for each connection.
    swarm_connection.SwarmConn = _OrderedConnection
    try:
        yield
    finally:
        swarm_connection.SwarmConn = SwarmConn
        for module, name in readers:
            setattr(module, name, instead[name][0])
