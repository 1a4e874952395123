"""All that the console shows, asked of the commands of the control socket: no other source.

What costs little is asked at every look, the rest seldom; and nothing while nobody watches.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from node.console.history import History
from node.health.finding import Finding
from node.local.control import Command, unheard
from wire.errors import BatonError

PEERS_SHOWN = 50
RECEIPTS_SHOWN = 12
TASKS_SHOWN = 8
SELDOM_S = 10.0
EXAMINED_EVERY_S = 300.0
# However often somebody asks for it.
EXAMINED_AT_MOST_EVERY_S = 10.0

Examine = Callable[[], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleFacts:
    """One look at the peer: what its commands answered. `earnings` is None without a ledger."""

    status: Mapping[str, Any]
    peers: Mapping[str, Any]
    routes: Mapping[str, Any]
    receipts: Mapping[str, Any]
    earnings: Mapping[str, Any] | None
    # None until the first examination is over; `examined_s_ago` is of the latest.
    findings: Sequence[Finding] | None
    examined_s_ago: float
    history: History


@dataclass(slots=True)
class FactSource:
    """Asks the peer's own commands."""

    commands: Mapping[str, Command]
    examine: Examine
    history: History = field(default_factory=History)
    _seldom: dict[str, Any] = field(default_factory=dict)
    _seldom_at_s: float = float("-inf")
    _findings: Sequence[Finding] | None = None
    _examined_at_s: float = float("-inf")
    _examining: bool = False

    async def look(self) -> ConsoleFacts:
        """The peer as it is now."""
        status = await self.ask("status", ask_around=False)
        self.history.look(status)
        now_at_s = trio.current_time()
        if now_at_s - self._seldom_at_s >= SELDOM_S:
            # All of it or nothing: of a command that fails the others' answers are not kept alone.
            self._seldom = {
                "receipts": await self.ask("receipts", count=RECEIPTS_SHOWN),
                "earnings": await self.ask("earnings") if "ledger" in status else None,
            }
            self._seldom_at_s = now_at_s
        return ConsoleFacts(
            status=status,
            peers=await self.ask("peers", count=PEERS_SHOWN),
            routes=await self.ask("routes", count=TASKS_SHOWN),
            findings=self._findings,
            examined_s_ago=now_at_s - self._examined_at_s,
            history=self.history,
            **self._seldom,
        )

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """What one command of the control socket answers."""
        return dict(await self.commands[command](arguments, unheard))

    @property
    def is_due(self) -> bool:
        """Whether the causes of trouble were not looked at for long."""
        return trio.current_time() - self._examined_at_s >= EXAMINED_EVERY_S

    async def examine_again(self) -> bool:
        """Have all causes looked at, which may take seconds; False if that was done just now."""
        now_at_s = trio.current_time()
        if self._examining or now_at_s - self._examined_at_s < EXAMINED_AT_MOST_EVERY_S:
            return False
        self._examining = True
        try:
            self._findings = await self.examine()
        except BatonError:
            # The look failed as a whole: what was found before stands, and it is tried again later.
            return False
        finally:
            self._examined_at_s, self._examining = trio.current_time(), False
        return True
