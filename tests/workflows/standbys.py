"""Several keepers of one workflow and a follower in simulated time: killed, cut off, and healed.

Stores, histories, leases, roles and followers are those of a peer; what is simulated is the wire,
the clock, and the steps of a run.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from node.workflows.feed_calls import CALL_S
from node.workflows.feed_reading import FeedName
from node.workflows.feed_role import FeedRole
from node.workflows.following import FeedFollower
from node.workflows.keeper import RunningWorkflow, WorkflowKeeper
from node.workflows.lost_entries import LostEntries
from p2p.score import Offence
from store import Store, open_memory_store
from tests.workflows.keeping import START_S, MadeSteps, keeping, seams
from wire.content import ContentId, PeerId
from wire.errors import Refused, StoreError, Unreachable
from wire.feed import AskFeed, FeedEntry, FeedPage, FeedRecord
from wire.message import Message, Refuse
from wire.signed import Signed
from wire.signing import SigningKey

EVERY_S, TAKEOVER_S = 5, 20
# A call to somebody who is not there takes so long.
SILENCE_S = 2.0


@dataclass
class _Call:
    """The asker's end of a call to a `FeedRole`."""

    peer: PeerId
    said: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.said.append(message)


@dataclass
class Site:
    """One peer: its key, its store, which outlives it, and what it keeps while it is up."""

    world: "World"
    key: SigningKey
    store: Store
    steps: MadeSteps
    folder: Path
    # How far its wall clock is ahead.
    ahead_s: float = 0.0
    keeper: WorkflowKeeper | None = None
    group: int = 0
    # It answers nobody, and refuses nobody either.
    is_frozen: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    pairs: list[tuple[Signed[FeedEntry], Signed[FeedEntry]]] = field(default_factory=list)
    offences: list[tuple[PeerId, Offence]] = field(default_factory=list)

    # The calls that it makes

    async def page(self, keeper: PeerId, feed: ContentId, number: int) -> FeedPage:
        other = self.world.sites[keeper]
        if other.keeper is None or other.group != self.group:
            await trio.sleep(SILENCE_S)
            raise Unreachable(f"{keeper.short} does not answer")
        if other.is_frozen:
            await trio.sleep(CALL_S)
            raise Unreachable(f"{keeper.short} does not answer in {CALL_S} s")
        call = _Call(self.key.peer)
        await FeedRole(other.keeper).on_ask_feed(call, AskFeed(feed=feed, number=number))  # type: ignore[arg-type]
        (said,) = call.said
        if isinstance(said, Refuse):
            raise Refused(said.reason, code=said.code)
        assert isinstance(said, FeedPage)
        return self.world.altered(keeper, said)

    async def fetch_result(self, entry: Signed[FeedEntry], keepers: Sequence[PeerId]) -> int:
        result = entry.record.result
        for other in self.world.sites.values():
            if result is not None and other.group == self.group and other.store.has(result):
                try:
                    data = await other.store.get(result)
                except StoreError:
                    continue
                await self.store.put(data)
                return len(data)
        return 0

    async def keep_pair(self, one: Signed[FeedEntry], other: Signed[FeedEntry]) -> str:
        self.pairs.append((one, other))
        return "receipts/x.fork"

    def hears_others(self, than: PeerId) -> bool:
        near = [it for it in self.world.sites.values() if it.group == self.group and it.is_up]
        return any(it.key.peer not in (than, self.key.peer) for it in near)

    def offended(self, keeper: PeerId, offence: Offence) -> None:
        self.offences.append((keeper, offence))

    @property
    def is_up(self) -> bool:
        return self.keeper is not None or self is self.world.crowd

    def wall_s(self) -> float:
        return START_S + self.ahead_s + trio.current_time()

    def kept(self) -> list[Signed[FeedEntry]]:
        """Its entries, in order."""
        assert self.keeper is not None
        history = self.keeper.get("w").runner.history
        return history.entries(1, 10_000)

    @property
    def lost(self) -> LostEntries:
        """What does not count, as it keeps it."""
        return self.world.kept(self).runner.history.lost

    @property
    def epoch(self) -> int | None:
        """The epoch in which it writes; None while it stands by or is down."""
        return None if self.keeper is None else self.keeper.get("w").runner.lease.epoch


@dataclass
class World:
    """Keepers, the first of which adds the workflow; a follower; `crowd` is somebody else."""

    nursery: trio.Nursery
    sites: dict[PeerId, Site] = field(default_factory=dict)
    keepers: list[Site] = field(default_factory=list)
    follower: FeedFollower | None = None
    text: str = ""
    feed: str = ""
    # Everything that any keeper has signed, also what did not hold.
    signed: dict[ContentId, Signed[FeedEntry]] = field(default_factory=dict)
    # Pages of these keepers are altered on their way.
    alter: dict[PeerId, Callable[[FeedPage], FeedPage]] = field(default_factory=dict)

    @property
    def crowd(self) -> Site:
        return list(self.sites.values())[-1]

    def altered(self, keeper: PeerId, page: FeedPage) -> FeedPage:
        alter = self.alter.get(keeper)
        return page if alter is None else alter(page)

    async def start(self, site: Site) -> None:
        """Bring a peer up."""
        started = trio.Event()
        self.nursery.start_soon(self._live, site, started)
        await started.wait()

    async def kill(self, site: Site) -> None:
        """End a peer as SIGKILL does: its store has what was durable."""
        site.scope.cancel()
        await site.ended.wait()

    async def _live(self, site: Site, started: trio.Event) -> None:
        site.ended = trio.Event()
        given = seams(site.store, site.folder, site.steps, key=site.key, calls=site)
        object.__setattr__(given, "wall_s", site.wall_s)
        with trio.CancelScope() as site.scope:
            async with keeping(given) as site.keeper:
                self.watch(site)
                started.set()
                await trio.sleep_forever()
        site.keeper = None
        site.ended.set()

    def watch(self, site: Site) -> None:
        """Note whatever a keeper signs from now on."""
        assert site.keeper is not None
        if "w" not in site.keeper.running:
            return
        runner = site.keeper.get("w").runner

        def on_entry() -> None:
            last = runner.history.last_entry()
            assert last is not None
            self.signed[last.id] = last

        runner.on_entry = on_entry

    def kept(self, site: Site) -> RunningWorkflow:
        """The workflow as a peer runs it."""
        assert site.keeper is not None
        return site.keeper.get("w")

    @property
    def wall_ms(self) -> int:
        """What a right clock says."""
        return int((START_S + trio.current_time()) * 1000)

    @property
    def record(self) -> FeedRecord:
        """The record of its feed."""
        return self.kept(self.holders()[0]).kept_workflow.feed

    def holders(self) -> list[Site]:
        return [it for it in self.keepers if it.epoch is not None]

    def part(self, *groups: Sequence[int]) -> None:
        """Cut the keepers into groups that do not hear each other; without any, heal."""
        for site in self.sites.values():
            site.group = 0
        for number, group in enumerate(groups):
            for at in group:
                self.keepers[at].group = number

    def doubled_slots(self) -> set[int]:
        """Slots for which more than one keeper has signed a result."""
        seen: dict[int, set[PeerId]] = {}
        for one in self.signed.values():
            if one.record.result is not None and not one.record.by_hand:
                seen.setdefault(one.record.slot_ms, set()).add(one.signer)
        return {slot_ms for slot_ms, keepers in seen.items() if len(keepers) > 1}


@asynccontextmanager
async def open_world(folder: Path, count: int = 3, extra: str = "") -> AsyncIterator[World]:
    """A workflow with one keeper and `count - 1` standbys, all up, and a follower."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        world = World(nursery)
        for at in range(count + 1):
            store = await stack.enter_async_context(open_memory_store(quota_bytes=1 << 30))
            key = SigningKey(bytes([at + 1]) * 32)
            site = Site(world, key, store, MadeSteps(takes_s=0.9), folder)
            world.sites[key.peer] = site
            if at < count:
                world.keepers.append(site)
        standbys = ", ".join(f'"{it.key.peer}"' for it in world.keepers[1:])
        world.text = (
            f'every = "{EVERY_S}s"\nstandbys = [{standbys}]\ntakeover = "{TAKEOVER_S}s"\n{extra}'
            '[source]\nname = "prices"\n[model]\nname = "m"\n[[to]]\nkind = "feed"\n'
        )
        for site in world.keepers:
            await world.start(site)
            await add(world, site)
        first, crowd = world.keepers[0], world.crowd
        world.follower = FeedFollower(
            crowd.key.peer, crowd, crowd.store, crowd.wall_s, nursery, lambda _line: None
        )
        await world.follower.follow(FeedName.parse(world.feed))
        assert first.epoch == 0
        yield world
        nursery.cancel_scope.cancel()


async def add(world: World, site: Site) -> None:
    """Add the workflow at a peer: as its keeper at the first, else as a standby."""
    assert site.keeper is not None
    name = FeedName.parse(world.feed) if world.feed else None
    found = await site.keeper.add(world.text, "w", name)
    world.feed = world.feed or f"{found.runner.feed}@{site.key.peer}"
    world.watch(site)


async def trouble(world: World, random: Random, seconds: float) -> int:
    """Kill, restart, cut and heal at random moments; how many kills there were."""
    kills, until_s = 0, trio.current_time() + seconds
    while trio.current_time() < until_s:
        await trio.sleep(random.uniform(1, 40))
        what = random.random()
        if what < 0.4:
            down = [it for it in world.keepers if it.keeper is None]
            up = [it for it in world.keepers if it.keeper is not None]
            if down and random.random() < 0.6:
                await world.start(random.choice(down))
            elif up:
                kills += 1
                await world.kill(random.choice(up))
        elif what < 0.7:
            side = [at for at in range(len(world.keepers)) if random.random() < 0.5]
            rest = [at for at in range(len(world.keepers)) if at not in side]
            # The follower and the crowd are on either side.
            world.part(*([side, rest] if random.random() < 0.5 else [rest, side]))
        else:
            world.part()
    world.part()
    for site in world.keepers:
        if site.keeper is None:
            await world.start(site)
    return kills
