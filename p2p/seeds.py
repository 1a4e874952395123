"""Finding peers by names in the DNS, where a user named some, for as long as this peer runs.

The shell around `p2p.seed_records`. Who was met before, the local network and the addresses of an
invite come first; a moment later the names are asked beside them, and again and again while nobody
is met. What asks the DNS is behind a seam.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from p2p.peer_rpc import PeerRpc
from p2p.seed_records import Seeds, seeds_of
from wire.errors import TransportError

# The other ways to find somebody have so long.
AFTER_S = 1.0
ANSWER_S = 6.0
FIRST_AGAIN_S, AGAIN_S_MAX = 1.0, 60.0
# Of who is in the network: a name lists others by then, and heals a network that was torn.
SELDOM_S = 3600.0
_TRIES_MAX = 10
LOOK_S = 1.0


class SeedService(Protocol):
    """A way to ask for the text records of a name."""

    async def texts(self, name: str, deadline_s: float) -> tuple[bytes, ...]:
        """The records, not more than fit in one answer; TransportError if there is none."""
        ...


@dataclass(slots=True)
class _Name:
    """What came of asking for one name."""

    problem: str = "it was not asked yet"
    found: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    asked: int = 0


@dataclass(slots=True)
class SeedDiscovery:
    """Has the peers be called that the names tell of."""

    rpc: PeerRpc
    names: tuple[str, ...]
    service: SeedService
    # Whether addresses of private networks and of this machine count.
    private: bool = False
    _found: dict[str, _Name] = field(init=False)
    _tries: int = 0
    _hurried: bool = False

    def __post_init__(self) -> None:
        self._found = {it: _Name() for it in self.names}

    async def run_forever(self) -> None:
        """Ask whenever it is due, until cancelled."""
        await trio.sleep(AFTER_S)
        while True:
            async with trio.open_nursery() as nursery:
                for name in self.names:
                    nursery.start_soon(self._ask, name)
            await self._until_due()

    async def _until_due(self) -> None:
        since_at_s, self._hurried = trio.current_time(), False
        # Half of it is drawn, so that a name server that was dead is not asked by all at once.
        spread = 0.5 + 0.5 * self.rpc.environment.random.random()
        while True:
            # Whoever was found is called meanwhile, and may be lost again.
            await trio.sleep(LOOK_S)
            passed_s, settled = trio.current_time() - since_at_s, self._is_settled()
            if settled and passed_s >= AGAIN_S_MAX:
                self._tries = 0
            again_s = min(AGAIN_S_MAX, FIRST_AGAIN_S * 2.0**self._tries)
            if self._hurried or passed_s >= spread * (SELDOM_S if settled else again_s):
                self._tries = min(self._tries + (not settled), _TRIES_MAX)
                return

    def _is_settled(self) -> bool:
        """Whether somebody is met, and every name told of peers."""
        return bool(self.rpc.connected()) and not any(it.problem for it in self._found.values())

    def hurry(self) -> None:
        """This machine's network has changed: the names are asked at the next look."""
        self._hurried = True

    async def _ask(self, name: str) -> None:
        state = self._found[name]
        state.asked += 1
        try:
            with trio.fail_after(ANSWER_S + 1.0):
                texts = await self.service.texts(name, ANSWER_S)
        except trio.TooSlowError:
            state.problem = f"nobody answered within {ANSWER_S:g} s"
        except TransportError as error:
            state.problem = error.message
        else:
            self._take(state, texts)
        if state.problem:
            self.rpc.note_problem(f"seeds of {name}", f"no seed at {name}: {state.problem}")

    def _take(self, state: _Name, texts: tuple[bytes, ...]) -> None:
        shuffled = list(texts)
        # Of many not always the same ones are called, by everybody.
        self.rpc.environment.random.shuffle(shuffled)
        seeds = seeds_of(shuffled, self.rpc.me, private=self.private)
        state.found, state.refused = len(seeds.found), dict(seeds.refused)
        state.problem = "" if seeds.found else _why_none(seeds)
        for peer, addresses in seeds.found.items():
            self.rpc.dialing.suggest(peer, addresses)

    def as_map(self) -> dict[str, dict[str, Any]]:
        """What each name told, for `status`."""
        return {
            name: {
                "found": it.found,
                "refused": dict(it.refused),
                "problem": it.problem,
                "asked": it.asked,
            }
            for name, it in self._found.items()
        }


def _why_none(seeds: Seeds) -> str:
    if not seeds.refused:
        return "it has no record like dnsaddr=/ip4/…/tcp/…/p2p/…"
    words = ", ".join(f"{count} {why}" for why, count in sorted(seeds.refused.items()))
    return f"none of its records counts ({words})"
