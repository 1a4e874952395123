"""Use as one document: weeks and cohorts, raw and discounted, and what faking them costs. Pure."""

from collections.abc import Iterable
from typing import Any

from node.usage.cohorts import (
    Cohort,
    active_in,
    by_payer,
    cohorts_of,
    curve_of,
    week_sums,
)
from node.usage.history import Use, UseHistory, parts_of
from node.usage.owners import owners_of
from wire.content import PeerId
from wire.errors import InputError
from wire.ledger import Genesis

PAYERS_SHOWN_MAX = 1000
MODELS_SHOWN_MAX = 1000


def report_of(
    genesis: Genesis, history: UseHistory, markets: Iterable[PeerId] = ()
) -> dict[str, Any]:
    """The whole document; amounts in millionths, shares from 0 to 1.

    `cost` is what the fund got of what the payers paid: who faked them paid that at least.
    InputError for a market that no line and no transfer names.
    """
    there = set(history.accounts)
    apart = set()
    for market in markets:
        if market not in there:
            raise InputError(
                f"{market} has paid nobody and was paid by nobody",
                todo="name an account of this ledger with --market, or leave it out",
            )
        apart.add(history.number(market))
    owners = owners_of(len(history.accounts), history.edges(), apart)
    raw, less = cohorts_of(history), cohorts_of(history, owners)
    sums, sums_less = week_sums(history), week_sums(history, owners)
    total = sum_of(sums.values())
    # Not all accounts of the history: some were only paid.
    payers = {parts_of(pair)[0] for week in history.weeks.values() for pair in week}
    return {
        "network": str(genesis.id),
        "name": genesis.name,
        "epochs": history.epochs,
        "week_epochs": history.week_epochs,
        "weeks_over": history.weeks_over,
        "accounts": len(payers),
        "owners": len({owners[it] for it in payers}),
        "transfers_unseen": history.unseen,
        "paid": total.paid,
        "tasks": total.tasks,
        "cost": total.growth,
        "cost_discounted": sum_of(sums_less.values()).growth,
        "weeks": [
            {
                "week": week,
                "raw": active_in(history, week),
                "discounted": active_in(history, week, owners),
                "paid": sums[week].paid,
                "paid_discounted": sums_less[week].paid,
                "tasks": sums[week].tasks,
                "cost": sums[week].growth,
            }
            for week in sorted(history.weeks)
        ],
        "cohorts": _both(raw, less),
        "curve": {
            "raw": curve_of(raw, history.weeks_over),
            "discounted": curve_of(less, history.weeks_over),
        },
    }


def _both(raw: list[Cohort], less: list[Cohort]) -> list[dict[str, Any]]:
    discounted = {it.week: it for it in less}
    return [
        {
            "week": cohort.week,
            "raw": list(cohort.active),
            "discounted": list(other.active) if (other := discounted.get(cohort.week)) else [],
            "paid": cohort.use.paid,
            "tasks": cohort.use.tasks,
            "cost": cohort.use.growth,
        }
        for cohort in raw
    ]


def payer_rows(history: UseHistory) -> list[dict[str, Any]]:
    """Who paid most, the greatest first."""
    found = sorted(by_payer(history).items(), key=lambda it: (-it[1].paid, it[0]))
    return [
        {
            "payer": str(history.accounts[payer]),
            "paid": use.paid,
            "tasks": use.tasks,
            "cost": use.growth,
        }
        for payer, use in found[:PAYERS_SHOWN_MAX]
    ]


def model_rows(history: UseHistory) -> list[dict[str, Any]]:
    """What was paid for which model, the most first; last what vouchers named no model for."""
    found = sorted(history.models.items(), key=lambda it: (-it[1][0], it[0]))
    rows = [
        {"model": str(model), "paid": paid, "author": author}
        for model, (paid, author) in found[:MODELS_SHOWN_MAX]
    ]
    paid = sum_of(week_sums(history).values()).paid
    named = sum(int(str(it["paid"])) for it in rows)
    return [*rows, {"model": None, "paid": paid - named, "author": 0}]


def sum_of(uses: Iterable[Use]) -> Use:
    """All of them together."""
    found = Use()
    for use in uses:
        found = found.plus(use)
    return found
