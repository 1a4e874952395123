"""Whether a clock can be right at all, with nobody else's to compare it with. Pure."""

from datetime import UTC, datetime

DAY_S = 86_400.0
# No clock of a machine that runs this was ever right before 2026; one of 2066 is trusted no more.
EARLIEST_WALL_S = 1_767_225_600.0
LATEST_WALL_S = EARLIEST_WALL_S + 40 * 365.25 * DAY_S


def wrong_clock_words(wall_s: float) -> str:
    """What is wrong with a clock that was never set, as of a machine without a battery; or ""."""
    if EARLIEST_WALL_S <= wall_s < LATEST_WALL_S:
        return ""
    year = datetime.fromtimestamp(min(max(wall_s, 0.0), 1e11), UTC).year
    when = "before this program was written" if wall_s < EARLIEST_WALL_S else "in the far future"
    return f"this machine's clock is in the year {year}, {when}"


def gone_back_words(wall_s: float, newest_s: float) -> str:
    """What is wrong with a clock by which this peer's own files are of a later day; or ""."""
    days = (newest_s - wall_s) // DAY_S
    if days < 1:
        return ""
    behind = f"{days / 365.25:.1f} years" if days >= 365 else f"{days:.0f} d"
    return f"this machine's clock is {behind} behind what this peer has already written"
