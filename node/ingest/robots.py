"""robots.txt: what a host asks of programs like this one, fetched under the same guard, and kept.

As RFC 9309 has it: no such file means that all is allowed, a server in trouble that nothing is.
"""

from dataclasses import dataclass, field
from urllib.robotparser import RobotFileParser

import trio

from node.ingest.http_fetch import USER_AGENT, HttpFetcher, Request, Response
from node.ingest.location import HostRules, Location, read_url
from wire.content import PeerId
from wire.errors import InputError, Refused, TransportError, WireError
from wire.latest import Latest

KEPT_S = 3600.0
TROUBLE_KEPT_S = 60.0
ORIGINS_MAX = 1024
# A longer file is read as far as this.
BYTES_MAX = 500 << 10
LINE_CHARS_MAX = 2048

_Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Known:
    """The rules of one origin; None while its server cannot say them."""

    until_at_s: float
    rules: RobotFileParser | None


@dataclass(slots=True)
class Robots:
    """The rules of the origins that were asked lately."""

    fetcher: HttpFetcher
    _known: Latest[_Origin, _Known] = field(default_factory=lambda: Latest(ORIGINS_MAX))

    async def check(
        self,
        location: Location,
        hosts: HostRules,
        *,
        strange: bool,
        asker: PeerId | None = None,
    ) -> None:
        """InputError if the host does not want this URL fetched; Refused while it cannot say."""
        known = self._known.get(location.origin)
        if known is None or known.until_at_s <= trio.current_time():
            known = await self._read(
                Request(location=_robots_of(location), strange=strange, asker=asker), hosts
            )
            self._known[location.origin] = known
        if known.rules is None:
            raise Refused(
                f"{location.place} does not say what it allows (robots.txt)",
                retry_after_s=TROUBLE_KEPT_S,
            )
        if not known.rules.can_fetch(USER_AGENT, location.url):
            raise InputError(
                f"{location.place} asks that {location.url} is not fetched (robots.txt)"
            )

    async def _read(self, asked: Request, hosts: HostRules) -> _Known:
        try:
            found = await self.fetcher.answer(asked, hosts)
        except (TransportError, WireError):
            return _Known(trio.current_time() + TROUBLE_KEPT_S, None)
        # The longest file takes a third of a second.
        rules = await trio.to_thread.run_sync(_rules, found)
        return _Known(trio.current_time() + (TROUBLE_KEPT_S if rules is None else KEPT_S), rules)


def _robots_of(location: Location) -> Location:
    host = f"[{location.host}]" if ":" in location.host else location.host
    return read_url(f"{location.scheme}://{host}:{location.port}/robots.txt")


def _rules(found: Response) -> RobotFileParser | None:
    """What the file says; None if the server cannot say it, or nobody can read it."""
    rules = RobotFileParser()
    if found.status >= 500 or found.status == 429:
        return None
    text = found.body[:BYTES_MAX].decode("utf-8", "replace") if found.status == 200 else ""
    try:
        rules.parse([it[:LINE_CHARS_MAX] for it in text.splitlines()])
    except ValueError:
        # The library reads numbers and paths that it does not check: the host says nothing.
        return None
    return rules
