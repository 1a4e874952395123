"""Which block from whom: the plan of one download, as a pure core.

Blocks are known by content, so sources need not be trusted and any block may come from any of
them. A source that lacks a block is asked for others; one that fails is left out; a block nobody
has ends it.
"""

from collections import deque
from dataclasses import dataclass, field

from wire.content import ContentId, PeerId


@dataclass(slots=True)
class FetchPlan:
    """Feed it `need`, ask it `next_for(source)`, tell it what became of each."""

    _waiting: deque[ContentId] = field(default_factory=deque)
    _known: set[ContentId] = field(default_factory=set)
    _under_way: dict[ContentId, PeerId] = field(default_factory=dict)
    _lacking: dict[ContentId, set[PeerId]] = field(default_factory=dict)
    _left_out: set[PeerId] = field(default_factory=set)

    def need(self, block: ContentId) -> None:
        """`block` is not here: ask for it, unless it is waited for already."""
        if block not in self._known:
            self._known.add(block)
            self._waiting.append(block)

    def next_for(self, source: PeerId) -> ContentId | None:
        """A block to ask `source` for; None if there is none for it now."""
        if source in self._left_out:
            return None
        for _ in range(len(self._waiting)):
            block = self._waiting.popleft()
            if source not in self._lacking.get(block, ()):
                self._under_way[block] = source
                return block
            self._waiting.append(block)
        return None

    def arrived(self, block: ContentId) -> None:
        self._under_way.pop(block, None)
        self._known.discard(block)

    def lacks(self, source: PeerId, block: ContentId) -> None:
        """`source` does not have it."""
        self._lacking.setdefault(block, set()).add(source)
        self._again(block)

    def failed(self, source: PeerId, block: ContentId) -> None:
        """`source` is gone, or sent something else: it is not asked again."""
        self._left_out.add(source)
        self._again(block)

    def _again(self, block: ContentId) -> None:
        if self._under_way.pop(block, None) is not None:
            self._waiting.appendleft(block)

    def idle_for_good(self, source: PeerId) -> bool:
        """Whether nothing that is left, or may come back, can be asked of `source`."""
        return source in self._left_out or not self._under_way

    @property
    def done(self) -> bool:
        return not self._waiting and not self._under_way
