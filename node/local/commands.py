"""What the running peer does for commands on its own machine.

Arguments come over the control socket from the peer's own user, and are checked all the same.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import trio

from node.local.app_commands import AppCommands
from node.local.ask_commands import AskCommands
from node.local.content_commands import ContentCommands
from node.local.control import Command, Emit
from node.local.fetch_commands import FetchCommands
from node.local.govern_commands import GovernCommands
from node.local.ledger_commands import LedgerCommands
from node.local.member_commands import MemberCommands
from node.local.model_commands import ModelCommands, own_models
from node.local.owner_commands import OwnerCommands
from node.local.receipt_commands import ReceiptCommands
from node.local.row_commands import RowCommands
from node.local.stake_commands import StakeCommands
from node.local.views import Views, noted_lately, owner_text
from node.peer import Node
from store import Statistics, disk_bytes
from wire import limits


@dataclass(slots=True)
class LocalCommands:
    """The commands, by name, for one running peer."""

    node: Node

    def commands(self) -> dict[str, Command]:
        """Every command that the control socket takes, by its name on the socket."""
        return {
            "status": self.status,
            **ModelCommands(self.node).commands(),
            **Views(self.node).commands(),
            **OwnerCommands(self.node).commands(),
            **ReceiptCommands(self.node).commands(),
            **AskCommands(self.node).commands(),
            **ContentCommands(self.node).commands(),
            **LedgerCommands(self.node).commands(),
            **GovernCommands(self.node).commands(),
            **StakeCommands(self.node).commands(),
            **AppCommands(self.node).commands(),
            **FetchCommands(self.node).commands(),
            **RowCommands(self.node).commands(),
            **MemberCommands(self.node).commands(),
        }

    async def status(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        node = self.node
        if arguments.get("ask_around", True):
            await node.peers.neighbours.ask_around()
        answered, connected = node.peers.answered_last_minute()
        store = node.dependencies.store.statistics()
        noted = noted_lately(node, store.problem)
        engine = node.dependencies.engine.statistics()
        orders = node.leg_server.dispatcher.directory.orders
        checks = node.tasks.checking.orders
        return {
            "peer": str(node.peers.me),
            "version": limits.PROTOCOL_VERSION,
            "network": node.config.peers.network,
            "addresses": list(node.peers.endpoint.addresses),
            "roles": sorted(role.name.lower() for role in node.config.roles),
            "owner": owner_text(node),
            "paused": node.leg_server.paused,
            "uptime_s": round(trio.current_time() - node.started_at_s, 1),
            "connected": connected,
            "answered_last_minute": answered,
            "known": len(node.peers.view),
            "neighbour_versions": node.peers.neighbours.told_versions(),
            "models": own_models(node),
            "tasks": self._tasks_map(),
            "background_checks": {
                "share": node.config.background_checks,
                **asdict(node.background_checks.statistics()),
            },
            "queue": self._queue_map(engine.jobs_queued),
            "legs_done": node.leg_server.done,
            "legs_under_way": node.leg_server.under_way,
            # Standing orders, of tasks and of checks: of this peer at others, and of others here.
            "orders": {
                "asking": orders.figures().as_map() if orders is not None else None,
                "serving": node.order_server.figures().as_map(),
                "asking_checks": checks.figures().as_map() if checks is not None else None,
                "serving_checks": node.check_server.figures().as_map(),
            },
            "failed_over": node.leg_server.dispatcher.directory.failed_over,
            "checks_done": node.verify_role.checked,
            "store": await self._store_map(store),
            "engine": {
                "restarts": engine.restarts,
                "last_failure": engine.last_failure,
                "units_done": engine.units_done,
                "memory_bytes": sum(
                    it.memory_bytes for it in node.dependencies.engine.loaded().values()
                ),
            },
            **{name: dict(status()) for name, status in node.status_sources.items()},
            "reach": node.peers.reach_map(),
            "unmet": node.peers.neighbours.unmet,
            **self._heard_map(),
            "problems": [it["line"] for it in noted],
            "noted": noted,
        }

    def _tasks_map(self) -> dict[str, int]:
        tasks = self.node.tasks.statistics()
        return {
            "accepted": tasks.accepted,
            "answered": tasks.answered,
            "failed": tasks.failed,
            "retried": tasks.retried,
            "under_way": tasks.under_way,
        }

    def _queue_map(self, jobs: int) -> dict[str, object]:
        queue = self.node.verify_role.infer_role.fair_queue
        return {"free_slots": queue.free_slots, "wait_s": round(queue.queue_s, 2), "jobs": jobs}

    def _heard_map(self) -> dict[str, object]:
        """What others say of our key and clock, and what became of adverts, calls and tasks."""
        peers, handshakes = self.node.peers.statistics(), self.node.peers.handshake_log
        return {
            "same_key_elsewhere": handshakes.same_key,
            "clock_wrong_s": handshakes.clock_wrong_s(),
            "adverts": {"heard": peers.adverts_heard, "refused": dict(peers.adverts_refused)},
            "connections_cut_after_s": peers.cut_after_s,
            # What runs on this peer's loop; a number that only grows is a leak.
            "loop_tasks": trio.lowlevel.current_statistics().tasks_living,
        }

    async def _store_map(self, store: Statistics) -> dict[str, int]:
        return {
            "used_bytes": store.used_bytes,
            "quota_bytes": store.quota_bytes,
            "blocks": store.blocks,
            # Bytes on the disk, as du counts: blocks and records, and models, which are files.
            "disk_bytes": await self._disk_bytes("store"),
            "files_disk_bytes": await self._disk_bytes("files"),
        }

    async def _disk_bytes(self, name: str) -> int:
        folder = self.node.config.state / name
        return await trio.to_thread.run_sync(disk_bytes, folder)
