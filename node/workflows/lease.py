"""Which keeper of a feed writes now: by epochs, and by how long the others were silent. Pure.

The keeper of the last entry's epoch goes on writing for as long as it is heard. When it was silent
for `takeover_s`, the next one in the order of the keepers takes over with its own next epoch; the
one after it does after twice that time, if the one before it is silent too. Nobody takes a feed
back from a keeper that is heard: who comes back stands by. Only silence counts that this peer
itself listened to, on a clock that stands still while the machine sleeps; and who hears nobody at
all may be cut off itself, and takes nothing over.
"""

from dataclasses import dataclass, field

from node.workflows.branches import keeper_of, next_epoch
from wire.content import ContentId, PeerId
from wire.errors import Refused
from wire.feed import FeedRecord

# So many times in a row a keeper has to be asked in vain.
UNANSWERED_MIN = 3


@dataclass(slots=True)
class _Heard:
    at_s: float
    unanswered: int = 0


@dataclass(slots=True)
class FeedLease:
    """What one keeper of a feed, `me`, knows of who writes. Times are trio's, in seconds.

    `epoch` is the one in which this peer writes now; None while it stands by.
    """

    record: FeedRecord
    me: PeerId
    takeover_s: float
    epoch: int | None
    # The epoch of the last entry that is known, and the keeper that writes in it.
    latest: int = 0
    _heard: dict[PeerId, _Heard] = field(default_factory=dict)

    @property
    def feed(self) -> ContentId:
        return self.record.id

    @property
    def others(self) -> tuple[PeerId, ...]:
        """The other keepers."""
        return tuple(it for it in self.record.keepers if it != self.me)

    @property
    def holder(self) -> PeerId:
        """Who writes, as far as this peer knows."""
        return keeper_of(self.record, self.latest if self.epoch is None else self.epoch)

    def held_epoch(self) -> int:
        """The epoch of what this peer writes now; Refused if another one writes."""
        self.check_held()
        assert self.epoch is not None
        return self.epoch

    def check_held(self) -> None:
        """Refused unless this peer writes now."""
        if self.epoch is None:
            raise Refused(
                f"this peer stands by: the workflow runs at {self.holder}",
                todo="run it there, or wait until this peer takes over",
            )

    def begin(self, now_at_s: float) -> None:
        """Listen to the others from now on."""
        self._heard = {it: _Heard(now_at_s) for it in self.others}

    def answered(self, keeper: PeerId, now_at_s: float) -> None:
        """A keeper has answered, in whatever words."""
        self._heard[keeper] = _Heard(now_at_s)

    def unanswered(self, keeper: PeerId) -> None:
        """A keeper was asked in vain."""
        self._heard[keeper].unanswered += 1

    def silent_s(self, keeper: PeerId, now_at_s: float) -> float:
        """How long a keeper has not answered, though it was asked again and again; else 0."""
        heard = self._heard.get(keeper)
        if heard is None or heard.unanswered < UNANSWERED_MIN:
            return 0.0
        return now_at_s - heard.at_s

    def learn(self, epoch: int) -> bool:
        """The last entry that is known has this epoch; whether this peer has to stand down."""
        self.latest = epoch
        if self.epoch is None or epoch <= self.epoch:
            return False
        self.epoch = None
        return True

    def resume(self) -> bool:
        """Write on in the last epoch, if it is this peer's and nobody has a later one."""
        if self.epoch is None and keeper_of(self.record, self.latest) == self.me:
            self.epoch = self.latest
            return True
        return False

    def may_take_over(self, now_at_s: float, *, hears_others: bool) -> bool:
        """Whether it is time that this peer writes in the holder's place."""
        if self.epoch is not None or self.holder == self.me or not hears_others:
            return False
        waiting = [it for it in self.record.keepers if it != self.holder]
        place = waiting.index(self.me)
        # What a keeper before this one wrote may not be known yet: while it is heard, it has the
        # feed.
        return self.silent_s(self.holder, now_at_s) >= self.takeover_s * (place + 1) and all(
            self.silent_s(it, now_at_s) >= self.takeover_s for it in waiting[:place]
        )

    def may_give_back(self, now_at_s: float) -> bool:
        """Whether the holder is back before this peer wrote anything in its own epoch.

        It cannot know of an epoch without entries, and goes on.
        """
        holder = keeper_of(self.record, self.latest)
        unused = self.epoch is not None and self.epoch > self.latest
        return unused and holder != self.me and self._is_heard(holder, now_at_s)

    def _is_heard(self, keeper: PeerId, now_at_s: float) -> bool:
        heard = self._heard.get(keeper)
        return (
            heard is not None and not heard.unanswered and now_at_s - heard.at_s < self.takeover_s
        )

    def take_over(self) -> int:
        """Write from now on in an epoch of this peer's own."""
        self.epoch = next_epoch(self.record, self.me, self.latest)
        return self.epoch
