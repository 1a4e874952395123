"""When the slots of a workflow are: every so often, or by a cron expression in a time zone. Pure.

`every` counts from the beginning of 1970 in UTC, so that every keeper has the same slots. A cron
expression has five fields and means what Debian's cron makes of it. Where clocks are put forward, a
run at a fixed time in the hour that is left out comes right after it; where they are put back, it
comes once. A run each hour, or each few minutes, comes as often as these pass.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from wire.errors import InputError
from wire.feed import SlotSpan

EVERY_MS_MAX = 366 * 24 * 3_600_000
CRON_CHARS_MAX = 100
# So many slots of a cron expression are counted; of more it is said that there are so many.
COUNTED_MAX = 1000
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LENGTH = re.compile(r"(\d{1,9})(s|m|h|d)")
# A moment that no calendar has a date for is refused: the year 9000.
_MS_MAX = 221_845_392_000_000


def read_length_ms(text: str) -> int:
    """`90s`, `5m`, `2h`, `1d` in milliseconds; InputError for anything else."""
    match = _LENGTH.fullmatch(text)
    if match is None or not 0 < int(match[1]) * _UNITS_MS[match[2]] <= EVERY_MS_MAX:
        raise InputError(
            f"{text[:40]!r} is no length of time", todo="write 1s to 366d, as 30s, 5m, 2h or 1d"
        )
    return int(match[1]) * _UNITS_MS[match[2]]


@dataclass(frozen=True, slots=True)
class SlotSchedule:
    """Either `every_ms` or `cron`; times are milliseconds since the beginning of 1970 in UTC."""

    text: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        _zone(self.zone)
        if not self._every_ms:
            # It has to have a slot at all.
            self.after(0)

    @classmethod
    def every(cls, length: str) -> "SlotSchedule":
        """A slot every so often, as `5m`; InputError for what is no length."""
        read_length_ms(length)
        return cls(f"every {length}")

    @classmethod
    def cron(cls, expression: str, zone: str) -> "SlotSchedule":
        """Slots by a cron expression of five fields; InputError for what is none."""
        words = expression.split()
        if len(words) != 5 or len(expression) > CRON_CHARS_MAX:
            raise InputError(
                f"{expression[:60]!r} is no cron expression of five fields",
                todo='write minute, hour, day, month, day of the week: "0 9 * * 1-5"',
            )
        return cls(" ".join(words), zone)

    @property
    def _every_ms(self) -> int:
        word, _, length = self.text.partition(" ")
        return read_length_ms(length) if word == "every" else 0

    def after(self, at_ms: int) -> int:
        """The first slot later than a moment; InputError if there is none any more."""
        if every_ms := self._every_ms:
            return (at_ms // every_ms + 1) * every_ms
        return next(self._following(at_ms))

    def has(self, at_ms: int) -> bool:
        """Whether a moment is a slot."""
        return at_ms > 0 and self.after(at_ms - 1) == at_ms

    def between(self, after_ms: int, until_ms: int) -> SlotSpan | None:
        """The slots later than one moment and not later than another; None if there are none."""
        first_ms = self.after(after_ms)
        if first_ms > until_ms:
            return None
        if every_ms := self._every_ms:
            last_ms = until_ms // every_ms * every_ms
            return SlotSpan(
                first_ms=first_ms, last_ms=last_ms, slots=(last_ms - first_ms) // every_ms + 1
            )
        last_ms, slots = first_ms, 1
        for slot_ms in self._following(first_ms):
            if slot_ms > until_ms:
                return SlotSpan(first_ms=first_ms, last_ms=last_ms, slots=slots)
            last_ms, slots = slot_ms, slots + 1
            if slots >= COUNTED_MAX:
                break
        return SlotSpan(first_ms=first_ms, last_ms=self._latest(until_ms), slots=slots)

    def last(self, after_ms: int, until_ms: int, count: int) -> list[int]:
        """The last `count` slots later than one moment and not later than another, in order."""
        if every_ms := self._every_ms:
            last_ms = until_ms // every_ms * every_ms
            found = [last_ms - every_ms * back for back in range(count)]
        else:
            found, at_ms = [], until_ms
            while len(found) < count and (at_ms := self._latest(at_ms)) > after_ms:
                found.append(at_ms)
                at_ms -= 1
        return [it for it in reversed(found) if it > after_ms]

    def _following(self, at_ms: int) -> Iterator[int]:
        before_ms = at_ms
        for moment in _cron(self.text, self.zone, at_ms):
            slot_ms = int(moment.timestamp()) * 1000
            if slot_ms > before_ms:
                yield slot_ms
                before_ms = slot_ms
        raise InputError(f"{self.text!r} has no slot in the next fifty years")

    def _latest(self, at_ms: int) -> int:
        """The latest slot that is not later than a moment; 0 if there is none."""
        for moment in _cron(self.text, self.zone, at_ms + 1000, backwards=True):
            if (slot_ms := int(moment.timestamp()) * 1000) <= at_ms:
                return slot_ms
        return 0


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{name[:60]!r} is no time zone of this machine", todo="write one as Europe/Berlin"
        ) from error


def _cron(expression: str, zone: str, at_ms: int, *, backwards: bool = False) -> CronSim:
    if not 0 <= at_ms <= _MS_MAX:
        raise InputError(f"{at_ms} ms is no moment of any schedule")
    try:
        return CronSim(expression, datetime.fromtimestamp(at_ms / 1000, _zone(zone)), backwards)
    except CronSimError as error:
        raise InputError(
            f"{expression!r} is no cron expression: {error}",
            todo='write minute, hour, day, month, day of the week: "0 9 * * 1-5"',
        ) from error
