"""What the peer's owner has it do: pause, go on, leave; and what it tells of its choices."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import trio

from node.dispatch.choices import TASKS_KEPT, Decision, weighed
from node.local.arguments import read_number
from node.local.control import Command, Emit
from node.peer import OWNER, Node
from wire.content import PeerId

OWNER_PAUSED = "its owner paused it"


@dataclass(frozen=True, slots=True)
class OwnerCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """What the control socket serves, by name."""
        return {
            "pause": self.pause,
            "resume": self.resume,
            "leave": self.leave,
            "routes": self.routes,
        }

    async def pause(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Take no new work of others until `resume`, or until the peer is started again."""
        self.node.pause(OWNER_PAUSED, by=OWNER)
        return {"paused": self.node.leg_server.paused}

    async def resume(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Go on; what the machine's rules say still holds, and is told as `paused`."""
        self.node.pause("", by=OWNER)
        return {"paused": self.node.leg_server.paused}

    async def leave(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Finish the work in hand and end."""
        self.node.leave_asked.set()
        return {"leaving": True, "legs_under_way": self.node.leg_server.under_way}

    async def routes(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """The `count` tasks handed on last, latest first, with why each peer was chosen or not."""
        count = max(0, read_number(arguments, "count", TASKS_KEPT))
        directory = self.node.leg_server.dispatcher.directory
        rows = [
            {
                "task": str(task),
                "decisions": [self._decision(it, found.failures) for it in found.choices],
            }
            for task, found in directory.choices.latest()[:count]
        ]
        return {"me": str(self.node.peers.me), "tasks": rows}

    def _decision(self, one: Decision, failures: Mapping[PeerId, str]) -> dict[str, Any]:
        rows, left_out = weighed(one, failures)
        return {
            "leg": one.stage + 1,
            "s_ago": round(trio.current_time() - one.at_s, 1),
            "able": len(one.able),
            "peers": [asdict(it) | {"peer": str(it.peer)} for it in rows],
            "left_out": left_out,
        }
