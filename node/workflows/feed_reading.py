"""Entries of a feed as a follower takes them: each is signed by a keeper and goes on from the last.

Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from node.workflows.branches import check_epoch
from wire.content import ContentId, PeerId
from wire.errors import Malformed
from wire.feed import FeedEntry, FeedPage, FeedRecord, contradiction_of_entries
from wire.signed import Signed, open_signed


@dataclass(frozen=True, slots=True)
class FeedName:
    """A feed and the peer that is asked for it, as `FEED@KEY`."""

    feed: ContentId
    keeper: PeerId

    def __str__(self) -> str:
        return f"{self.feed}@{self.keeper}"

    @classmethod
    def parse(cls, text: str) -> "FeedName":
        """Malformed unless `text` is a content id, `@` and a peer's key."""
        feed, _, keeper = text.partition("@")
        return cls(ContentId.parse(feed), PeerId.parse(keeper))


class EntriesForgotten(Malformed):
    """A page that begins after the entry that was asked for: its keeper has the ones before no
    more, or shows them no more. Nobody can tell which.
    """


@dataclass(frozen=True, slots=True)
class ReadPage:
    """What a page adds: its record, the entries that are new, and two that contradict."""

    record: FeedRecord
    fresh: tuple[Signed[FeedEntry], ...]
    fork: tuple[Signed[FeedEntry], Signed[FeedEntry]] | None = None


def read_page(
    feed: ContentId, page: FeedPage, known: Signed[FeedEntry] | None, record: FeedRecord | None
) -> ReadPage:
    """Take a page that was asked for from the entry after `known` on; WireError if it is not sound.

    The first entries that a follower sees may be of any number: a keeper forgets old ones. For the
    same reason a page may begin later than `known` ends, which is EntriesForgotten.
    """
    found = FeedRecord.from_bytes(page.record)
    if found.id != feed or (record is not None and record != found):
        raise Malformed("the record is of another feed")
    last, fresh = known, list[Signed[FeedEntry]]()
    for raw in page.entries:
        entry = open_signed(raw, FeedEntry)
        if entry.record.feed != feed or entry.signer not in found.keepers:
            raise Malformed("an entry is of another feed, or signed by nobody who keeps this one")
        check_epoch(found, None, entry)
        if last is not None and not follows(last.record, entry.record):
            if contradiction_of_entries(last, entry) is None:
                if not fresh and entry.record.number > last.record.number + 1:
                    raise EntriesForgotten(f"there is no entry {last.record.number + 1} any more")
                raise Malformed(f"entry {entry.record.number} does not go on from the one before")
            return ReadPage(found, tuple(fresh), (last, entry))
        fresh.append(entry)
        last = entry
    return ReadPage(found, tuple(fresh))


def follows(before: FeedEntry, entry: FeedEntry) -> bool:
    """Whether an entry is the one after another."""
    return entry.number == before.number + 1 and entry.previous == before.digest


def doubled_slots(entries: Sequence[FeedEntry]) -> list[int]:
    """Slots that have two results, as their times in ms: an honest keeper has none."""
    seen, doubled = set[int](), list[int]()
    for entry in entries:
        if entry.by_hand or entry.result is None:
            continue
        if entry.slot_ms in seen:
            doubled.append(entry.slot_ms)
        seen.add(entry.slot_ms)
    return doubled
