"""A workflow at one run a second in a network whose peers are killed: what became of each slot.

The keeper of the workflow is killed and started again with its store, and so are a data peer and
the peers that run the model; each is away for some seconds. Wire, engine and clock are simulated,
everything else is what a user runs. The moments come from a seed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import trio

from node.engines.hash_engine import HashEngine
from node.ingest.owned import OwnedSources
from node.local.control import Command, unheard
from node.local.peer_workflows import open_peer_workflows
from node.peer import Dependencies
from node.workflows.feed_reading import doubled_slots
from store import Store, Table, open_memory_store
from tests.ingest.servers import MadeUpNetwork, answering, reply
from tests.ingest.test_attested import PRICES
from tests.ingest.test_bring import ingest_at
from tests.node.network import START_S, D, I, Network, S, open_network
from tests.workflows.test_with_peers import EMBED, POSTER
from wire.codec import unpack
from wire.feed import FIRST_ENTRY, FeedEntry
from wire.kinds import Role
from wire.signed import open_signed

TABLE = b'[{"t": 1, "price": 1.5}, {"t": 2, "price": 2.5}]'
QUOTA_BYTES = 1 << 30
_PAUSED = "it was paused"
# A peer is away for so long at most, and lives for so long at least.
AWAY_S_MAX, LIFE_S_MIN = 6.0, 4.0
# So long this process has to have nothing to do before its clock jumps: threads that read files are
# not seen by that clock, and it would jump over the deadlines of those who wait for them.
IDLE_S = 0.004
# How long the last slots may take once nobody is killed any more.
SETTLE_S = 15.0


@dataclass(slots=True)
class Killed:
    """One peer that is killed and started again, with its key and its store."""

    number: int
    roles: tuple[Role, ...]
    store: Store
    alter: Callable[[Dependencies], Dependencies] = lambda it: it
    kills: int = 0
    keeps: bool = False
    # The commands about its workflows while it is up.
    commands: dict[str, Command] = field(default_factory=dict)

    async def live(self, network: Network) -> None:
        """Run until it is cancelled."""
        async with network.peer(
            self.roles,
            number=self.number,
            store=self.store,
            alter=self.alter,
            engine=HashEngine(unit_s=0.02),
            listen=(f"/memory/{self.number + 1}",),
        ) as node:
            if not self.keeps:
                await trio.sleep_forever()
            async with open_peer_workflows(node, POSTER) as self.commands:
                await trio.sleep_forever()

    async def live_and_die(self, network: Network, random: Random, until_s: float) -> None:
        """Be killed again and again until then, and then live on."""
        while (left_s := until_s - trio.current_time()) > 0:
            life_s = LIFE_S_MIN + random.expovariate(1 / 10)
            with trio.move_on_after(min(life_s, left_s)) as life:
                await self.live(network)
            if life.cancelled_caught and life_s < left_s:
                self.commands, self.kills = {}, self.kills + 1
                await trio.sleep(random.uniform(0.2, AWAY_S_MAX))
        await self.live(network)


async def measure(folder: Path, seconds: int, seed: int) -> dict[str, Any]:
    """Run a workflow for so many seconds under kills; what became of its slots."""
    out = folder / "results.jsonl"
    text = (
        'every = "1s"\nmissed = "all"\nmissed_max = 1000\noverlap = "queue"\nlate = "10m"\n'
        f'deadline = "20s"\ntries = 10\nkeep = 10000\n[source]\nname = "prices"\n{EMBED}'
        f'[[to]]\nkind = "file"\npath = "{out}"\n'
    )
    async with (
        open_network(folder, seed=seed) as network,
        open_memory_store(quota_bytes=QUOTA_BYTES) as first,
        open_memory_store(quota_bytes=QUOTA_BYTES) as second,
        open_memory_store(quota_bytes=QUOTA_BYTES) as third,
        open_memory_store(quota_bytes=QUOTA_BYTES) as fourth,
    ):
        # Somebody is always there through whom a peer that comes back finds the others.
        await network.start(S)
        await network.start(I, S)
        keeper = Killed(10, (D, S), first, _bringing(folder / "10", network), keeps=True)
        killed = [keeper, *(Killed(11 + at, (I, S), it) for at, it in enumerate((second, third)))]
        killed.append(Killed(13, (S,), fourth))
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for one in killed:
                random = Random(f"{seed}:{one.number}")
                nursery.start_soon(one.live_and_die, network, random, began_s + seconds)
            while not keeper.commands:
                await trio.sleep(0.1)
            await keeper.commands["workflows-add"]({"name": "w", "text": text}, unheard)
            await trio.sleep_until(began_s + seconds + SETTLE_S)
            # What is under way ends, and the last line is written.
            await keeper.commands["workflows-pause"]({"name": "w"}, unheard)
            await trio.sleep(SETTLE_S)
            entries = _entries(keeper.store)
            lines = [json.loads(it) for it in out.read_text().splitlines()]
            nursery.cancel_scope.cancel()
    return {"seconds": seconds, "kills": sum(it.kills for it in killed)} | _figures(entries, lines)


def _bringing(folder: Path, network: Network) -> Callable[[Dependencies], Dependencies]:
    folder.mkdir(exist_ok=True)
    ingest = ingest_at(folder, MadeUpNetwork(answer=answering(reply(TABLE))))
    OwnedSources(folder).add("prices", PRICES)
    ingest.wall_s = lambda: START_S + trio.current_time()
    return lambda dependencies: replace(dependencies, ingest=ingest)


def _entries(store: Store) -> list[FeedEntry]:
    rows = store.scan(Table.WORKFLOWS, prefix=b"entry\0", limit=10_000)
    return [open_signed(bytes(unpack(value)[0]), FeedEntry).record for _, value in rows]


def _figures(entries: list[FeedEntry], lines: list[dict[str, Any]]) -> dict[str, Any]:
    # What passed while it was paused, for the count, is no slot of the run.
    run = [it for it in entries if not it.why.startswith(_PAUSED)]
    slots: list[int] = []
    previous = FIRST_ENTRY
    chained = True
    for number, entry in enumerate(entries, 1):
        chained &= (entry.number, entry.previous) == (number, previous)
        previous = entry.digest
        if not entry.why.startswith(_PAUSED):
            slots += range(entry.span.first_ms // 1000, entry.span.last_ms // 1000 + 1)
    once = slots == list(range(slots[0], slots[0] + len(slots)))
    numbers = [it["number"] for it in lines]
    found = {
        "slots": len(slots),
        "every_slot_once": once,
        "chain_holds": chained,
        "doubled": len(doubled_slots(entries)),
        "ends": {
            end: sum(it.span.slots for it in run if it.end == end)
            for end in sorted({it.end for it in run})
        },
        "tries_max": max(it.tries for it in entries),
        "lines_once": numbers == sorted(set(numbers)) == list(range(1, len(entries) + 1)),
    }
    done = found["every_slot_once"] and found["chain_holds"] and found["lines_once"]
    return found | {"held": bool(done and not found["doubled"])}
