"""Asking this machine's resolver for the addresses of a name, for no longer than one wants to wait.

With dead name servers it answers after half a minute, and a stranger's name can make it take that
long at will. Its threads are none of those that this process's files need, and of each user of it
they are a bounded number, those included that nobody waits for any more.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

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
            limiter=self._limiter(),
        )
        return [str(it[4][0]) for it in found]

    def _limiter(self) -> trio.CapacityLimiter:
        try:
            return self.limiter.get()
        except LookupError:
            made = trio.CapacityLimiter(LOOKUPS_MAX)
            self.limiter.set(made)
            return made


# Those that the owner named, and those that strangers did: these hold up none of the former.
OF_OWNER = NameLookup(trio.lowlevel.RunVar("lookups of the owner's names"))
OF_STRANGERS = NameLookup(trio.lowlevel.RunVar("lookups of strangers' names"))
