"""What a peer keeps because others asked it to: how much of whose, and until when. Pure.

A part of the quota is for content of others, and no asker has more than half of it. Keys cost
nothing, so askers that are many take the room from each other, and never from the owner. A fetch
that fails goes on to count for a while: content that is never whole cannot wear out the disk.
"""

from dataclasses import dataclass, field

from wire.codec import pack, unpack
from wire.content import ContentId, PeerId
from wire.errors import Malformed, Refused
from wire.kinds import RefusalCode
from wire.unixfs import UnixfsId

# The part of the store's quota that is for content of others, and an asker's part of that.
OTHERS_SHARE = 1 / 4
ASKER_SHARE = 1 / 2
# Nothing new is taken once the owner's pins and all of it would leave less of the quota than this.
LEFT_SHARE = 1 / 4
ITEMS_MAX = 1024
FETCHES_MAX = 4
# How long a fetch that failed still counts for who asked.
FAILED_S = 600.0
BUSY_RETRY_S = 5.0
# To be kept this much longer is not worth a write.
WORTH_WRITING_S = 60.0
# A slower source is given up.
RATE_BYTES_PER_S_MIN = 128 << 10
FETCH_S_MIN, FETCH_S_MAX = 30.0, 3000.0
# A content, or the root of a UnixFS tree with all that is below it.
KeptId = ContentId | UnixfsId


def kept_id_of(binary: bytes) -> KeptId:
    """Read the binary form; Malformed if it is neither."""
    return UnixfsId(binary) if UnixfsId.is_node_id(binary) else ContentId(binary)


def fetch_deadline_s(size_bytes: int) -> float:
    """How long content of this size may take to arrive."""
    return min(FETCH_S_MAX, FETCH_S_MIN + size_bytes / RATE_BYTES_PER_S_MIN)


@dataclass(frozen=True, slots=True)
class KeptItem:
    """One content that is kept for `asker` until a time of the wall clock."""

    asker: PeerId
    size_bytes: int
    until_wall_s: float

    def to_bytes(self) -> bytes:
        return pack([bytes(self.asker), self.size_bytes, int(self.until_wall_s)])

    @classmethod
    def from_bytes(cls, data: bytes) -> "KeptItem":
        """Read what `to_bytes` wrote; WireError for anything else."""
        match unpack(data):
            case [bytes() as asker, int() as size_bytes, int() as until_wall_s]:
                return cls(PeerId(asker), size_bytes, float(until_wall_s))
        raise Malformed("not an item that is kept for others")


@dataclass(slots=True)
class KeptForOthers:
    """Decides what is taken. Every time is of the wall clock, in seconds."""

    quota_bytes: int
    items: dict[KeptId, KeptItem] = field(default_factory=dict)
    # Fetches under way, or that failed not long ago, and until when they count.
    _fetches: dict[tuple[PeerId, KeptId], KeptItem] = field(default_factory=dict)
    _under_way: set[tuple[PeerId, KeptId]] = field(default_factory=set)

    @property
    def others_bytes_max(self) -> int:
        return int(self.quota_bytes * OTHERS_SHARE)

    @property
    def used_bytes(self) -> int:
        """What is kept or may be arriving."""
        return sum(it.size_bytes for it in (*self.items.values(), *self._fetches.values()))

    def begin(
        self, asker: PeerId, content: KeptId, size_bytes: int, held_bytes: int, wall_s: float
    ) -> float:
        """Take up a fetch for `asker`, and return its deadline in seconds; Refused says why not.

        `held_bytes` are pinned in the store by its owner.
        """
        key = (asker, content)
        for old, failed in list(self._fetches.items()):
            if failed.until_wall_s <= wall_s and old not in self._under_way:
                del self._fetches[old]
        if any(it[0] == asker for it in self._under_way):
            raise _busy("this peer is fetching something else from you", BUSY_RETRY_S)
        if len(self._under_way) >= FETCHES_MAX:
            raise _busy(f"{FETCHES_MAX} fetches for others are under way here", BUSY_RETRY_S)
        # Asked again, a fetch that failed counts once.
        self._fetches.pop(key, None)
        if (known := self.items.get(content)) is not None and known.size_bytes != size_bytes:
            raise Malformed(f"the content has {known.size_bytes} bytes, not {size_bytes}")
        counted_bytes = size_bytes if known is None else 0
        self._check_room(asker, counted_bytes, held_bytes)
        deadline_s = fetch_deadline_s(size_bytes)
        self._fetches[key] = KeptItem(asker, counted_bytes, wall_s + deadline_s + FAILED_S)
        self._under_way.add(key)
        return deadline_s

    def _check_room(self, asker: PeerId, size_bytes: int, held_bytes: int) -> None:
        all_max = self.others_bytes_max
        each_max = int(all_max * ASKER_SHARE)
        if size_bytes > each_max:
            # Another size may be kept, this one never.
            raise Refused(
                f"{size_bytes} bytes, and this peer keeps at most {each_max} for one peer",
                code=RefusalCode.UNSUPPORTED,
            )
        rows = (*self.items.values(), *self._fetches.values())
        own = [it for it in rows if it.asker == asker]
        used = sum(it.size_bytes for it in own)
        if used + size_bytes > each_max or len(own) >= ITEMS_MAX * ASKER_SHARE:
            raise _busy(f"this peer keeps {len(own)} contents of {used} bytes for you already")
        used = self.used_bytes
        if used + size_bytes > all_max or len(rows) >= ITEMS_MAX:
            raise _busy(f"{used} of the {all_max} bytes for others are taken here")
        if held_bytes + used + size_bytes > self.quota_bytes * (1 - LEFT_SHARE):
            raise _busy("the owner of this peer needs the room")

    def done(
        self, asker: PeerId, content: KeptId, size_bytes: int, until_wall_s: float
    ) -> KeptItem:
        """The content is here, whole. Returns the item; it is kept for the longest time asked."""
        self._fetches.pop((asker, content), None)
        before = self.items.get(content)
        if before is None:
            before = KeptItem(asker, size_bytes, until_wall_s)
        elif before.until_wall_s + WORTH_WRITING_S < until_wall_s:
            before = KeptItem(before.asker, before.size_bytes, until_wall_s)
        self.items[content] = before
        return before

    def ended(self, asker: PeerId, content: KeptId, wall_s: float) -> None:
        """The fetch is over; if it failed, it counts for a while."""
        key = (asker, content)
        self._under_way.discard(key)
        if (failed := self._fetches.get(key)) is not None:
            self._fetches[key] = KeptItem(asker, failed.size_bytes, wall_s + FAILED_S)

    def expire(self, wall_s: float) -> list[KeptId]:
        """Forget what is over; returns the contents that are no longer kept."""
        gone = [content for content, it in self.items.items() if it.until_wall_s <= wall_s]
        for content in gone:
            del self.items[content]
        return gone


def _busy(why: str, retry_after_s: float = FAILED_S) -> Refused:
    return Refused(why, retry_after_s=retry_after_s, code=RefusalCode.BUSY)
