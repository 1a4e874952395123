"""What `network`, `wallet` and `ledger` do, and how they show it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.commands.ask import SOCKET
from node.commands.genesis import GenesisRequest, make_genesis, read_genesis
from node.commands.ledger_file import export_to, replay_file
from node.commands.options import STATE_DEFAULT
from node.commands.output import (
    console,
    safe,
    short,
    show_aside,
    show_json,
    show_table,
    size,
)
from node.commands.stake import stake_lines
from node.ledger.committee import Committee
from node.local.arguments import read_key
from node.local.control import call, unheard
from node.paying_config import RELAY
from store import key_seed
from wire.amount import read_credits, show_credits
from wire.errors import InputError
from wire.plural import plural
from wire.signing import SigningKey

LOOK_DEADLINE_S = 30.0
PAY_DEADLINE_S = 90.0
# Several sponsors may be asked, one after the other.
# A sponsor may ask for minutes of work.
FAUCET_DEADLINE_S = 1800.0


@dataclass(frozen=True, slots=True)
class Beginning:
    """What was typed for `network new`."""

    name: str
    members: tuple[str, ...]
    grants: tuple[str, ...]
    supply: str
    epoch: str


def begin_network(
    typed: Beginning,
    state: Path,
    out: Path | None,
    entropy: Callable[[int], bytes],
    *,
    as_json: bool,
) -> None:
    """Write a genesis file that does not exist yet; this peer's key is made if there is none."""
    own = SigningKey(key_seed(state, lambda: entropy(32))).peer
    wanted = GenesisRequest(
        name=typed.name,
        members=typed.members,
        grants=typed.grants,
        supply=typed.supply,
        epoch=typed.epoch,
        own=own,
    )
    genesis = make_genesis(wanted, entropy)
    path = Path(f"{typed.name}.genesis") if out is None else out
    try:
        with path.open("xb") as file:
            file.write(genesis.to_bytes())
    except FileExistsError as error:
        raise InputError(f"{path} is there already", todo="name another file with --out") from error
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    tolerates = Committee(genesis.members).tolerates
    if as_json:
        show_json(
            {
                "network": str(genesis.id),
                "name": genesis.name,
                "file": str(path),
                "members": [str(it.key) for it in genesis.members],
                "tolerates": tolerates,
                "epoch_s": genesis.epoch_s,
                "supply": genesis.supply,
                "fund": genesis.fund,
                "own": str(own),
            }
        )
        return
    console.print(f"the network [bold]{safe(genesis.name)}[/bold] is\n{genesis.id}")
    console.print(
        f"  {plural(len(genesis.members), 'member')}, tolerates {tolerates} bad;"
        f" {show_credits(genesis.supply)} credits, {show_credits(genesis.fund)} in the fund"
    )
    console.print(f"written to {safe(path)}; every peer of it starts with\n")
    console.print(f"  [bold green]python -m node join --genesis {safe(path)}[/bold green]\n")
    if state != STATE_DEFAULT.expanduser():
        console.print(f"  here, where a member's key is, add --state {safe(state)}")


async def show_account(state: Path, account: str | None, *, as_json: bool) -> None:
    """What an account has."""
    arguments = {} if account is None else {"account": str(read_key(account))}
    found = await call(state / SOCKET, "wallet", arguments, unheard, deadline_s=LOOK_DEADLINE_S)
    if as_json:
        show_json(found)
        return
    console.print(f"account {found['account']} in {safe(found['name'])}")
    console.print(f"  [bold]{show_credits(found['balance'])} credits[/bold]")
    if found["channels"]:
        locked = show_credits(found["deposits"])
        console.print(f"  and {locked} in {plural(found['channels'], 'channel')}")
    for line in stake_lines(found):
        console.print(f"  {line}")
    for channel in found["paying"]:
        console.print(
            f"  to [cyan]{short(channel['peer'])}[/cyan]: {show_credits(channel['charged'])} paid"
            f" for {plural(channel['tasks'], 'task')}{_relayed(channel)},"
            f" {show_credits(channel['promised'])} promised of"
            f" {show_credits(channel['deposit'])}, until epoch {channel['expires_after_epoch']}"
        )
        # A peer of an earlier version, which runs on, tells none.
        if more := channel.get("not_counted_here"):
            console.print(f"    it has counted {show_credits(more)} more than this peer")
    owed = sum(it["unredeemed"] for it in found["earning"])
    if owed:
        console.print(
            f"  {show_credits(owed)} are promised to it and not redeemed yet; of what is redeemed"
            "\n  the network's fund takes a twentieth, unless a vote has changed that"
        )
    if not found["agreed"]:
        console.print("  [yellow]members are not in step yet: it may be more[/yellow]")
    for order in found["unsettled"]:
        console.print(f"  not settled yet: {_order_words(order)}")


def _relayed(channel: Mapping[str, Any]) -> str:
    """What of a channel was for bytes that its payee passed on; a peer that runs on tells none."""
    if not (size_bytes := channel.get("relayed_bytes")):
        return ""
    return f" and {size(size_bytes)} passed on ({show_credits(channel['relayed'])})"


async def pay(state: Path, key: str, amount: str, *, as_json: bool) -> None:
    """Pay, and say when it is settled."""
    arguments = {"to": str(read_key(key)), "amount": read_credits(amount)}

    def tell(event: Mapping[str, Any]) -> None:
        if not as_json and event["event"] == "earlier":
            show_aside(f"first an earlier payment: {_order_words(event['order'])}")
        elif not as_json and event["event"] == "renewed":
            show_aside("the epoch has ended before it was settled: it is signed again")

    found = await call(state / SOCKET, "pay", arguments, tell, deadline_s=PAY_DEADLINE_S)
    if as_json:
        show_json(found)
    else:
        console.print(f"[green]{safe(found['state'])}[/green]: {_order_what(found)}")


async def ask_faucet(state: Path, sponsor: str | None, *, as_json: bool) -> None:
    """Have a sponsor pay this peer's account, and say what it has then."""
    arguments = {} if sponsor is None else {"sponsor": str(read_key(sponsor))}
    found = await call(state / SOCKET, "faucet", arguments, unheard, deadline_s=FAUCET_DEADLINE_S)
    if as_json:
        show_json(found)
        return
    console.print(
        f"[green]{show_credits(found['amount'])} credits[/green] of {found['sponsor']}:"
        f" this account has {show_credits(found['balance'])}"
    )


async def show_log(state: Path, *, as_json: bool) -> None:
    """What this peer's account ordered, and what others paid it."""
    found = await call(state / SOCKET, "wallet_log", {}, unheard, deadline_s=LOOK_DEADLINE_S)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            datetime.fromtimestamp(it["at_ms"] / 1000, UTC).strftime("%m-%d %H:%M:%S"),
            it["epoch"],
            it["sequence"],
            _moved(it),
            it["action"],
            " ".join(short(one["to"]) for one in (*it["pay"], *it["open"])),
            it["state"] + (f": {safe(it['why'])}" if it["why"] else ""),
        )
        for it in found["orders"]
    ]
    columns = ("time (UTC)", "epoch", "number", "credits", "action", "to", "state")
    show_table(f"{plural(len(rows), 'order')} of {short(found['account'])}", columns, rows)
    received = [
        (it["epoch"], show_credits(it["amount"]), short(it["from"]), it["sequence"])
        for it in found["received"]
    ]
    title = f"{plural(len(received), 'payment')} to it"
    show_table(title, ("epoch", "credits", "from", "number"), received)
    if authored := found["authored"]:
        shares = [
            (it["epoch"], show_credits(it["amount"]), short(it["model"]), short(it["from"]))
            for it in authored
        ]
        of_shares = ("epoch", "credits", "model", "redeemed by")
        show_table(f"{plural(len(shares), 'share')} of what its models earned", of_shares, shares)
    console.print(
        f"epoch {found['received_before']} runs: what was paid to it since then is in the balance"
        " (`wallet`), and listed here when the epoch ends"
    )
    if found["received_problem"]:
        console.print(f"  [yellow]{safe(found['received_problem'])}[/yellow]")


def _moved(order: Mapping[str, Any]) -> str:
    """What an order took from the account, or brought to it; empty if that is not known."""
    if order["action"] != "redeem":
        return show_credits(order["spent"])
    taken = order.get("taken")
    return "" if taken is None else f"+{show_credits(taken)}"


async def show_earnings(state: Path, *, redeem: bool, as_json: bool) -> None:
    """What others paid this peer, by payer and model."""
    found = await call(
        state / SOCKET, "earnings", {"redeem": redeem}, unheard, deadline_s=PAY_DEADLINE_S
    )
    if as_json:
        show_json(found)
        return
    rows = [
        (
            short(it["peer"]),
            safe(it["name"] or short(it["model"])) if it["for"] == "model" else it["for"],
            size(it["bytes"]) if it["for"] == RELAY else it["tasks"],
            show_credits(it["charged"]),
        )
        for it in found["sums"]
    ]
    show_table(
        f"{show_credits(found['charged'])} credits earned",
        ("from", "for", "tasks", "credits"),
        rows,
    )
    # No line is longer than 80 columns: a terminal would break it inside of words.
    console.print("of the channels that are open:")
    console.print(f"  {show_credits(found['redeemed'])} worked for and redeemed")
    console.print(
        f"  {show_credits(found['unredeemed'])} worked for and promised, not redeemed yet"
    )
    if found["ahead"]:
        console.print(f"  {show_credits(found['ahead'])} paid ahead, for work still to come")
    if found["to_fund"]:
        whole = show_credits(found.get("redeemed_whole", found["redeemed"]))
        console.print(
            f"  {show_credits(found['to_fund'])} to the network's fund: a twentieth of the {whole}"
            " redeemed"
        )
    for channel in found["channels"]:
        if channel["lost"]:
            lost = show_credits(channel["lost"])
            console.print(f"  [yellow]{lost} lost to {short(channel['peer'])}[/yellow]")


async def export(state: Path, file: Path, *, as_json: bool) -> None:
    """Have the running peer write the ledger to a file."""
    found = await export_to(state, file.absolute())
    if as_json:
        show_json(found)
    else:
        console.print(
            f"{plural(found['epochs'], 'epoch')} with"
            f" {plural(found['orders'], 'order')} in {safe(found['path'])}"
        )
        console.print("  what was ordered in the epoch that runs is in it once that has ended")


def check(file: Path, genesis: Path | None, account: str | None, *, as_json: bool) -> None:
    """Go through a whole ledger; InputError says what does not hold."""
    key = None if account is None else read_key(account)
    expected = None if genesis is None else read_genesis(genesis)
    found = replay_file(file)
    if expected is not None and expected != found.genesis:
        raise InputError(
            f"this is the ledger of {found.genesis.id}, not of {expected.id}",
            todo="export that of the other network",
        )
    document = {
        "network": str(found.genesis.id),
        "name": found.genesis.name,
        "epochs": found.epochs,
        "orders": found.orders,
        "signatures": found.signatures,
        "accounts": sum(map(len, found.books.accounts)),
        "channels": sum(map(len, found.books.channels)),
        "balances": found.books.balances,
        "deposits": found.books.deposits,
        "fund": found.books.fund,
        "stakes": found.books.stakes.total,
        "bonds": found.books.motions.bonds,
        "stakers": len(found.books.stakes.rows),
        "supply": found.books.supply,
        "tip": None if found.tip is None else str(found.tip.id),
    }
    if key is not None:
        document["balance"] = found.account(key).balance
        document["staked"] = found.books.stakes.row(key).total
    if as_json:
        show_json(document)
        return
    console.print(
        f"[green]this ledger holds[/green]: {safe(found.genesis.name)}, {found.genesis.id}"
    )
    console.print(
        f"  {plural(found.epochs, 'epoch')}, {plural(found.orders, 'order')},"
        f" {plural(found.signatures, 'signature')} checked"
    )
    books = found.books
    console.print(
        f"  accounts: {document['accounts']}, with {show_credits(books.balances)} credits;"
        f" channels {show_credits(books.deposits)}, stakes {show_credits(books.stakes.total)},"
        f" bonds {show_credits(books.motions.bonds)}, the fund {show_credits(books.fund)}:"
        f" {show_credits(books.supply)}, as at the beginning"
    )
    if key is not None:
        staked = show_credits(books.stakes.row(key).total)
        console.print(
            f"  {key} has {show_credits(found.account(key).balance)} credits, and {staked} staked"
        )


def _order_words(order: Mapping[str, Any]) -> str:
    return f"{_order_what(order)} ({order['state']})"


def _order_what(order: Mapping[str, Any]) -> str:
    paid = [f"{show_credits(it['amount'])} to {it['to']}" for it in order["pay"]]
    return ", ".join(paid) or str(order["action"])
