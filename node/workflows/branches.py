"""Which keeper of a feed may write in which epoch, and which of two histories holds. Pure.

Every keeper has epochs of its own: of n keepers, the one at place i signs the epochs i, i + n,
i + 2n and so on. So an epoch names who writes, and no two keepers ever write in the same. Who takes
over takes its own next epoch, and its first entry goes on from the last one that it knows.

Keepers that cannot reach each other may write beside each other: then there are two histories, and
the one whose last entry has the higher epoch holds, or of equal epochs the longer one. Everybody
who knows both decides alike, and the keeper of the other one gives its entries up: whoever came
back late, or was cut off, never overrides those who went on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wire.content import PeerId
from wire.errors import Malformed
from wire.feed import FeedEntry, FeedRecord
from wire.signed import Signed

# A keeper whose clock runs ahead would use up the slots of all others: what is later than this is
# not taken from it.
AHEAD_MS_MAX = 600_000


def keeper_of(record: FeedRecord, epoch: int) -> PeerId:
    """The keeper that writes in an epoch."""
    return record.keepers[epoch % len(record.keepers)]


def number_max(record: FeedRecord, now_ms: int) -> int:
    """The highest number that a feed's entries can have by now: one for each millisecond.

    So whoever skips numbers never leaves too few for those after it.
    """
    return max(0, now_ms - record.begun_at_ms) + AHEAD_MS_MAX


def next_epoch(record: FeedRecord, keeper: PeerId, epoch: int) -> int:
    """The first epoch of a keeper after another epoch."""
    count, place = len(record.keepers), record.keepers.index(keeper)
    return epoch + 1 + (place - epoch - 1) % count


def rank(entry: Signed[FeedEntry] | None) -> tuple[int, int]:
    """What decides between two histories, by the last entry of each: the higher one holds."""
    return (-1, 0) if entry is None else (entry.record.epoch, entry.record.number)


def check_epoch(
    record: FeedRecord, before: Signed[FeedEntry] | None, entry: Signed[FeedEntry]
) -> None:
    """Malformed if an entry is signed by a keeper whose epoch it is not, or its epoch is too high.

    Each raise of the epoch needs an entry, and goes at most once round all keepers, so nobody can
    use the epochs up.
    """
    epoch, count = entry.record.epoch, len(record.keepers)
    if entry.signer != keeper_of(record, epoch):
        raise Malformed(f"an entry of epoch {epoch} is not signed by the keeper of that epoch")
    low, high = (
        (0, entry.record.number * count)
        if before is None
        else (before.record.epoch, before.record.epoch + count)
    )
    if not low <= epoch <= high:
        raise Malformed(f"epoch {epoch} cannot follow here: it is {low} to {high}")


@dataclass(frozen=True, slots=True)
class DoubledSlot:
    """A slot for which two keepers have a result: the one that counts, and the other one."""

    counts: Signed[FeedEntry]
    other: Signed[FeedEntry]

    @property
    def slot_ms(self) -> int:
        return self.counts.record.slot_ms


def with_results(entries: Iterable[Signed[FeedEntry]]) -> dict[int, Signed[FeedEntry]]:
    """The entries that have the result of a slot, by the slot; runs out of turn are no slots."""
    return {
        it.record.slot_ms: it
        for it in entries
        if it.record.result is not None and not it.record.by_hand
    }


def doubled(
    counts: Sequence[Signed[FeedEntry]], others: Mapping[int, Signed[FeedEntry]]
) -> list[DoubledSlot]:
    """Slots that have a result in a history that holds, and in another one."""
    own = with_results(counts)
    return [
        DoubledSlot(it, others[slot_ms])
        for slot_ms, it in own.items()
        if slot_ms in others and others[slot_ms].record != it.record
    ]


def is_double(one: Signed[FeedEntry], other: Signed[FeedEntry]) -> bool:
    """Whether two entries are results of two keepers for one slot of one feed."""
    first, second = one.record, other.record
    return (
        one.signer != other.signer
        and first.feed == second.feed
        and first.epoch != second.epoch
        and bool(doubled([one], with_results([other])))
    )
