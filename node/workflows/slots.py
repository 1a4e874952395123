"""Which slots of a workflow are run, and which are lost, by its rules. Pure.

A slot is late if nobody began it within `late_ms`: the keeper was off, or asleep. Such slots are
judged by the rule for missed runs, and those that came while a run was under way by the rule for
overlapping ones. Every slot is in exactly one item.
"""

from dataclasses import dataclass

from node.workflows.schedule import SlotSchedule
from wire.feed import MISSED, SKIPPED, SlotSpan

MISSED_RULES, OVERLAP_RULES = ("skip", "latest", "all"), ("skip", "queue")
# So many late slots are run at most under the rule `all`, and so many that are in time.
RUNS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRules:
    """What is done about slots that were not begun at their time.

    `missed`: `skip` runs none of them, `latest` the last one, `all` the last `missed_max`.
    `overlap`: `skip` runs none of those that came during a run, `queue` the last one.
    """

    missed: str = "skip"
    missed_max: int = 100
    overlap: str = "skip"
    late_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class LostSlots:
    """Slots that are not run, and how they ended."""

    span: SlotSpan
    end: str


DueItem = int | LostSlots


def due(
    schedule: SlotSchedule, rules: RunRules, *, cursor_ms: int, busy_until_ms: int, now_ms: int
) -> list[DueItem]:
    """What to do about every slot after `cursor_ms` that is due now, in order of time.

    `busy_until_ms` is when the last run ended, in this life of the keeper; else `cursor_ms`.
    """
    busy_until_ms = min(max(busy_until_ms, cursor_ms), now_ms)
    late_until_ms = max(busy_until_ms, now_ms - rules.late_ms)
    overlapping = 1 if rules.overlap == "queue" else 0
    late = {"skip": 0, "latest": 1, "all": min(rules.missed_max, RUNS_MAX)}[rules.missed]
    return [
        *_judged(schedule, cursor_ms, busy_until_ms, overlapping, SKIPPED),
        *_judged(schedule, busy_until_ms, late_until_ms, late, MISSED),
        *_judged(schedule, late_until_ms, now_ms, RUNS_MAX, MISSED),
    ]


def _judged(
    schedule: SlotSchedule, after_ms: int, until_ms: int, run: int, end: str
) -> list[DueItem]:
    """The last `run` slots of a span are run, and those before are lost."""
    found = schedule.between(after_ms, until_ms)
    if found is None:
        return []
    kept: list[DueItem] = [*schedule.last(after_ms, until_ms, run)] if run else []
    first = kept[0] if kept else None
    if not isinstance(first, int):
        return [LostSlots(found, end)]
    lost = schedule.between(after_ms, first - 1)
    return kept if lost is None else [LostSlots(lost, end), *kept]
