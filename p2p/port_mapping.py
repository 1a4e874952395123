"""Having a home router pass a port on, as long as this peer runs and others get through by it.

What a router says is believed once strangers got through: `p2p.reachability` has them call the
port that it named. A port is asked for an hour, renewed at half of it, and given back at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import trio

from p2p.ip_address import Scope, host_of, is_public, scope_of
from p2p.reachability import Reachability
from wire.errors import BatonError, Refused, Unreachable

LIFETIME_S = 3600
# A router that gives a port for less is asked as often as this at most.
RENEW_S_MIN = 60.0
LOOK_S = 1.0
ASK_DEADLINE_S = 20.0
CLOSE_DEADLINE_S = 3.0
# After a router that does not answer, or says no; and after one whose port nobody gets through.
AGAIN_S, DEAD_AGAIN_S = 900.0, 3600.0
# Strangers are asked so often before a port counts as one that nothing comes through.
JUDGEMENTS = 2


class MappingState(StrEnum):
    """How it stands with the router."""

    NOT_NEEDED = "not needed"
    SILENT = "silent"
    REFUSED = "refused"
    # The router says yes, and passes calls to another machine.
    TAKEN = "taken"
    MADE = "made"
    # It says yes, and strangers do not get through.
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedPort:
    """A port of the router's, by which protocol, and for how long; `host` is "" if unsaid."""

    by: str
    port: int
    external_port: int
    lifetime_s: int
    host: str = ""


class PortTakenError(Refused):
    """The router has given the port to another machine."""


class PortRouter(Protocol):
    """A home router, as it is asked for ports."""

    async def open_port(self, port: int, wanted: int, lifetime_s: int) -> MappedPort:
        """Have calls from outside passed to `port`, at best those to the port `wanted`.

        Unreachable if nothing answers, Refused if it says no, PortTakenError if every port that was
        tried is another machine's.
        """
        ...

    async def close_port(self, mapped: MappedPort) -> None:
        """Have them passed on no more; BatonError if the router does not do so."""
        ...


@dataclass(slots=True)
class PortMapping:
    """Keeps one port of the router's for this peer's."""

    router: PortRouter
    reachability: Reachability
    listening: Callable[[], tuple[str, ...]]
    # Whether there are strangers to be reached by.
    strangers: Callable[[], bool]
    state: MappingState = MappingState.NOT_NEEDED
    why: str = ""
    mapped: MappedPort | None = None
    _due_at_s: float = float("-inf")
    _judged_before: int = 0

    async def run_forever(self) -> None:
        """Open a port where one is needed, and renew it, until cancelled; then give it back."""
        try:
            while True:
                await self._look()
                await trio.sleep(LOOK_S)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_DEADLINE_S, shield=True):
                await self._close()

    def ask_anew(self) -> None:
        """The router may be another one, or have forgotten: it is asked again at once."""
        self._due_at_s = float("-inf")

    async def _look(self) -> None:
        now_at_s, mapped = trio.current_time(), self.mapped
        port = self.reachability.local_port()
        if mapped is not None:
            if port != mapped.port or not self._is_behind_router():
                await self._close()
                self._due_at_s, self.state = float("-inf"), MappingState.NOT_NEEDED
            elif self._is_dead(mapped):
                await self._close()
                self._due_at_s = now_at_s + DEAD_AGAIN_S
                self.state = MappingState.DEAD
                self.why = (
                    f"the router passes port {mapped.external_port} on by {mapped.by}, as it says,"
                    " and nobody outside got through"
                )
            elif now_at_s >= self._due_at_s:
                await self._open(mapped.port, mapped.external_port)
            return
        if now_at_s < self._due_at_s or port is None:
            return
        if self._is_behind_router() and self.strangers() and not self.reachability.confirmed:
            await self._open(port, port)

    def _is_behind_router(self) -> bool:
        """Whether this machine has an address of a local network, and none of the internet."""
        hosts = [host_of(it) for it in self.listening()]
        local = [it for it in hosts if it and scope_of(it) is Scope.PRIVATE]
        return bool(local) and not any(is_public(it) for it in hosts)

    def _is_dead(self, mapped: MappedPort) -> bool:
        judged = self.reachability.judgements - self._judged_before
        return judged >= JUDGEMENTS and not self.reachability.confirmed

    async def _open(self, port: int, wanted: int) -> None:
        before = self.mapped
        try:
            with trio.fail_after(ASK_DEADLINE_S):
                found = await self.router.open_port(port, wanted, LIFETIME_S)
        except (BatonError, trio.TooSlowError) as error:
            self._failed(error, before)
            return
        now_at_s = trio.current_time()
        wait_s = max(RENEW_S_MIN, min(found.lifetime_s, LIFETIME_S) / 2)
        self._due_at_s, self.mapped = now_at_s + wait_s, found
        self.state, self.why = MappingState.MADE, ""
        if before is None or before.external_port != found.external_port:
            self._judged_before = self.reachability.judgements
            self.reachability.called_at(found.external_port)

    def _failed(self, error: Exception, before: MappedPort | None) -> None:
        match error:
            case PortTakenError():
                self.state = MappingState.TAKEN
            case Unreachable() | trio.TooSlowError():
                self.state = MappingState.SILENT
            case _:
                self.state = MappingState.REFUSED
        self.why = str(error) or "the router did not answer in time"
        # One that was renewed holds for half its time yet: the router is asked again before.
        self._due_at_s = trio.current_time() + (RENEW_S_MIN if before else AGAIN_S)

    async def _close(self) -> None:
        mapped, self.mapped = self.mapped, None
        if mapped is None:
            return
        self.reachability.called_at(None)
        try:
            await self.router.close_port(mapped)
        except BatonError:
            # It ends by itself within the hour.
            return

    def as_map(self) -> dict[str, Any]:
        """How it stands, for `status` and `doctor`."""
        mapped = self.mapped
        return {
            "state": self.state.value,
            "why": self.why,
            "by": mapped.by if mapped else "",
            "port": mapped.external_port if mapped else None,
            "host": mapped.host if mapped else "",
        }
