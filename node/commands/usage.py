"""What `usage` does: a ledger from the network or a file, checked, summed up and shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import trio

from node.commands.ask import SOCKET
from node.commands.genesis import read_epoch_s, read_genesis
from node.commands.ledger_file import EXPORT_AGAIN, given_or_exported, replay_file
from node.commands.output import console, safe, short, show_json, show_table
from node.ledger.epoch_outcome import EpochOutcome
from node.ledger.replica import Replica
from node.local.arguments import read_key
from node.local.control import call, unheard
from node.usage.history import UseHistory, epochs_in_week
from node.usage.page import LATER_SHOWN, page_of
from node.usage.report import model_rows, payer_rows, report_of
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import InputError
from wire.ledger import Genesis
from wire.plural import plural

WEEKS_SHOWN = 16
LOOK_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Looking:
    """What was typed for `usage`."""

    offline: Path | None
    genesis: Genesis | None
    html: Path | None
    week_s: int
    markets: tuple[PeerId, ...]
    cohorts: bool
    by: str | None

    @classmethod
    def of(
        cls,
        typed: Mapping[str, Any],
        *,
        offline: Path | None,
        genesis: Path | None,
        html: Path | None,
    ) -> Self:
        """InputError for a key, a time or a file that is none."""
        week_s = read_epoch_s(typed["week"])
        if not week_s:
            raise InputError("a week of 0 s", todo="leave out --week for one of seven days")
        return cls(
            offline=offline,
            genesis=None if genesis is None else read_genesis(genesis),
            html=html,
            week_s=week_s,
            markets=tuple(map(read_key, typed["markets"])),
            cohorts=bool(typed["cohorts"]),
            by=typed["by"],
        )


async def show_usage(wanted: Looking, state: Path, *, as_json: bool) -> None:
    """Have the ledger, check it, and show what it says of use."""
    if wanted.by == "app" and wanted.offline is not None:
        raise InputError(
            "a ledger names accounts, not apps: what an app's keys were used for, gateways tell its"
            " owner's peer",
            todo="leave out --offline where that peer runs, or list who paid with --by account",
        )
    async with given_or_exported(state, wanted.offline) as file:
        genesis, history = await trio.to_thread.run_sync(read_history, file, wanted.week_s)
    if wanted.genesis is not None and wanted.genesis != genesis:
        raise InputError(
            f"this is the ledger of {genesis.id}, not of {wanted.genesis.id}",
            todo="export that of the other network",
        )
    report = report_of(genesis, history, wanted.markets)
    if wanted.by == "account":
        report["by_account"] = payer_rows(history)
    if wanted.by == "app":
        told = await call(state / SOCKET, "app_usage", {}, unheard, deadline_s=LOOK_DEADLINE_S)
        report["by_app"] = app_rows(told)
    if wanted.by == "model":
        report["by_model"] = model_rows(history)
    if wanted.html is not None:
        _write(wanted.html, page_of(report))
    if as_json:
        show_json(report)
    else:
        _show(report, wanted)


def app_rows(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the keys of each app were used for, as gateways told its owner; amounts in millionths.

    An app is named by its owner and its name: another peer may have one of the same name.
    """
    rows = []
    for app in told["apps"]:
        keys = [it for it in told["keys"] if it["app"] == app["app"]]
        uses = [use for key in keys for use in key["gateways"].values()]
        gateways = {gateway for key in keys for gateway in key["gateways"]}
        sums = {it: sum(use[it] for use in uses) for it in ("calls", "spent", "paid")}
        named = {"app": app["app"], "owner": told["owner"], "mode": app["mode"]}
        rows.append({**named, "keys": len(keys), "gateways": len(gateways), **sums})
    return sorted(rows, key=lambda it: (-it["calls"], it["app"]))


def read_history(file: Path, week_s: int) -> tuple[Genesis, UseHistory]:
    """The use in a ledger's file, of which every part is checked; InputError if one does not hold.

    One epoch is in memory at a time, and what `UseHistory` holds.
    """
    found: list[UseHistory] = []

    def watch(replica: Replica, outcome: EpochOutcome) -> None:
        if not found:
            epoch_s = replica.genesis.epoch_s
            found.append(UseHistory(epochs_in_week(week_s, epoch_s)))
        found[0].add(outcome.draft.epoch, outcome.lines, outcome.moved, outcome.matched)

    replayed = replay_file(file, watch, todo=EXPORT_AGAIN)
    genesis = replayed.genesis
    return genesis, found[0] if found else UseHistory(epochs_in_week(week_s, genesis.epoch_s))


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}", todo="name another file with --html"
        ) from error


def _show(report: Mapping[str, Any], wanted: Looking) -> None:
    weeks = [
        (
            it["week"],
            it["raw"],
            it["discounted"],
            it["tasks"],
            show_credits(it["paid"]),
            show_credits(it["paid_discounted"]),
            show_credits(it["cost"]),
        )
        for it in report["weeks"][-WEEKS_SHOWN:]
    ]
    title = f"use of {safe(report['name'])}, {plural(report['epochs'], 'epoch')}"
    columns = ("week", "accounts", "owners", "tasks", "credits", "discounted", "cost to fake")
    show_table(title, columns, weeks)
    if not report["epochs"]:
        console.print("  what is redeemed in the epoch that runs counts once it has ended")
    if wanted.cohorts:
        _show_cohorts(report)
    if wanted.by == "model":
        models = [
            (
                "not named" if it["model"] is None else it["model"],
                show_credits(it["paid"]),
                show_credits(it["author"]),
            )
            for it in report["by_model"]
        ]
        show_table("by model", ("model", "credits", "to its author"), models)
    if wanted.by == "app":
        _show_apps(report["by_app"])
    if wanted.by == "account":
        rows = [
            (short(it["payer"]), it["tasks"], show_credits(it["paid"]), show_credits(it["cost"]))
            for it in report["by_account"]
        ]
        show_table("by who paid", ("account", "tasks", "credits", "to the fund"), rows)
    console.print(
        f"{plural(report['accounts'], 'account')} paid for tasks, of"
        f" {plural(report['owners'], 'owner')} at least"
    )
    console.print(
        f"faking all of it cost {show_credits(report['cost'])} credits (the fund's share), what is"
        f" discounted {show_credits(report['cost_discounted'])}"
    )
    if report["transfers_unseen"]:
        console.print(
            f"[yellow]{plural(report['transfers_unseen'], 'transfer')} are more than is held"
            " in memory: a"
            " circle that they close is not seen[/yellow]"
        )
    if wanted.html is not None:
        console.print(f"written to {safe(wanted.html)}")


def _show_apps(apps: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            safe(it["app"]),
            it["mode"],
            it["keys"],
            it["gateways"],
            it["calls"],
            show_credits(it["spent"]),
            show_credits(it["paid"]),
        )
        for it in apps
    ]
    columns = ("app", "mode", "keys used", "gateways", "calls", "of budgets", "paid by you")
    show_table("by app of this peer", columns, rows)


def _show_cohorts(report: Mapping[str, Any]) -> None:
    cohorts = report["cohorts"][-WEEKS_SHOWN:]
    later = min(LATER_SHOWN, max((len(it["raw"]) for it in cohorts), default=1) - 1)
    columns = ("first week", "accounts", "owners", *(f"+{it + 1}" for it in range(later)))
    rows = []
    for cohort in cohorts:
        owners = cohort["discounted"] or [0]
        shares = [
            f"{_share(cohort['raw'], at)} ({_share(owners, at)})" if at < len(cohort["raw"]) else ""
            for at in range(1, later + 1)
        ]
        rows.append((cohort["week"], cohort["raw"][0], owners[0], *shares))
    show_table("who came back: accounts (owners)", columns, rows)


def _share(active: list[int], at: int) -> str:
    return f"{100 * active[at] / active[0]:.0f} %" if at < len(active) and active[0] else "-"
