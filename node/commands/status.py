"""`status`, `peers`: what the running peer knows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from node.commands.ask import SOCKET
from node.commands.output import (
    clock_words,
    console,
    safe,
    short,
    show_json,
    show_table,
    size,
)
from node.commands.status_brief import brief_lines
from node.commands.status_lines import (
    belonging_lines,
    model_line,
    network_words,
    news_of,
    noted_words,
    up_words,
    wrong_rows_lines,
)
from node.commands.to_type import advised
from node.health.reach_words import ALONE, reach_words
from node.local.control import call, unheard
from node.upgrading.started import read_started
from store.folder import locked_by
from wire.amount import show_credits
from wire.errors import BatonError
from wire.plural import plural

DEADLINE_S = 30.0


async def look(state: Path, what: str, *, as_json: bool, whole: bool = True) -> None:
    """Ask the running peer for one view of itself, and show it; of `status` all, or one screen."""
    result = await call(state / SOCKET, what, {}, unheard, deadline_s=DEADLINE_S)
    if what == "status":
        result["release"] = await trio.to_thread.run_sync(_release, state)
    if as_json:
        show_json(result)
    elif whole:
        _SHOW[what](result)
    else:
        for line in brief_lines(result):
            console.print(line)


def _release(state: Path) -> str:
    """The version of Baton that the peer was started as, which an upgrade changes; "" if unknown.

    A command says its own with --version, and may be of another.
    """
    try:
        started = read_started(state, trusted=False)
    except BatonError:
        return ""
    return started.version if started is not None and started.process == locked_by(state) else ""


def _status(found: Mapping[str, Any]) -> None:
    network = network_words(found)
    console.print(f"[bold]peer {found['peer']}[/bold] in the network {network}")
    seen, there = found["answered_last_minute"], found["connected"]
    colour = "green" if seen else "yellow"
    console.print(
        f"  [{colour}]{seen} of {plural(there, 'connected peer')} saw and answered it in the"
        " last minute"
        f"[/{colour}]; {found['known']} known"
    )
    console.print(f"  roles {', '.join(found['roles'])}; {up_words(found)}")
    if found["paused"]:
        console.print(f"  [yellow]paused: {safe(found['paused'])}[/yellow]")
    for rule in found.get("guest", {}).get("cannot_tell", ()):
        console.print(f"  [yellow]cannot be kept to: {safe(rule)}[/yellow]")
    if "traffic" in found:
        console.print(_traffic_line(found["traffic"]))
    for address in found["addresses"]:
        console.print(f"  listening on {address}")
    if (reach := found.get("reach")) is not None:
        line = safe(reach_words(reach))
        console.print(f"  [yellow]{line}[/yellow]" if reach["how"] == ALONE else f"  {line}")
    for line in belonging_lines(found):
        console.print(f"  {line}")
    for model in found["models"]:
        console.print(f"  {model_line(model)}")
        for line in _layer_lines(model):
            console.print(line)
    tasks = found["tasks"]
    console.print(
        f"  own tasks: {tasks['accepted']} accepted, {tasks['answered']} answered,"
        f" {tasks['failed']} failed, {tasks['under_way']} under way"
    )
    console.print(
        f"  here: {plural(found['legs_done'], 'leg')} done,"
        f" {plural(found['checks_done'], 'check')} made"
    )
    if "background_checks" in found:
        console.print(_background_line(found["background_checks"]))
    for side, whose in (("asking", "at others"), ("serving", "of others here")):
        # A peer of an earlier version tells nothing of them.
        order = found.get("orders", {}).get(side)
        if order and order["open"]:
            console.print(_orders_line(order, whose))
    store = found["store"]
    console.print(
        f"  store: {size(store['used_bytes'])} of {size(store['quota_bytes'])}, models included;"
        f" on the disk {size(store['disk_bytes'])} and {size(store['files_disk_bytes'])} in files"
    )
    if "ledger" in found:
        for line in (*_ledger_lines(found["ledger"]), *_sponsor_lines(found.get("sponsor", {}))):
            console.print(line)
    if "http" in found:
        console.print(_http_line(found["http"]))
    if found["same_key_elsewhere"]:
        console.print("  [red]another machine uses this key: a state folder was copied[/red]")
    if found["clock_wrong_s"] is not None:
        clock = clock_words(found["clock_wrong_s"])
        console.print(f"  [red]this machine's clock is {clock} most others'[/red]")
    if found["unmet"]:
        console.print(f"  [yellow]{safe(found['unmet'])}[/yellow]")
    if found["engine"]["last_failure"]:
        console.print(f"  [yellow]engine: {safe(found['engine']['last_failure'])}[/yellow]")
    for note in news_of(found):
        console.print(f"  [dim]{safe(advised(noted_words(note)))}[/dim]")


def _traffic_line(traffic: Mapping[str, Any]) -> str:
    """What was sent and received, in one line, and what the owner gives."""
    line = f"  sent {size(traffic['sent_bytes'])}, received {size(traffic['received_bytes'])}"
    line += f"; {size(traffic['month_bytes'])}"
    if traffic["month_bytes_max"]:
        line += f" of {size(traffic['month_bytes_max'])}"
    line += " this month"
    for name, way in (("up", "sent"), ("down", "received")):
        if traffic[f"{name}_bytes_per_s"]:
            line += f"; at most {size(traffic[f'{name}_bytes_per_s'])}/s {way}"
    return line


def _layer_lines(model: Mapping[str, Any]) -> list[str]:
    """Who has the layers of a model that are not here, and whose rows of it were wrong."""
    lines = []
    if rest := model.get("rest"):
        holders = (f"{safe(it['layers'])} at {short(it['peer'])}" for it in rest)
        lines.append(f"    the rest: {', '.join(holders)}")
    lines += [f"    [red]{it}[/red]" for it in wrong_rows_lines(model)]
    return lines


def _background_line(checks: Mapping[str, Any]) -> str:
    """What came of checking answers afterwards that nobody had checked."""
    if not checks["share"]:
        return "  no unchecked answer is checked afterwards (--background-checks)"
    wrong = f"[red]{checks['wrong']} wrong[/red]" if checks["wrong"] else "none wrong"
    open_ones = checks["undecided"] + checks["left_out"]
    return (
        f"  of unchecked answers {checks['share']:.0%} are checked afterwards, more of peers seldom"
        f" checked: {checks['held']} held, {wrong}, {open_ones} could not be checked"
    )


def _orders_line(orders: Mapping[str, Any], whose: str) -> str:
    """The standing orders of one side, in one line."""
    places = orders["places_in_use"] + orders["places_free"]
    return (
        f"  standing orders {whose}: {orders['open']}, {orders['tasks_per_bundle']:.1f} tasks in a"
        f" bundle, {orders['places_in_use']} of {plural(places, 'place')} in use"
    )


def _sponsor_lines(sponsor: Mapping[str, Any]) -> list[str]:
    """What this peer gives to newcomers, if it does."""
    if not sponsor:
        return []
    given, most, each = (show_credits(sponsor[it]) for it in ("given", "per_epoch", "each"))
    return [f"  gives newcomers {each} credits each: {given} of {most} in this epoch"]


def _ledger_lines(ledger: Mapping[str, Any]) -> list[str]:
    """The ledger, and how this peer stands in it."""
    bad = plural(ledger["tolerates"], "bad member")
    members = plural(ledger["members"], "member")
    lines = [f"  ledger of {safe(ledger['name'])}: {members}, tolerates {bad}"]
    if ledger["member"]:
        doing = "ending" if ledger["sealed"] else "sat out" if ledger["sits_out"] else "running"
        lines.append(
            f"  a member: epoch {ledger['epoch']} is {doing},"
            f" {plural(ledger['orders'], 'order')} so far;"
            f" supply {show_credits(ledger['supply'])} credits"
        )
    if ledger.get("staked"):
        staked = show_credits(ledger["staked"])
        lines.append(
            f"  {staked} credits are staked, by the checkpoint of epoch {ledger['stakes_epoch']}"
        )
    if ledger.get("problem"):
        lines.append(f"  [yellow]ledger: {safe(ledger['problem'])}[/yellow]")
    return lines


def _stake_words(stake: Mapping[str, Any]) -> str:
    """What a peer has staked by the last checkpoint, and what else it says."""
    claimed, known = stake["claimed"], stake["known"]
    if known is None:
        return f"says {show_credits(claimed)}" if claimed else ""
    words = show_credits(known) if known or claimed else ""
    return words if claimed <= known else f"{words}, says {show_credits(claimed)}"


def _http_line(http: Mapping[str, Any]) -> str:
    """How the gateway is, in one line; what clients caused there is named by its kind."""
    parts = [
        f"{plural(http['open'], 'connection')}, {http['at_work']} at work",
        plural(http["requests"], "request"),
    ]
    parts += [f"{http[it]} {it}" for it in ("abandoned", "evicted") if http[it]]
    for what in ("refused", "timed_out", "errors"):
        if counts := http[what]:
            told = ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
            parts.append(f"{what.replace('_', ' ')}: {told}")
    return f"  http: {safe('; '.join(parts))}"


# Columns that are left out where they are empty.
_SELDOM = ("models", "staked", "owner")


def _peers(found: Mapping[str, Any]) -> None:
    rows = [
        (
            short(it["peer"]),
            " ".join(it["roles"]),
            " ".join(safe(name) for name in it["models"]),
            "yes" if it["connected"] else "no",
            it["standing"],
            _stake_words(it["stake"]),
            f"{it['heard_s_ago']} s",
            safe(it["addresses"][0].partition("/p2p/")[0]) if it["addresses"] else "",
            short(it["owner"]) if it.get("owner") else "",
        )
        for it in found["peers"]
    ]
    columns = (
        "peer",
        "roles",
        "models",
        "connected",
        "standing",
        "staked",
        "heard",
        "address",
        "owner",
    )
    # What no peer has takes no room from addresses, which break into pieces on a narrow screen.
    shown = [
        place
        for place, column in enumerate(columns)
        if column not in _SELDOM or any(row[place] for row in rows)
    ]
    show_table(
        f"{plural(len(rows), 'peer')} besides {short(found['me'])}",
        [columns[place] for place in shown],
        [[row[place] for place in shown] for row in rows],
    )


_SHOW = {"status": _status, "peers": _peers}
