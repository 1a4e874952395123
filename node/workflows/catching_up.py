"""What another keeper of a feed has beside this peer's entries: the rest, or a history that holds.

Everything is read and checked before any of it is believed, and nothing is changed here: whoever
calls decides what becomes of it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from node.workflows.branches import AHEAD_MS_MAX, check_epoch, number_max, rank
from node.workflows.feed_reading import follows
from wire.content import ContentId
from wire.errors import Malformed, Refused
from wire.feed import (
    ENTRIES_PER_PAGE,
    FeedEntry,
    FeedPage,
    FeedRecord,
    contradiction_of_entries,
)
from wire.signed import Signed, open_signed

# Of a history that may hold so many entries are read, until it is known whether it does.
BRANCH_ENTRIES_MAX = 2048
# Asks a keeper for its entries from a number on.
AskPage = Callable[[int], Awaitable[FeedPage]]


class KnownChain(Protocol):
    """The entries of a feed that this peer has."""

    def last_entry(self) -> Signed[FeedEntry] | None:
        """The latest."""
        ...

    def entry_at(self, number: int) -> Signed[FeedEntry] | None:
        """The one with this number; None if it is not here, or not any more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """What a keeper has: entries to take, after giving up one's own that are after `kept_until`.

    `kept_until` is None where nothing is given up. `beside` are its entries that do not hold.
    `fork` are two entries that convict who signed both. `more`: there are further entries.
    `is_gap`: nobody has the entries before the first of `fresh` any more, so that it goes on from
    nothing that stays.
    """

    fresh: tuple[Signed[FeedEntry], ...] = ()
    kept_until: int | None = None
    beside: tuple[Signed[FeedEntry], ...] = ()
    fork: tuple[Signed[FeedEntry], Signed[FeedEntry]] | None = None
    more: bool = False
    is_gap: bool = False


@dataclass(frozen=True, slots=True)
class CatchingUp:
    """Reads the entries that one keeper shows of a feed, beside those that are known."""

    feed: ContentId
    record: FeedRecord
    known: KnownChain
    ask: AskPage
    now_ms: int

    async def read(self) -> CaughtUp:
        """What is new; WireError if it is not sound, Refused if it cannot be decided."""
        last = self.known.last_entry()
        if last is None:
            entries, _ = await self._page(1)
            return CaughtUp(fresh=entries, more=len(entries) == ENTRIES_PER_PAGE)
        entries, last_number = await self._page(last.record.number)
        if entries and entries[0].record == last.record:
            return CaughtUp(fresh=entries[1:], more=len(entries) == ENTRIES_PER_PAGE)
        if entries and contradiction_of_entries(last, entries[0]) is not None:
            return CaughtUp(fork=(last, entries[0]))
        if last_number == 0:
            return CaughtUp()
        tip = (await self._page(last_number))[0]
        if not tip or rank(tip[-1]) <= rank(last):
            return CaughtUp(beside=tuple(it for it in (*entries, *tip) if self._is_other(it)))
        return await self._branch(last, tip[-1].record.number)

    async def _page(self, number: int) -> tuple[tuple[Signed[FeedEntry], ...], int]:
        """Entries from a number on, checked, and the number of the last one that there is."""
        page = await self.ask(number)
        found = FeedRecord.from_bytes(page.record)
        if found != self.record:
            raise Malformed("the record is of another feed")
        entries: list[Signed[FeedEntry]] = []
        for raw in page.entries:
            entry = open_signed(raw, FeedEntry)
            before = entries[-1] if entries else None
            if entry.record.feed != self.feed or entry.signer not in self.record.keepers:
                raise Malformed("an entry is of another feed, or signed by no keeper of this one")
            if before is None and entry.record.number < number:
                raise Malformed(f"entry {entry.record.number} was not asked for")
            if before is not None and not follows(before.record, entry.record):
                raise Malformed(f"entry {entry.record.number} does not follow on the one before")
            check_epoch(self.record, before, entry)
            self._check_bounds(entry.record)
            entries.append(entry)
        return tuple(entries), page.last

    def _check_bounds(self, entry: FeedEntry) -> None:
        if entry.number > number_max(self.record, self.now_ms):
            raise Malformed(f"the number {entry.number} is more than there can be by now")
        ahead_ms = entry.slot_ms - self.now_ms
        if ahead_ms > AHEAD_MS_MAX:
            # Nobody can tell whose clock is wrong.
            raise Refused(
                f"entry {entry.number} is of a slot that is {ahead_ms // 1000} s ahead: its"
                " keeper's clock or this one is wrong"
            )

    def _is_other(self, entry: Signed[FeedEntry]) -> bool:
        own = self.known.entry_at(entry.record.number)
        return own is not None and own.record != entry.record

    # A history that holds

    async def _branch(self, last: Signed[FeedEntry], tip_number: int) -> CaughtUp:
        """The entries of a history with a higher rank, from where it leaves this one."""
        common, fork = await self._common(min(last.record.number, tip_number))
        if fork is not None:
            return CaughtUp(fork=fork)
        branch: list[Signed[FeedEntry]] = []
        number = common + 1
        while not branch or rank(branch[-1]) <= rank(last):
            if len(branch) > BRANCH_ENTRIES_MAX:
                raise Refused(f"more than {BRANCH_ENTRIES_MAX} entries do not go on from these")
            entries, _ = await self._page(number)
            if not entries or (branch and not follows(branch[-1].record, entries[0].record)):
                raise Malformed("its entries do not lead to its last one")
            if branch:
                check_epoch(self.record, branch[-1], entries[0])
            branch += entries
            number = branch[-1].record.number + 1
        first = branch[0].record.number
        before = self.known.entry_at(first - 1)
        is_gap = before is None or not follows(before.record, branch[0].record)
        if before is not None and not is_gap:
            check_epoch(self.record, before, branch[0])
        elif before is not None:
            earlier, _ = await self._page(first - 1)
            if earlier and earlier[0].record.number < first:
                raise Malformed("its entries do not lead to its last one")
        # One right before a gap that nothing goes on from is of a history that does not hold.
        kept_until = first - (2 if before is not None and is_gap else 1)
        return CaughtUp(
            fresh=tuple(branch), kept_until=kept_until, more=True, is_gap=is_gap and first > 1
        )

    async def _common(
        self, high: int
    ) -> tuple[int, tuple[Signed[FeedEntry], Signed[FeedEntry]] | None]:
        """The number of the last entry that both have, by halving; 0 if there is none.

        An entry names all before it, so who has one entry in common has those before it too.
        """
        low = 0
        while low < high:
            middle = (low + high + 1) // 2
            entries, _ = await self._page(middle)
            first = entries[0] if entries else None
            own = self.known.entry_at(middle)
            if first is None:
                high = middle - 1
            elif own is None or first.record.number > middle:
                # One of the two has forgotten it.
                low = max(middle, first.record.number - 1)
            elif own.record != first.record:
                if contradiction_of_entries(own, first) is not None:
                    return low, (own, first)
                high = middle - 1
            else:
                low = middle
        return min(low, high), None
