"""When slots are: every so often, by cron in a time zone, where clocks are put forward and back."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.workflows.schedule import SlotSchedule, read_length_ms
from wire.errors import InputError

BERLIN = "Europe/Berlin"


def ms(*moment: int, zone: str = BERLIN, fold: int = 0) -> int:
    return int(datetime(*moment, tzinfo=ZoneInfo(zone), fold=fold).timestamp()) * 1000  # type: ignore[arg-type, misc]


def told(schedule: SlotSchedule, after_ms: int, count: int) -> list[str]:
    found = []
    for _ in range(count):
        after_ms = schedule.after(after_ms)
        found.append(datetime.fromtimestamp(after_ms / 1000, UTC).strftime("%d %H:%M"))
    return found


def test_every_counts_from_the_same_moment_for_everybody() -> None:
    five = SlotSchedule.every("5m")
    assert five.after(0) == 300_000
    assert five.after(299_999) == 300_000
    assert five.after(300_000) == 600_000
    assert five.has(600_000)
    assert not five.has(600_001)
    assert not five.has(0)
    found = five.between(1, 900_000)
    assert found is not None
    assert (found.first_ms, found.last_ms, found.slots) == (300_000, 900_000, 3)
    assert five.between(900_000, 1_199_999) is None
    assert five.last(0, 900_000, 2) == [600_000, 900_000]
    assert five.last(700_000, 900_000, 5) == [900_000]


def test_cron_goes_by_the_clock_on_the_wall_of_its_zone() -> None:
    nine = SlotSchedule.cron("0 9 * * 1-5", BERLIN)
    # A Friday: the next is on Monday, nine o'clock in winter, which is eight in UTC.
    assert told(nine, ms(2026, 1, 9, 12), 2) == ["12 08:00", "13 08:00"]
    assert told(nine, ms(2026, 7, 10, 12), 1) == ["13 07:00"]
    assert nine.has(ms(2026, 7, 13, 9))
    found = nine.between(ms(2026, 1, 9, 12), ms(2026, 1, 19, 12))
    assert found is not None
    assert (found.slots, found.last_ms) == (6, ms(2026, 1, 19, 9))
    assert nine.last(ms(2026, 1, 1), ms(2026, 1, 19, 12), 2) == [ms(2026, 1, 16, 9), found.last_ms]


def test_an_hour_that_is_left_out_loses_no_run_and_one_that_comes_twice_doubles_none() -> None:
    half_past_two = SlotSchedule.cron("30 2 * * *", BERLIN)
    # On 29 March 2026 two o'clock is three o'clock.
    assert told(half_past_two, ms(2026, 3, 28, 12), 2) == ["29 01:00", "30 00:30"]
    # On 25 October half past two comes twice.
    assert told(half_past_two, ms(2026, 10, 24, 12), 2) == ["25 00:30", "26 01:30"]
    hourly = SlotSchedule.cron("0 * * * *", BERLIN)
    assert told(hourly, ms(2026, 10, 25, 1, 30), 3) == ["25 00:00", "25 01:00", "25 02:00"]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 0 31 2 *",
        "a b c d e",
        "* * * * 1#9",
        "@daily",
    ],
)
def test_what_is_no_cron_expression_is_named(words: str) -> None:
    with pytest.raises(InputError, match="cron expression"):
        SlotSchedule.cron(words, "UTC")


@pytest.mark.parametrize("zone", ["Mars/Base", "../../etc/passwd", "/etc/passwd", "Europe", "\0"])
def test_what_is_no_time_zone_is_named(zone: str) -> None:
    with pytest.raises(InputError, match="no time zone"):
        SlotSchedule.cron("0 9 * * *", zone)


@pytest.mark.parametrize("length", ["0s", "5", "m", "1w", "-1s", "1.5h", "367d", "9999999999s", ""])
def test_what_is_no_length_is_named(length: str) -> None:
    with pytest.raises(InputError, match="no length of time"):
        read_length_ms(length)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["every 1s", "every 7m", "*/15 * * * *", "30 2 * * *", "0 0 1 * 1"]),
    st.integers(1_700_000_000_000, 1_800_000_000_000),
    st.integers(0, 40 * 86_400_000),
)
def test_first_last_and_count_agree_with_going_through_all(
    text: str, after_ms: int, span_ms: int
) -> None:
    schedule = SlotSchedule(text, BERLIN)
    until_ms = after_ms + (span_ms if text.startswith(("30", "0")) else span_ms // 1000)
    slots, at_ms = [], after_ms
    while (at_ms := schedule.after(at_ms)) <= until_ms and len(slots) < 300:
        slots.append(at_ms)
    if at_ms <= until_ms:
        return
    found = schedule.between(after_ms, until_ms)
    if not slots:
        assert found is None
        return
    assert found is not None
    assert (found.first_ms, found.last_ms, found.slots) == (slots[0], slots[-1], len(slots))
    assert schedule.last(after_ms, until_ms, 3) == slots[-3:]
    assert all(map(schedule.has, slots))
