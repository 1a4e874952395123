"""`app` in the running peer: what gateways say that this peer's apps are used for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.local.control import Command, Emit
from node.peer import Node


@dataclass(frozen=True, slots=True)
class AppCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {"app_usage": self.usage}

    async def usage(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """What each key spent and how many calls it made, at which gateway."""
        return dict(await self.node.app_owner.usage())
