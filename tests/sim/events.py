"""The event loop: a heap of calls, a clock that jumps, and a digest of everything that happened."""

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_FOLDED_AT_ONCE = 4096


@dataclass(slots=True)
class Loop:
    """Runs calls in the order of their times; calls of one time in the order of scheduling."""

    now_at_s: float = 0.0
    count: int = 0
    _order: int = 0
    _heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(
        default_factory=list
    )
    _digest: Any = field(default_factory=hashlib.sha256)
    _lines: list[str] = field(default_factory=list)

    def after(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now_at_s + delay_s, self._order, call, arguments))

    def run(self, until_at_s: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until_at_s:
            self.now_at_s, order, call, arguments = heapq.heappop(heap)
            self.count += 1
            self.fold(f"{self.now_at_s:.6f} {order}")
            call(*arguments)
        self.now_at_s = max(self.now_at_s, until_at_s)

    def fold(self, line: str) -> None:
        """Add a line to the digest, which must be equal in two runs of one plan."""
        self._lines.append(line)
        if len(self._lines) >= _FOLDED_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._digest.update("\n".join(self._lines).encode())
        self._digest.update(b"\n")
        self._lines.clear()

    @property
    def digest(self) -> str:
        self._flush()
        return str(self._digest.hexdigest())
