"""The last two minutes of a peer in figures, for the lines that the console draws. A pure core."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LOOKS_KEPT = 120
WIDTH, HEIGHT = 240, 40


def rate_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Units of work a second between two looks; 0 where the peer was started anew."""
    passed_s = now["uptime_s"] - before["uptime_s"]
    made = now["engine"]["units_done"] - before["engine"]["units_done"]
    return max(0.0, made / passed_s) if passed_s > 0 else 0.0


@dataclass(slots=True)
class History:
    """Figures of the latest looks, oldest first, about a second apart while somebody watches."""

    rates: deque[float] = field(default_factory=lambda: deque(maxlen=LOOKS_KEPT))
    sent: deque[float] = field(default_factory=lambda: deque(maxlen=LOOKS_KEPT))
    received: deque[float] = field(default_factory=lambda: deque(maxlen=LOOKS_KEPT))
    _last: Mapping[str, Any] | None = None

    def look(self, status: Mapping[str, Any]) -> None:
        """Note one status of the peer."""
        before, self._last = self._last, status
        if before is None or status["uptime_s"] <= before["uptime_s"]:
            return
        self.rates.append(rate_of(before, status))
        passed_s = status["uptime_s"] - before["uptime_s"]
        for line, name in ((self.sent, "sent_bytes"), (self.received, "received_bytes")):
            now, earlier = status.get("traffic", {}).get(name), before.get("traffic", {}).get(name)
            if now is not None and earlier is not None:
                line.append(max(0.0, (now - earlier) / passed_s))


def points_of(figures: Sequence[float]) -> str:
    """The corners of a line through `figures`, as an SVG of WIDTH by HEIGHT has them; "" if few."""
    if len(figures) < 2:
        return ""
    top = max(figures) or 1.0
    step = WIDTH / (LOOKS_KEPT - 1)
    first = WIDTH - step * (len(figures) - 1)
    return " ".join(
        f"{first + step * place:.0f},{HEIGHT - 1 - (HEIGHT - 3) * figure / top:.0f}"
        for place, figure in enumerate(figures)
    )
