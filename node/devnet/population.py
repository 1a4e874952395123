"""The peers of a network in one process: all peers, those that are up, and how one starts.

Faults and samples see only the population, not the run around it.
"""

from dataclasses import dataclass, field
from random import Random

import trio
from trio import TaskStatus  # type: ignore[attr-defined]

from node.devnet.peer import DevPeer, SharedEnvironment
from node.devnet.plan import key_of
from wire.errors import InputError, StoreError, TransportError

START_TRIES = 5


@dataclass(slots=True)
class Population:
    """`peers` are all that were ever started, by number; they run in `nursery`."""

    seed: int
    around: SharedEnvironment
    nursery: trio.Nursery
    peers: list[DevPeer] = field(default_factory=list)
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random(f"{self.seed}:net")

    def living(self) -> list[DevPeer]:
        """Those that are up, by number."""
        return [it for it in self.peers if it.is_up]

    async def start_one(self, peer: DevPeer) -> None:
        """Start a peer through one that is up; after a failure, through another one."""
        for left in range(START_TRIES - 1, -1, -1):
            others = [it for it in self.living() if it is not peer and it.is_open]
            bootstraps: tuple[str, ...] = ()
            if others:
                node = self._random.choice(others).node
                assert node is not None
                bootstraps = node.peers.endpoint.addresses[:1]
            try:
                await self.nursery.start(self._live, peer, bootstraps)
            except* (TransportError, StoreError, InputError) as group:
                if not left:
                    self.around.ended(peer.number, f"did not start: {group.exceptions[0]}")
            else:
                return
            await trio.sleep(1.0)

    async def _live(
        self, peer: DevPeer, bootstraps: tuple[str, ...], task_status: TaskStatus[None]
    ) -> None:
        await peer.live(bootstraps, task_status)

    async def add_like(self, peer: DevPeer) -> DevPeer:
        """Start a new peer with another peer's roles and a key of its own."""
        number = len(self.peers)
        plan = type(peer.plan)(
            number=number,
            roles=peer.plan.roles,
            models=peer.plan.models,
            unit_s=peer.plan.unit_s,
            asks=False,
        )
        new = DevPeer(plan, key_of(self.seed, number), self.around)
        self.peers.append(new)
        await self.start_one(new)
        return new
