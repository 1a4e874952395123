"""What `govern` and `fund` do: motions out of a ledger that is checked, and orders about them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node.commands.ask import SOCKET
from node.commands.governed import bond_now, only_one, whole_id
from node.commands.ledger_file import EXPORT_AGAIN, given_or_exported, replay_file
from node.commands.motion_file import percent, read_motion, shown_value
from node.commands.output import console, safe, show_json, show_table
from node.ledger.books import Draft
from node.ledger.chain_file import Replayed
from node.ledger.epoch_outcome import EpochOutcome
from node.ledger.governing import houses_of
from node.ledger.matching import builders_in
from node.ledger.model_registry import models_in
from node.ledger.motion_shelf import ballots_on, motions_in, parameter
from node.ledger.replica import Replica
from node.local.control import call, unheard
from wire.amount import show_credits
from wire.content import PeerId
from wire.errors import InputError
from wire.motion import BOUNDS, HouseCount, MotionRow, MotionState, Parameter
from wire.plural import plural

ORDER_DEADLINE_S = 90.0
_HOUSES = {"stake": "staked", "use": "paid for tasks in four weeks"}
_RULES = {
    "growth": "of what is redeemed, to the fund",
    "motion_bond": "put up for a motion",
    "matching": "of that growth, to builders",
}


@dataclass(frozen=True, slots=True)
class Decided:
    """What a ledger says of motions: those that are open are counted as they stand now."""

    replayed: Replayed
    motions: dict[bytes, MotionRow]
    ballots: dict[bytes, dict[bytes, bool]]
    # What the fund got of what was redeemed, and what it gave builders of that.
    growth: int
    matched: dict[PeerId, int]


async def read_decided(state: Path, offline: Path | None) -> Decided:
    """From a file, or of the running peer's network; InputError if the ledger does not hold."""
    async with given_or_exported(state, offline) as file:
        return await trio.to_thread.run_sync(decided_in, file)


def decided_in(file: Path) -> Decided:
    """Every motion in a ledger's file, of which all is checked; InputError if it does not hold."""
    growth, matched = [0], Counter[PeerId]()
    ballots: dict[bytes, dict[bytes, bool]] = {}

    def watch(replica: Replica, outcome: EpochOutcome) -> None:
        growth[0] += sum(it.growth for it in outcome.lines)
        for (_, builder), amount in outcome.matched.items():
            matched[builder] += amount
        orders = [replica.orders[it] for it in outcome.orders]
        for order in sorted(orders, key=lambda it: it.record.sequence):
            for ballot in order.record.ballot:
                ballots.setdefault(ballot.motion, {})[order.signer] = ballot.yes

    found = replay_file(file, watch, todo=EXPORT_AGAIN)
    rows = found.books.motions.rows
    motions = motions_in(rows)
    if any(it.state is MotionState.OPEN for it in motions.values()):
        houses = houses_of(Draft(found.books, found.epochs), found.genesis)
        for name, row in motions.items():
            if row.state is MotionState.OPEN:
                motions[name] = houses.counted(row, ballots_on(rows, name))
    return Decided(found, motions, ballots, growth[0], dict(matched))


async def list_motions(state: Path, offline: Path | None, *, as_json: bool) -> None:
    """All motions, the latest first."""
    found = await read_decided(state, offline)
    rows = sorted(found.motions.items(), key=lambda it: -it[1].begun)
    if as_json:
        show_json({"motions": [motion_map(name, row) for name, row in rows]})
        return
    table = [
        (
            name.hex()[:12],
            safe(row.motion.title),
            row.state.name.lower(),
            _share(row.stake),
            _share(row.using),
            row.until if row.decided is None else row.decided,
        )
        for name, row in rows
    ]
    columns = ("motion", "title", "state", "stake for", "use for", "until epoch")
    title = f"{plural(len(table), 'motion')}, epoch {found.replayed.epochs}"
    show_table(title, columns, table)


async def show_motion(state: Path, typed: str, offline: Path | None, *, as_json: bool) -> None:
    """One motion: what it would do, and how it stands."""
    found = await read_decided(state, offline)
    name = only_one(typed, [*found.motions], "motion")
    row = found.motions[name]
    if as_json:
        show_json(motion_map(name, row))
        return
    console.print(f"[bold]{safe(row.motion.title)}[/bold]\n{name.hex()}")
    console.print(f"  {safe(row.motion.why)}")
    console.print(f"  {_what(row)}")
    console.print(f"  made in epoch {row.begun} by {row.author}")
    if row.decided is None:
        console.print(f"  {row.state.name.lower()} until the end of epoch {row.until} at most")
    else:
        console.print(f"  {row.state.name.lower()} with the end of epoch {row.decided}")
    show_counts(row)


async def tally(state: Path, typed: str, offline: Path | None, *, as_json: bool) -> None:
    """Who voted, and what it comes to."""
    found = await read_decided(state, offline)
    name = only_one(typed, [*found.motions], "motion")
    row, ballots = found.motions[name], found.ballots.get(name, {})
    if as_json:
        votes = {_key(account): yes for account, yes in sorted(ballots.items())}
        show_json(motion_map(name, row) | {"ballots": votes})
        return
    rows = [(_key(account), "yes" if yes else "no") for account, yes in sorted(ballots.items())]
    title = f"{plural(len(rows), 'ballot')} on {safe(row.motion.title)}"
    show_table(title, ("account", "vote"), rows)
    show_counts(row)
    console.print(f"  {row.state.name.lower()}")


async def show_models(state: Path, offline: Path | None, *, as_json: bool) -> None:
    """Which models have an author, and what its share is."""
    found = await read_decided(state, offline)
    models = models_in(found.replayed.books.motions.rows)
    if as_json:
        listed = [
            {
                "model": str(model),
                "author": str(row.author),
                "share": row.share,
                "motion": row.motion.hex(),
            }
            for model, row in models.items()
        ]
        show_json({"models": listed})
        return
    table = [
        (str(model), str(row.author), percent(row.share), row.motion.hex()[:12])
        for model, row in models.items()
    ]
    title = f"{plural(len(table), 'model')} with an author, epoch {found.replayed.epochs}"
    show_table(title, ("model", "author", "share", "motion"), table)


async def propose(state: Path, file: Path, *, grant: bool, as_json: bool) -> None:
    """Make the motion in a file; with `grant` it has to be one."""
    # What is wrong with the file is said before anybody is asked.
    motion = read_motion(file, BOUNDS[Parameter.MOTION_BOND][0])
    if grant and motion.grant is None:
        raise InputError(
            f"{file} asks the fund for nothing", todo="write a [grant], or: govern propose FILE"
        )
    motion = read_motion(file, await bond_now(state))
    arguments = {"motion": motion.to_bytes()}
    made = await call(state / SOCKET, "propose", arguments, unheard, deadline_s=ORDER_DEADLINE_S)
    if as_json:
        show_json(made)
        return
    console.print(f"the motion is\n{made['motion']}")
    console.print(f"a bond is held until it is decided; in credits: {show_credits(motion.bond)}")
    console.print("it can be voted on once this epoch has ended")


async def vote(state: Path, typed: str, *, yes: bool, as_json: bool) -> None:
    """Vote on a motion."""
    name = await whole_id(state, typed, "motion")
    arguments = {"motion": name, "yes": yes}
    found = await call(state / SOCKET, "vote", arguments, unheard, deadline_s=ORDER_DEADLINE_S)
    if as_json:
        show_json(found)
    else:
        console.print(f"[green]settled[/green]: {'yes' if yes else 'no'} to {found['motion']}")
        console.print("it is counted from the end of this epoch on")


async def show_fund(state: Path, offline: Path | None, *, as_json: bool) -> None:
    """What is in the fund, what came in, what went out, and the rules."""
    found = await read_decided(state, offline)
    books, genesis = found.replayed.books, found.replayed.genesis
    lapsed = [it for it in found.motions.values() if it.state is MotionState.LAPSED]
    grants = [
        {"motion": name.hex(), "to": str(grant.to), "paid": row.paid * grant.step}
        for name, row in found.motions.items()
        if (grant := row.motion.grant) is not None and row.paid
    ]
    rules = {it.name.lower(): parameter(books.motions.rows, it) for it in Parameter}
    bounds = {it.name.lower(): list(BOUNDS[it]) for it in Parameter}
    document = {
        "network": str(genesis.id),
        "fund": books.fund,
        "at_first": genesis.fund,
        "growth": found.growth,
        "lapsed_bonds": sum(it.motion.bond for it in lapsed),
        "granted": sum(int(str(it["paid"])) for it in grants),
        "grants": grants,
        "matched": sum(found.matched.values()),
        "builders": {
            str(it): found.matched.get(it, 0)
            for it in sorted({*builders_in(books.motions.rows), *found.matched})
        },
        "rules": rules,
        "bounds": bounds,
    }
    if as_json:
        show_json(document)
        return
    console.print(f"the fund of {safe(genesis.name)}: [bold]{show_credits(books.fund)}[/bold]")
    console.print(f"  {show_credits(genesis.fund)} at the beginning")
    console.print(f"  + {show_credits(found.growth)} of what was redeemed")
    console.print(f"  + {show_credits(int(str(document['lapsed_bonds'])))} of lapsed motions")
    console.print(f"  - {show_credits(int(str(document['granted'])))} granted")
    matched = show_credits(sum(found.matched.values()))
    console.print(f"  - {matched} to builders, of what the fund got of their use")
    for name, value in rules.items():
        low, high = bounds[name]
        now, least, most = (shown_value(Parameter[name.upper()], it) for it in (value, low, high))
        console.print(f"  {name} {now} ({least} to {most}): {_RULES.get(name, '')}")


def motion_map(name: bytes, row: MotionRow) -> dict[str, Any]:
    """A motion for programs."""
    change, grant = row.motion.change, row.motion.grant
    return {
        "motion": name.hex(),
        "title": row.motion.title,
        "why": row.motion.why,
        "author": str(row.author),
        "bond": row.motion.bond,
        "state": row.state.name.lower(),
        "begun": row.begun,
        "until": row.until,
        "decided": row.decided,
        "stake": _count_map(row.stake),
        "use": _count_map(row.using),
        "parameter": None
        if change is None
        else {"name": change.parameter.name.lower(), "value": change.value},
        "grant": None
        if grant is None
        else {
            "to": str(grant.to),
            "step": grant.step,
            "steps": grant.steps,
            "use": grant.use,
            "paid": row.paid,
        },
        "model": None
        if not row.motion.claims
        else {
            "id": str(row.motion.claims[0].model),
            "author": str(row.motion.claims[0].author),
            "share": row.motion.claims[0].share,
        },
        "builder": None
        if not row.motion.builders
        else {
            "account": str(row.motion.builders[0].account),
            "matched": row.motion.builders[0].matched,
        },
        "member": None
        if not row.motion.seats
        else {
            "account": str(row.motion.seats[0].member),
            "weight": row.motion.seats[0].weight,
            "since": row.motion.seats[0].since,
        },
    }


def _count_map(count: HouseCount | None) -> list[int] | None:
    return None if count is None else [count.yes, count.no, count.total]


def _share(count: HouseCount | None) -> str:
    if count is None or not count.total:
        return "-"
    return f"{100 * count.yes / count.total:.0f} %"


def _what(row: MotionRow) -> str:
    change, grant = row.motion.change, row.motion.grant
    if change is not None:
        name = change.parameter.name.lower()
        return f"{name} becomes {shown_value(change.parameter, change.value)}"
    for builder in row.motion.builders:
        words = "is matched" if builder.matched else "is no longer matched"
        return f"{builder.account} {words} out of the fund for what others pay it"
    for seat in row.motion.seats:
        words = f"has weight {seat.weight}" if seat.weight else "is no longer there"
        # Its peer says so by itself.
        once = ", or a new member once it is there (--role ledger)" if seat.weight else ""
        return f"{seat.member} {words} among who keeps the ledger, from epoch {seat.since} on{once}"
    for claim in row.motion.claims:
        if not claim.share:
            return f"{claim.author} is no longer the author of {claim.model}"
        share = percent(claim.share)
        return f"{claim.author} is the author of {claim.model}, and has {share} of what it earns"
    assert grant is not None
    steps = (
        ""
        if grant.steps == 1
        else (
            f", {grant.steps} times, each further one after {show_credits(grant.use)} of use"
            f" ({row.paid} paid)"
        )
    )
    return f"{show_credits(grant.step)} credits to {grant.to}{steps}"


def show_counts(row: MotionRow) -> None:
    """What each house has said of a motion, and what it takes to pass."""
    for house, count in (("stake", row.stake), ("use", row.using)):
        if count is not None:
            console.print(
                f"  {house}: {show_credits(count.yes)} for it, {show_credits(count.no)} against,"
                f" of {show_credits(count.total)} credits {_HOUSES[house]}"
            )
    if row.state is MotionState.OPEN:
        console.print("  it passes with more yes than no in both, if a fifth of each has voted")
        for count, what in ((row.stake, "has staked"), (row.using, "pays for tasks")):
            if count is not None and count.total == 0:
                console.print(f"  nothing passes where nobody {what}")


def _key(account: bytes) -> str:
    return str(PeerId(account))
