"""What `stake` does, and how it is shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.commands.ask import SOCKET
from node.commands.output import console, show_aside, show_json
from node.local.arguments import read_key
from node.local.control import call, unheard
from wire.amount import read_credits, show_credits

LOOK_DEADLINE_S = 30.0
ORDER_DEADLINE_S = 90.0


async def show_stake(state: Path, account: str | None, *, as_json: bool) -> None:
    """What an account has staked."""
    arguments = {} if account is None else {"account": str(read_key(account))}
    found = await call(state / SOCKET, "stake_show", arguments, unheard, deadline_s=LOOK_DEADLINE_S)
    if as_json:
        show_json(found)
        return
    console.print(f"account {found['account']}, in epoch {found['epoch']}")
    for line in stake_lines(found) or ["nothing is staked"]:
        console.print(f"  {line}")
    if found["counts_epoch"] is None:
        console.print("  [dim]this peer knows no checkpoint yet: nobody weighs a stake here[/dim]")
    else:
        console.print(
            f"  {show_credits(found['counts'])} credits count, by the checkpoint of epoch"
            f" {found['counts_epoch']}"
        )
    if not found["agreed"]:
        console.print("  [yellow]members are not in step yet: it may be more[/yellow]")


def stake_lines(found: Mapping[str, Any]) -> list[str]:
    """What is staked for which role, and what is given back when, a line each."""
    lines = [
        f"{show_credits(it['amount'])} credits staked for {it['role']}" for it in found["stake"]
    ]
    return lines + [
        f"{show_credits(it['amount'])} of {it['role']} are given back at the end of epoch"
        f" {it['back_after_epoch']}"
        for it in found["leaving"]
    ]


async def add(state: Path, amount: str, role: str, *, as_json: bool) -> None:
    """Stake, and say when it is settled."""
    staked = read_credits(amount)
    arguments = {"amount": staked, "role": role}
    found = await _ordered(state, "stake_add", arguments, as_json=as_json)
    if as_json:
        show_json(found)
        return
    console.print(
        f"[green]settled[/green]: {show_credits(staked)} credits are staked for"
        f" {role}; they count from the end of epoch {found['epoch']} on"
    )


async def unbond(state: Path, amount: str | None, role: str, *, as_json: bool) -> None:
    """Ask for a stake back, and say when it comes."""
    arguments: dict[str, Any] = {"role": role}
    if amount is not None:
        arguments["amount"] = read_credits(amount)
    found = await _ordered(state, "stake_unbond", arguments, as_json=as_json)
    if as_json:
        show_json(found)
        return
    asked = show_credits(sum(it["amount"] for it in found["unbond"]))
    console.print(
        f"[green]settled[/green]: {asked} credits of {role} come back at the end of epoch"
        f" {found['back_after_epoch']}; until then evidence can still take them"
    )


async def _ordered(
    state: Path, command: str, arguments: Mapping[str, Any], *, as_json: bool
) -> dict[str, Any]:
    def tell(event: Mapping[str, Any]) -> None:
        if not as_json and event["event"] == "earlier":
            show_aside("first an earlier order of this account")
        elif not as_json and event["event"] == "renewed":
            show_aside("the epoch has ended before it was settled: it is signed again")

    return await call(state / SOCKET, command, arguments, tell, deadline_s=ORDER_DEADLINE_S)
