"""The peer itself: its roles, its engine, the path a task takes, and its command line.

For builders there is the client of a gateway: `node.connect()`, or `node.connect_blocking()`.
"""

from importlib import import_module
from typing import Any

# Their types stand in `__init__.pyi`.
_OFFERED = {"connect": "node.client.net", "connect_blocking": "node.client.blocking"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: importing the package has to stay cheap.
    if name in _OFFERED:
        return getattr(import_module(_OFFERED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
