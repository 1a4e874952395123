"""Whether who paid for tasks comes back: cohorts by the week of the first payment. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.usage.history import Use, UseHistory, parts_of


@dataclass(frozen=True, slots=True)
class Cohort:
    """Those whose first paid task was in one week.

    `active[k]` of them paid for tasks k weeks later; `active[0]` are all of them. `use` is what
    they paid in all weeks.
    """

    week: int
    active: tuple[int, ...]
    use: Use


def cohorts_of(history: UseHistory, owners: Sequence[int] | None = None) -> list[Cohort]:
    """The cohorts in order of their weeks, up to the last week that there is.

    Without `owners` each account counts. With it, as `owners_of` gives it, each owner does, and
    what he pays to himself does not.
    """
    first: dict[int, int] = {}
    active: dict[int, list[int]] = {}
    paid: dict[int, Use] = {}
    weeks = sorted(history.weeks)
    last = weeks[-1] if weeks else -1
    for week in weeks:
        seen: set[int] = set()
        for pair, use in history.weeks[week].items():
            payer, payee = parts_of(pair)
            if owners is not None:
                payer, payee = owners[payer], owners[payee]
                if payer == payee:
                    continue
            seen.add(payer)
            begun = first.setdefault(payer, week)
            paid[begun] = paid.get(begun, Use()).plus(use)
        for payer in seen:
            begun = first[payer]
            active.setdefault(begun, [0] * (last - begun + 1))[week - begun] += 1
    return [Cohort(week, tuple(active[week]), paid[week]) for week in sorted(active)]


def curve_of(cohorts: Sequence[Cohort], weeks_over: int) -> list[float]:
    """What share came back after 0, 1, 2, … weeks, of all that had the time to.

    Only weeks that have ended count.
    """
    shares = []
    for later in range(max(0, weeks_over)):
        old = [it for it in cohorts if it.week + later < weeks_over]
        size = sum(it.active[0] for it in old)
        if not size:
            break
        back = sum(it.active[later] if later < len(it.active) else 0 for it in old)
        shares.append(back / size)
    return shares


def week_sums(history: UseHistory, owners: Sequence[int] | None = None) -> dict[int, Use]:
    """What was paid in each week; with `owners`, only what one owner paid another."""
    sums = {}
    for week, pairs in history.weeks.items():
        found = Use()
        for pair, use in pairs.items():
            payer, payee = parts_of(pair)
            if owners is None or owners[payer] != owners[payee]:
                found = found.plus(use)
        sums[week] = found
    return sums


def active_in(history: UseHistory, week: int, owners: Sequence[int] | None = None) -> int:
    """How many paid for tasks in a week."""
    found = set()
    for pair in history.weeks.get(week, {}):
        payer, payee = parts_of(pair)
        if owners is None:
            found.add(payer)
        elif owners[payer] != owners[payee]:
            found.add(owners[payer])
    return len(found)


def by_payer(history: UseHistory) -> dict[int, Use]:
    """What each account paid in all."""
    sums: dict[int, Use] = {}
    for pairs in history.weeks.values():
        for pair, use in pairs.items():
            payer = parts_of(pair)[0]
            sums[payer] = sums.get(payer, Use()).plus(use)
    return sums
