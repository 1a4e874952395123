"""Feeds of other peers that this one follows: asked for again and again, checked, and kept.

Whoever shows one feed to some and another to others is found by two entries that contradict each
other: they are kept as a file, which anybody can check, and the feed is followed no further. Of a
feed with several keepers all are asked, and if two wrote beside each other, one history holds.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from node.workflows.branches import doubled, with_results
from node.workflows.catching_up import CatchingUp, CaughtUp
from node.workflows.feed_calls import FeedCalls
from node.workflows.feed_reading import EntriesForgotten, FeedName, ReadPage, read_page
from node.workflows.history import RESULT_BYTES_MAX
from node.workflows.lost_entries import LostEntries
from p2p.connect import TROUBLES
from p2p.score import Offence
from store import Pin, Row, Store, Table, Write
from wire.codec import pack, unpack
from wire.content import ContentId, PeerId
from wire.errors import InputError, StoreError, WireError
from wire.feed import ENTRIES_PER_PAGE, FeedEntry, FeedPage, FeedRecord
from wire.signed import Envelope, Signed

FOLLOWED_MAX = 64
# Of a feed so many entries are kept, with their results; fewer if these have more bytes than that.
ENTRIES_KEPT = 1000
RESULTS_BYTES_MAX = 256 << 20
POLL_S, POLL_S_MAX = 5.0, 60.0
# Full pages that are asked for one right after the other, and the pause between further ones: a
# keeper could make up entries without end.
PAGES_AT_ONCE, FURTHER_PAGES_S = 64, 1.0
_FOLLOW, _ENTRY = b"follow\0", b"followed\0"


@dataclass(slots=True, eq=False)
class FollowedFeed:
    """A feed that is followed. `record` is None until its keeper has answered once."""

    name: FeedName
    record: FeedRecord | None = None
    last: Signed[FeedEntry] | None = None
    problem: str = ""
    is_forked: bool = False
    # Of the results that are kept of it.
    results_bytes: int = 0
    # Slots for which two keepers were seen to have a result, since the start.
    doubles: int = 0
    # Why a keeper's entries do not come, where there are several, and how often in a row.
    troubles: dict[PeerId, str] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    reading: trio.Lock = field(default_factory=trio.Lock)


@dataclass(slots=True)
class FeedFollower:
    """The feeds that one peer follows. Runs in the nursery that it is given."""

    me: PeerId
    calls: FeedCalls
    store: Store
    wall_s: Callable[[], float]
    nursery: trio.Nursery
    note: Callable[[str], None]
    feeds: dict[ContentId, FollowedFeed] = field(default_factory=dict)

    def resume(self) -> None:
        """Go on with every feed that is followed."""
        for key, value in self.store.scan(Table.WORKFLOWS, prefix=_FOLLOW, limit=FOLLOWED_MAX):
            keeper, record, is_forked = unpack(value)
            feed = ContentId(key.removeprefix(_FOLLOW))
            found = FollowedFeed(FeedName(feed, PeerId(keeper)), is_forked=is_forked)
            found.record = FeedRecord.from_bytes(record) if record else None
            latest = self.entries(feed, 1)
            found.last = latest[-1] if latest else None
            found.results_bytes = sum(_size_bytes(it) for _, it in self._rows(feed))
            self._start(found)

    async def follow(self, name: FeedName) -> FollowedFeed:
        """Follow a feed from now on; InputError if there are too many."""
        known = self.feeds.get(name.feed)
        if known is not None and known.name == name:
            return known
        if known is None and len(self.feeds) >= FOLLOWED_MAX:
            raise InputError(f"{FOLLOWED_MAX} feeds are followed already")
        if name.keeper == self.me:
            raise InputError("this peer keeps that feed itself")
        if known is not None:
            known.scope.cancel()
        found = FollowedFeed(name)
        await self.store.commit(Write(rows=(_row(found),)))
        if known is not None:
            found.record, found.last = known.record, known.last
            found.results_bytes = known.results_bytes
        self._start(found)
        return found

    async def forget(self, feed: ContentId) -> None:
        """Follow a feed no more, and forget its entries."""
        found = self.feeds.pop(feed)
        found.scope.cancel()
        if found.record is not None:
            await LostEntries(self.store, found.record).forget()
        await self.store.commit(Write(rows=(Row(Table.WORKFLOWS, _FOLLOW + feed, None),)))
        while rows := self.store.scan(Table.WORKFLOWS, prefix=_ENTRY + feed, limit=500):
            pins = tuple(it for key, value in rows for it in _pins(key, value))
            gone = tuple(Row(Table.WORKFLOWS, key, None) for key, _ in rows)
            await self.store.commit(Write(rows=gone, unpins=pins))

    def entries(self, feed: ContentId, count: int) -> list[Signed[FeedEntry]]:
        """The last entries that are kept of a feed, in order."""
        return [_read(bytes(unpack(value)[0])) for _, value in self._rows(feed)[-count:]]

    def _rows(self, feed: ContentId) -> list[tuple[bytes, bytes]]:
        return self.store.scan(Table.WORKFLOWS, prefix=_ENTRY + feed, limit=ENTRIES_KEPT + 1)

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
        pause_s, full_pages = POLL_S, 0
        with found.scope:
            while not found.is_forked:
                more = await self.look(found)
                pause_s = min(POLL_S_MAX, pause_s * 2) if found.problem else POLL_S
                full_pages = full_pages + 1 if more else 0
                if not more:
                    await trio.sleep(pause_s)
                elif full_pages >= PAGES_AT_ONCE:
                    await trio.sleep(FURTHER_PAGES_S)

    async def look(self, found: FollowedFeed) -> bool:
        """Ask for what is new; whether there is more. What goes wrong is the feed's `problem`."""
        async with found.reading:
            if found.is_forked:
                return False
            if found.record is None or len(found.record.keepers) == 1:
                more, found.problem = await self._look_at(found, found.name.keeper, self._one_page)
                return more
            troubles, more = dict[PeerId, str](), False
            for keeper in found.record.keepers:
                if keeper != self.me:
                    further, why = await self._look_at(found, keeper, self._catch_up)
                    more |= further
                    troubles |= {keeper: why} if why else {}
            found.troubles = troubles
            # One keeper that shows it is enough.
            all_fail = len(troubles) == len(set(found.record.keepers) - {self.me})
            found.problem = next(iter(troubles.values())) if all_fail else ""
            return more and not found.is_forked

    async def _look_at(
        self,
        found: FollowedFeed,
        keeper: PeerId,
        take: Callable[[FollowedFeed, PeerId], Awaitable[bool]],
    ) -> tuple[bool, str]:
        """Have `take` ask a keeper: whether there is more, and what went wrong."""
        try:
            return await take(found, keeper), ""
        except WireError as error:
            self.calls.offended(keeper, Offence.MALFORMED)
            return False, f"its keeper sends what is no feed: {error.message}"
        except (*TROUBLES, StoreError) as error:
            return False, str(error)

    async def _one_page(self, found: FollowedFeed, keeper: PeerId) -> bool:
        number = 1 if found.last is None else found.last.record.number + 1
        page = await self.calls.page(keeper, found.name.feed, number)
        read = self._read(found, page)
        if found.record is None:
            found.record = read.record
            await self.store.commit(Write(rows=(_row(found),)))
        for entry in read.fresh:
            await self._fetch_and_keep(found, entry)
        if read.fork is not None:
            await self._forked(found, *read.fork)
        return len(page.entries) == ENTRIES_PER_PAGE

    def _read(self, found: FollowedFeed, page: FeedPage) -> ReadPage:
        try:
            return read_page(found.name.feed, page, found.last, found.record)
        except EntriesForgotten as gap:
            # This peer was away for longer than the keeper keeps entries: no offence.
            self.note(f"the feed {found.name.feed.short} goes on after a gap: {gap.message}")
            return read_page(found.name.feed, page, None, found.record)

    # Several keepers

    async def _catch_up(self, found: FollowedFeed, keeper: PeerId) -> bool:
        record = found.record
        assert record is not None, "its first page was read"

        async def ask(number: int) -> FeedPage:
            return await self.calls.page(keeper, record.id, number)

        known = _FollowedChain(self.store, found)
        now_ms = int(self.wall_s() * 1000)
        caught = await CatchingUp(record.id, record, known, ask, now_ms).read()
        if caught.fork is not None:
            await self._forked(found, *caught.fork)
            return False
        await self._take(found, LostEntries(self.store, record), caught)
        return caught.more

    async def _take(self, found: FollowedFeed, lost: LostEntries, caught: CaughtUp) -> None:
        await lost.keep(caught.beside)
        given_up = []
        if caught.kept_until is not None:
            given_up = await self._give_up(found, lost, caught.kept_until)
        for entry in caught.fresh:
            await self._fetch_and_keep(found, entry)
        kept = [*caught.fresh, *self.entries(found.name.feed, ENTRIES_PER_PAGE)]
        doubles = doubled(kept, with_results([*caught.beside, *given_up]))
        found.doubles += len(doubles)
        if doubles:
            one = doubles[-1]
            path = await self.calls.keep_pair(one.other, one.counts)
            self.note(
                f"the feed {found.name.feed.short}: two keepers have a result for one slot, and"
                f" that of {one.counts.signer} counts: {path}"
            )

    async def _give_up(
        self, found: FollowedFeed, lost: LostEntries, kept_until: int
    ) -> list[Signed[FeedEntry]]:
        """Give up the entries after a number, from the end: another history holds."""
        given_up: list[Signed[FeedEntry]] = []
        for key, value in reversed(self._rows(found.name.feed)):
            entry = _read(bytes(unpack(value)[0]))
            if entry.record.number <= kept_until:
                break
            rows = (Row(Table.WORKFLOWS, key, None), *lost.rows([entry]))
            await self.store.commit(Write(rows=rows, unpins=tuple(_pins(key, value))))
            found.results_bytes -= _size_bytes(value)
            given_up.insert(0, entry)
        latest = self.entries(found.name.feed, 1)
        found.last = latest[-1] if latest else None
        return given_up

    async def _fetch_and_keep(self, found: FollowedFeed, entry: Signed[FeedEntry]) -> None:
        keepers = () if found.record is None else found.record.keepers
        await self._keep(found, entry, await self.calls.fetch_result(entry, keepers))

    async def _keep(self, found: FollowedFeed, entry: Signed[FeedEntry], size_bytes: int) -> None:
        number, feed = entry.record.number, found.name.feed
        pins = [] if entry.record.result is None else [Pin(entry.record.result, _why(feed, number))]
        value = pack([entry.raw, [bytes(it.id) for it in pins], size_bytes])
        row = Row(Table.WORKFLOWS, _entry_key(feed, number), value)
        await self.store.commit(Write(rows=(row,), pins=tuple(pins)))
        found.last = entry
        found.results_bytes += size_bytes
        await self._forget_oldest(found, number)

    async def _forget_oldest(self, found: FollowedFeed, number: int) -> None:
        """Let entries before `number` go that are too many, or whose results are too large."""
        prefix = _ENTRY + found.name.feed
        while rows := self.store.scan(Table.WORKFLOWS, prefix=prefix, limit=1):
            ((key, value),) = rows
            old = int.from_bytes(key[-8:], "big")
            too_large = found.results_bytes > RESULTS_BYTES_MAX and old < number
            if old > number - ENTRIES_KEPT and not too_large:
                return
            gone = Write(rows=(Row(Table.WORKFLOWS, key, None),), unpins=tuple(_pins(key, value)))
            await self.store.commit(gone)
            found.results_bytes -= _size_bytes(value)

    async def _forked(
        self, found: FollowedFeed, one: Signed[FeedEntry], other: Signed[FeedEntry]
    ) -> None:
        """Keep the proof that a keeper showed two feeds, and follow it no further."""
        path = await self.calls.keep_pair(one, other)
        found.is_forked, found.problem = True, ""
        await self.store.commit(Write(rows=(_row(found),)))
        self.calls.offended(one.signer, Offence.WRONG_ANSWER)
        self.note(
            f"the feed {found.name.feed} has two histories, both signed by {one.signer}: the proof"
            f" is {path}"
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
                "doubles": it.doubles,
                "keepers": [] if it.record is None else [str(one) for one in it.record.keepers],
                "problem": "it has two histories" if it.is_forked else it.problem,
            }
            for it in self.feeds.values()
        ]


@dataclass(frozen=True, slots=True)
class _FollowedChain:
    """The kept entries of a feed, as `CatchingUp` reads them."""

    store: Store
    found: FollowedFeed

    def last_entry(self) -> Signed[FeedEntry] | None:
        return self.found.last

    def entry_at(self, number: int) -> Signed[FeedEntry] | None:
        raw = self.store.read(Table.WORKFLOWS, _entry_key(self.found.name.feed, number))
        return None if raw is None else _read(bytes(unpack(raw)[0]))


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


def _size_bytes(value: bytes) -> int:
    """How many bytes the result of a kept entry has."""
    size_bytes: int = unpack(value)[2]
    return size_bytes


def _read(raw: bytes) -> Signed[FeedEntry]:
    """An entry that was checked when it was kept."""
    envelope = Envelope.read(raw, FeedEntry)
    return Signed(envelope.claimed(), envelope.signer, raw, ContentId.of(raw))
