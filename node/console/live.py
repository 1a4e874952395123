"""The page as it is now, and who is sent what changed of it.

One look at the peer serves everybody: it is taken once a second while somebody watches, and each
watcher is sent the parts that changed since what it has. A reader that is slow gets fewer, larger
changes, and nothing is queued for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from node.console.facts import FactSource
from node.console.rendering import parts_of
from wire.errors import BatonError

LOOK_EVERY_S = 1.0
WATCHERS_MAX = 8


@dataclass(slots=True)
class LivePage:
    """The parts of the page, each with the number of the look at which it changed last."""

    source: FactSource
    parts: dict[str, str] = field(default_factory=dict)
    version: int = 0
    watchers: int = 0
    # How long the latest look took, of this thread's time and of the clock's.
    took_s: float = 0.0
    _changed: dict[str, int] = field(default_factory=dict)
    _looked_at_s: float = float("-inf")
    _looking: trio.Lock = field(default_factory=trio.Lock)
    _news: trio.Event = field(default_factory=trio.Event)
    _wanted: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Look at the peer for as long as somebody watches, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wanted.wait()
                await self.look()
                if self.source.is_due:
                    nursery.start_soon(self.source.examine_again)
                await trio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Have the parts as of less than a second ago; many who ask at once cost one look."""
        async with self._looking:
            began_at_s = trio.current_time()
            if began_at_s - self._looked_at_s < LOOK_EVERY_S * 0.9:
                return
            try:
                facts = await self.source.look()
            except BatonError:
                # A command that cannot answer now leaves the page as it is; the next look is soon.
                self._looked_at_s = trio.current_time()
                return
            self._take(parts_of(facts))
            self._looked_at_s = trio.current_time()
            self.took_s = self._looked_at_s - began_at_s

    def _take(self, parts: dict[str, str]) -> None:
        self.version += 1
        for name, inside in parts.items():
            if self.parts.get(name) != inside:
                self._changed[name] = self.version
        self.parts = parts
        news, self._news = self._news, trio.Event()
        news.set()

    def changes_since(self, version: int) -> dict[str, str]:
        """The parts that changed after `version`; all of them if that is none of ours."""
        if not 0 < version <= self.version:
            return self.parts
        return {name: self.parts[name] for name, at in self._changed.items() if at > version}

    async def until_news(self) -> None:
        """Wait for the next look."""
        await self._news.wait()

    @property
    def is_full(self) -> bool:
        """Whether as many watch as may."""
        return self.watchers >= WATCHERS_MAX

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody watches until the block ends."""
        self.watchers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.watchers -= 1
            if not self.watchers:
                self._wanted = trio.Event()
