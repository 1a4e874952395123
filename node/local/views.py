"""What the running peer tells of itself besides its status: its settings, and its notes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.local.control import Command, Emit
from node.local.settings import settings_of
from node.peer import Node


@dataclass(frozen=True, slots=True)
class Views:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "config": self.config,
            "logs": self.logs,
        }

    async def config(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Every setting with its origin."""
        return {"settings": settings_of(self.node.config)}

    async def logs(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """What was noted last, oldest first."""
        return {"lines": [*self.node.peers.problems.values(), *self.node.log]}
