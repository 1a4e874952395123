"""Asking this machine's resolver for the addresses of a name, for no longer than one wants to wait.

With dead name servers it answers after half a minute, and a stranger's name can make it take that
long at will. Its threads are none of those that this process's files need, and of each user of it
they are a bounded number, those included that nobody waits for any more.
"""

import socket
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import trio

from p2p.lookup_turns import LookupTurns, Turn, TurnState

T = TypeVar("T")
LOOKUPS_MAX = 16


@dataclass(frozen=True, slots=True)
class NameLookup:
    """One user of the resolver; who waits has to set a deadline."""

    limiter: trio.lowlevel.RunVar[trio.CapacityLimiter]

    async def look_up(self, host: str, port: int | None = None) -> Sequence[str]:
        """The IP addresses, as text; OSError or UnicodeError if there are none."""
        found: list[Any] = await trio.to_thread.run_sync(
            partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM),
            abandon_on_cancel=True,  # type: ignore[call-arg, unused-ignore]
            limiter=_of_this_run(self.limiter, lambda: trio.CapacityLimiter(LOOKUPS_MAX)),
        )
        return [str(it[4][0]) for it in found]


@dataclass(slots=True)
class _Line:
    """Whose turn it is, and an event for each change of that."""

    turns: LookupTurns = field(default_factory=LookupTurns)
    changed: trio.Event = field(default_factory=trio.Event)

    def told(self) -> None:
        """Have all that wait look where they stand."""
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self, turn: Turn) -> None:
        """Until a lookup may begin; OSError if it was dropped."""
        self.told()
        has_waited = False
        try:
            while turn.state is TurnState.WAITING:
                await self.changed.wait()
            has_waited = True
        finally:
            if not has_waited:
                self.turns.leave(turn)
                self.told()
        if turn.state is TurnState.DROPPED:
            raise OSError("its peer had too many others looked up meanwhile")


@dataclass(frozen=True, slots=True)
class StrangersLookup:
    """Names that strangers gave: each has its share of the resolver, however slow its names are."""

    line: trio.lowlevel.RunVar[_Line]

    async def look_up(
        self, asker: Hashable, network: Hashable, host: str, port: int
    ) -> Sequence[str]:
        """As `NameLookup.look_up`; OSError also where `asker` has asked for too many since.

        `network` is where the asker sits, as others of one owner may.
        """
        line, token = _of_this_run(self.line, _Line), trio.lowlevel.current_trio_token()
        turn = line.turns.ask(asker, network)
        await line.wait(turn)
        found, ended = list[Any](), trio.Event()

        def end(outcome: Any) -> None:
            found.append(outcome)
            ended.set()
            line.turns.answered(turn)
            line.told()

        def deliver(outcome: Any) -> None:
            # The peer may have ended meanwhile.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(end, outcome)

        # The thread has the place from here on, whoever waits for it.
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        trio.lowlevel.start_thread_soon(ask, deliver)
        await ended.wait()
        return [str(it[4][0]) for it in found[0].unwrap()]


def _of_this_run(variable: trio.lowlevel.RunVar[T], make: Callable[[], T]) -> T:
    """What a variable holds in this run, made at its first use."""
    try:
        return variable.get()
    except LookupError:
        made = make()
        variable.set(made)
        return made


# Those that the owner named, and those that strangers did: these hold up none of the former.
OF_OWNER = NameLookup(trio.lowlevel.RunVar("lookups of the owner's names"))
OF_STRANGERS = StrangersLookup(trio.lowlevel.RunVar("lookups of strangers' names"))
