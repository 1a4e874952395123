"""Each slot is run or lost, once, by the rules for missed and overlapping runs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.workflows.schedule import SlotSchedule
from node.workflows.slots import (
    MISSED_RULES,
    OVERLAP_RULES,
    DueItem,
    LostSlots,
    RunRules,
    due,
)

EVERY = SlotSchedule.every("10s")
S = 1000


def items(found: list[DueItem]) -> list[object]:
    return [it if isinstance(it, int) else (it.end, it.span.slots) for it in found]


def at(rules: RunRules, cursor: int, busy: int, now: int) -> list[object]:
    return items(due(EVERY, rules, cursor_ms=cursor * S, busy_until_ms=busy * S, now_ms=now * S))


def test_a_slot_in_time_is_run_and_one_that_is_not_due_waits() -> None:
    assert at(RunRules(), 100, 0, 109) == []
    assert at(RunRules(), 100, 0, 110) == [110 * S]
    assert at(RunRules(), 100, 0, 131) == [110 * S, 120 * S, 130 * S]


@pytest.mark.parametrize(
    ("missed", "found"),
    [
        ("skip", [("missed", 10), 210 * S, 220 * S]),
        ("latest", [("missed", 9), 200 * S, 210 * S, 220 * S]),
        ("all", [("missed", 6), 170 * S, 180 * S, 190 * S, 200 * S, 210 * S, 220 * S]),
    ],
)
def test_what_was_missed_goes_by_its_rule(missed: str, found: list[object]) -> None:
    assert at(RunRules(missed=missed, missed_max=4, late_ms=15 * S), 100, 0, 222) == found


@pytest.mark.parametrize(
    ("overlap", "found"), [("skip", [("skipped", 3)]), ("queue", [("skipped", 2), 130 * S])]
)
def test_what_came_during_a_run_goes_by_its_rule(overlap: str, found: list[object]) -> None:
    assert at(RunRules(overlap=overlap), 100, 135, 136) == found
    assert at(RunRules(overlap=overlap), 100, 135, 140) == [*found, 140 * S]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(MISSED_RULES),
    st.sampled_from(OVERLAP_RULES),
    st.integers(0, 3000),
    st.integers(0, 4000),
    st.integers(0, 4000),
    st.integers(0, 600),
)
def test_every_slot_is_in_exactly_one_item(
    missed: str, overlap: str, cursor: int, busy: int, now: int, late: int
) -> None:
    rules = RunRules(missed=missed, missed_max=5, overlap=overlap, late_ms=late * S)
    now = max(now, cursor)
    found = due(EVERY, rules, cursor_ms=cursor * S, busy_until_ms=busy * S, now_ms=now * S)
    slots: list[int] = []
    for one in found:
        if isinstance(one, LostSlots):
            span = range(one.span.first_ms, one.span.last_ms + 1, 10 * S)
            assert len(span) == one.span.slots
            slots += span
        else:
            slots.append(one)
    assert slots == list(range((cursor // 10 + 1) * 10 * S, now * S + 1, 10 * S))
