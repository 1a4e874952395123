"""When a model is left alone because it failed, and when it is tried again. Pure.

Who was there when a worker died is blamed first: only a job that failed so itself counts against
its model, and only where no job of that model went well for an hour. A load counts always: nobody
else was there. A model that is put aside is tried again after a pause, which doubles each time
until a job of it goes well.
"""

import math
from dataclasses import dataclass, field

from wire.content import ContentId

# One failure may be anybody's; three in a row of one model are the model's.
FAILURES_MAX = 3
WELL_S = 3600.0
PAUSE_S_MIN = 600.0
PAUSE_S_MAX = 86400.0
MINUTE_S = 60
HOUR_S = 3600


@dataclass(slots=True)
class _Record:
    """`pause_s` is of the last time aside; `again`: to be tried then without being asked."""

    failures: int = 0
    well_at_s: float = -math.inf
    reason: str = ""
    pause_s: float = 0.0
    until_at_s: float = -math.inf
    again: bool = False


@dataclass(slots=True)
class Quarantine:
    """What is known of each model's failures. It is told the time and does nothing itself."""

    _records: dict[ContentId, _Record] = field(default_factory=dict)

    def job_went_well(self, model: ContentId, now_at_s: float) -> None:
        self._records[model] = _Record(well_at_s=now_at_s)

    def loaded(self, model: ContentId) -> None:
        """It was loaded and its self test passed. Once put aside, it is then on trial."""
        record = self._of(model)
        record.failures = FAILURES_MAX - 1 if record.pause_s else 0
        record.again = False

    def job_failed(self, model: ContentId, now_at_s: float) -> bool:
        """A job ended with the worker; whether its model is to be put aside for it."""
        if now_at_s - self._of(model).well_at_s <= WELL_S:
            return False
        return self.load_failed(model)

    def load_failed(self, model: ContentId) -> bool:
        """The worker died of the model alone; whether it is to be put aside for it."""
        record = self._of(model)
        record.failures += 1
        return record.failures >= FAILURES_MAX

    def put(self, model: ContentId, reason: str, *, again: bool, now_at_s: float) -> None:
        """Do not run a model from `now_at_s` on, twice as long as last time; `reason` is shown."""
        record = self._of(model)
        record.reason = reason
        record.pause_s = min(PAUSE_S_MAX, max(PAUSE_S_MIN, 2 * record.pause_s))
        record.until_at_s = now_at_s + record.pause_s
        record.again = again
        # The next failure puts it aside again.
        record.failures = FAILURES_MAX - 1

    def refusal(self, model: ContentId, now_at_s: float) -> str:
        """Why a model may not be tried now; empty if it may."""
        record = self._records.get(model)
        if record is None or record.until_at_s <= now_at_s:
            return ""
        return f"{record.reason}; tried again {_in_words(record.until_at_s - now_at_s)}"

    def told(self, now_at_s: float) -> dict[ContentId, str]:
        """The models that are aside, or about to be tried again, and why."""
        found = {}
        for model, record in self._records.items():
            if record.until_at_s > now_at_s:
                found[model] = self.refusal(model, now_at_s)
            elif record.again:
                found[model] = f"{record.reason}; it is being tried again"
        return found

    def next_at_s(self, model: ContentId) -> float:
        """When a model is to be tried again without being asked."""
        record = self._records.get(model)
        return record.until_at_s if record is not None and record.again else math.inf

    def due(self, model: ContentId, now_at_s: float) -> bool:
        """Whether a model is to be tried again now."""
        return self.next_at_s(model) <= now_at_s

    def want(self, model: ContentId, *, again: bool) -> None:
        """Whether to try it again unasked; else only if somebody asks for it."""
        if model in self._records:
            self._records[model].again = again

    def _of(self, model: ContentId) -> _Record:
        return self._records.setdefault(model, _Record())


def _in_words(wait_s: float) -> str:
    if wait_s > 2 * HOUR_S:
        return f"in {math.ceil(wait_s / HOUR_S)} hours"
    return f"in {math.ceil(wait_s / MINUTE_S)} min"
