"""Feeds of other peers that this one follows: asked for again and again, checked, and kept.

Whoever shows one feed to some and another to others is found by two entries that contradict each
other: they are kept as a file, which anybody can check, and the feed is followed no further.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from node.asking.record_files import RecordFiles
from node.workflows.feed_reading import FeedName, ReadPage, read_page
from node.workflows.history import RESULT_BYTES_MAX
from p2p.blobs import Blobs
from p2p.connect import TROUBLES
from p2p.peers import Peers
from p2p.score import Offence
from p2p.timeouts import stretched
from store import Pin, Row, Store, Table, Write
from wire import limits
from wire.codec import pack, unpack
from wire.content import ContentId
from wire.errors import InputError, Refused, StoreError, TransportError, WireError
from wire.feed import ENTRIES_PER_PAGE, AskFeed, FeedEntry, FeedFork, FeedPage, FeedRecord
from wire.signed import Envelope, Signed, sign

FOLLOWED_MAX = 64
# Of a feed so many entries are kept, with their results.
ENTRIES_KEPT = 1000
POLL_S, POLL_S_MAX = 5.0, 300.0
CALL_S, RESULT_S = 10.0, 30.0
FORK_SUFFIX = ".fork"
_FOLLOW, _ENTRY = b"follow\0", b"followed\0"


@dataclass(slots=True, eq=False)
class FollowedFeed:
    """A feed that is followed. `record` is None until its keeper has answered once."""

    name: FeedName
    record: FeedRecord | None = None
    last: Signed[FeedEntry] | None = None
    problem: str = ""
    is_forked: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    reading: trio.Lock = field(default_factory=trio.Lock)


@dataclass(slots=True)
class FeedFollower:
    """The feeds that one peer follows. Runs in the nursery that it is given."""

    peers: Peers
    blobs: Blobs
    store: Store
    files: RecordFiles
    nursery: trio.Nursery
    note: Callable[[str], None]
    feeds: dict[ContentId, FollowedFeed] = field(default_factory=dict)

    def resume(self) -> None:
        """Go on with every feed that is followed."""
        for key, value in self.store.scan(Table.WORKFLOWS, prefix=_FOLLOW, limit=FOLLOWED_MAX):
            keeper, record, is_forked = unpack(value)
            feed = ContentId(key.removeprefix(_FOLLOW))
            found = FollowedFeed(FeedName(feed, type(self.peers.me)(keeper)), is_forked=is_forked)
            found.record = FeedRecord.from_bytes(record) if record else None
            latest = self.entries(feed, 1)
            found.last = latest[-1] if latest else None
            self._start(found)

    async def follow(self, name: FeedName) -> FollowedFeed:
        """Follow a feed from now on; InputError if there are too many."""
        known = self.feeds.get(name.feed)
        if known is not None and known.name == name:
            return known
        if known is None and len(self.feeds) >= FOLLOWED_MAX:
            raise InputError(f"{FOLLOWED_MAX} feeds are followed already")
        if name.keeper == self.peers.me:
            raise InputError("this peer keeps that feed itself")
        if known is not None:
            known.scope.cancel()
        found = FollowedFeed(name)
        await self.store.commit(Write(rows=(_row(found),)))
        if known is not None:
            found.record, found.last = known.record, known.last
        self._start(found)
        return found

    async def forget(self, feed: ContentId) -> None:
        """Follow a feed no more, and forget its entries."""
        found = self.feeds.pop(feed)
        found.scope.cancel()
        await self.store.commit(Write(rows=(Row(Table.WORKFLOWS, _FOLLOW + feed, None),)))
        while rows := self.store.scan(Table.WORKFLOWS, prefix=_ENTRY + feed, limit=500):
            pins = tuple(it for key, value in rows for it in _pins(key, value))
            gone = tuple(Row(Table.WORKFLOWS, key, None) for key, _ in rows)
            await self.store.commit(Write(rows=gone, unpins=pins))

    def entries(self, feed: ContentId, count: int) -> list[Signed[FeedEntry]]:
        """The last entries that are kept of a feed, in order."""
        prefix = _ENTRY + feed
        rows = self.store.scan(Table.WORKFLOWS, prefix=prefix, limit=ENTRIES_KEPT + 1)
        return [_read(bytes(unpack(value)[0])) for _, value in rows[-count:]]

    async def latest_result(self, name: FeedName) -> tuple[Signed[FeedEntry], bytes]:
        """The last result of a feed, after a look whether there is a newer one; InputError."""
        found = await self.follow(name)
        await self.look(found)
        for entry in reversed(self.entries(name.feed, ENTRIES_PER_PAGE)):
            if entry.record.result is not None:
                data = await self.store.get(entry.record.result, size_bytes_max=RESULT_BYTES_MAX)
                return entry, data
        why = f": {found.problem}" if found.problem else ""
        raise InputError(f"the feed {name.feed.short} has no result yet{why}")

    # Looking

    def _start(self, found: FollowedFeed) -> None:
        self.feeds[found.name.feed] = found
        self.nursery.start_soon(self._run, found)

    async def _run(self, found: FollowedFeed) -> None:
        pause_s = POLL_S
        with found.scope:
            while not found.is_forked:
                more = await self.look(found)
                pause_s = min(POLL_S_MAX, pause_s * 2) if found.problem else POLL_S
                if not more:
                    await trio.sleep(pause_s)

    async def look(self, found: FollowedFeed) -> bool:
        """Ask for what is new; whether there is more. What goes wrong is the feed's `problem`."""
        async with found.reading:
            if found.is_forked:
                return False
            try:
                page = await self._asked(found)
                read = read_page(found.name.feed, page, found.last, found.record)
                await self._take(found, read)
            except WireError as error:
                self.peers.offended(found.name.keeper, Offence.MALFORMED)
                found.problem = f"its keeper sends what is no feed: {error.message}"
                return False
            except (*TROUBLES, Refused, StoreError) as error:
                found.problem = str(error)
                return False
            found.problem = ""
            return len(page.entries) == ENTRIES_PER_PAGE

    async def _asked(self, found: FollowedFeed) -> FeedPage:
        keeper = found.name.keeper
        version = await self.peers.neighbours.version_of(keeper, deadline_s=stretched(CALL_S))
        if version < limits.FEEDS_VERSION:
            raise Refused("its keeper runs a release that shows no feeds")
        number = 1 if found.last is None else found.last.record.number + 1
        async with self.peers.call(keeper, deadline_s=stretched(CALL_S)) as call:
            await call.send(AskFeed(feed=found.name.feed, number=number))
            return await call.expect(FeedPage)

    async def _take(self, found: FollowedFeed, read: ReadPage) -> None:
        if found.record is None:
            found.record = read.record
            await self.store.commit(Write(rows=(_row(found),)))
        for entry in read.fresh:
            await self._fetch_result(entry)
            await self._keep(found, entry)
        if read.fork is not None:
            await self._forked(found, *read.fork)

    async def _fetch_result(self, entry: Signed[FeedEntry]) -> None:
        """Have a result here; an entry whose result does not come is kept without it."""
        result = entry.record.result
        if result is None or self.store.has(result):
            return
        try:
            data = await self.blobs.get(
                result,
                [entry.signer],
                deadline_s=stretched(RESULT_S),
                size_bytes_max=RESULT_BYTES_MAX,
            )
            if not self.store.has(result):
                await self.store.put(data)
        except (TransportError, WireError, Refused, StoreError) as error:
            self.note(f"feed {entry.record.feed.short}: a result did not come: {error.message}")

    async def _keep(self, found: FollowedFeed, entry: Signed[FeedEntry]) -> None:
        number, feed = entry.record.number, found.name.feed
        pins = [] if entry.record.result is None else [Pin(entry.record.result, _why(feed, number))]
        value = pack([entry.raw, [bytes(it.id) for it in pins]])
        rows = [Row(Table.WORKFLOWS, _entry_key(feed, number), value)]
        unpins: list[Pin] = []
        old_key = _entry_key(feed, number - ENTRIES_KEPT) if number > ENTRIES_KEPT else b""
        if old_key and (old := self.store.read(Table.WORKFLOWS, old_key)) is not None:
            rows.append(Row(Table.WORKFLOWS, old_key, None))
            unpins += _pins(old_key, old)
        await self.store.commit(Write(rows=tuple(rows), pins=tuple(pins), unpins=tuple(unpins)))
        found.last = entry

    async def _forked(
        self, found: FollowedFeed, one: Signed[FeedEntry], other: Signed[FeedEntry]
    ) -> None:
        """Keep the proof that a keeper showed two feeds, and follow it no further."""
        fork = sign(FeedFork(first=one.raw, second=other.raw), self.peers.key)
        await self.files.write(f"{fork.id}{FORK_SUFFIX}", fork.raw)
        found.is_forked = True
        await self.store.commit(Write(rows=(_row(found),)))
        self.peers.offended(one.signer, Offence.WRONG_ANSWER)
        self.note(
            f"the feed {found.name.feed} has two histories, both signed by {one.signer}: the proof"
            f" is receipts/{fork.id}{FORK_SUFFIX}"
        )

    def as_maps(self) -> list[dict[str, Any]]:
        """Every feed that is followed, as commands show it."""
        return [
            {
                "feed": str(it.name),
                "name": "" if it.record is None else it.record.name,
                "schedule": "" if it.record is None else it.record.schedule,
                "zone": "" if it.record is None else it.record.zone,
                "entries": 0 if it.last is None else it.last.record.number,
                "problem": "it has two histories" if it.is_forked else it.problem,
            }
            for it in self.feeds.values()
        ]


def _row(found: FollowedFeed) -> Row:
    record = b"" if found.record is None else found.record.to_bytes()
    value = pack([bytes(found.name.keeper), record, found.is_forked])
    return Row(Table.WORKFLOWS, _FOLLOW + found.name.feed, value)


def _entry_key(feed: ContentId, number: int) -> bytes:
    return _ENTRY + feed + number.to_bytes(8, "big")


def _why(feed: bytes, number: int) -> str:
    return f"followed:{feed[-8:].hex()}:{number}"


def _pins(key: bytes, value: bytes) -> list[Pin]:
    number = int.from_bytes(key[-8:], "big")
    why = _why(key[len(_ENTRY) : -8], number)
    return [Pin(ContentId(it), why) for it in unpack(value)[1]]


def _read(raw: bytes) -> Signed[FeedEntry]:
    """An entry that was checked when it was kept."""
    envelope = Envelope.read(raw, FeedEntry)
    return Signed(envelope.claimed(), envelope.signer, raw, ContentId.of(raw))
