"""What `app` does, and how it is shown."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.apps.own_apps import (
    DAY_S,
    UNTIL_DAYS_DEFAULT,
    OwnApp,
    OwnKey,
    add_app,
    add_app_key,
    apps_file,
    read_apps,
    revoke_key,
)
from node.commands.ask import SOCKET
from node.commands.command import Assembly
from node.commands.genesis import read_epoch_s
from node.commands.output import console, safe, show_json
from node.commands.to_type import hint
from node.local.arguments import read_key
from node.local.control import call, unheard
from store import key_seed
from wire.amount import read_credits, show_credits
from wire.errors import InputError
from wire.signing import SigningKey

LOOK_DEADLINE_S = 10.0


def new_app(
    state: Path,
    asked: tuple[str, str, str | None, str | None, str | None, str | None],
    wall_s: float,
    *,
    users_pay: bool,
    as_json: bool,
) -> None:
    """Make an app of what was typed: its name, mode, price, hold, period, what its owner pays."""
    name, mode, price, hold, period, pays = asked
    period_s = 0 if period is None else read_epoch_s(period, "--period 30d or 12h")
    app = OwnApp(
        name=name,
        mode=mode,
        price=_amount(price),
        hold=_amount(hold),
        period_s=period_s,
        pays=_amount(pays),
        users_pay=users_pay,
    )
    add_app(apps_file(state), app, wall_s)
    if as_json:
        show_json({"app": name, "mode": mode, **_asks_map(app)})
        return
    console.print(
        hint(
            f"the app [bold]{safe(name)}[/bold]; give out keys: python -m node app key add LABEL"
            f" --app {safe(name)}"
        ),
        soft_wrap=True,
    )


def _period(period_s: int) -> str:
    days, rest_s = divmod(period_s, DAY_S)
    return f"{period_s} s" if rest_s else f"{days} day{'' if days == 1 else 's'}"


def _asks_map(app: OwnApp) -> dict[str, int | bool]:
    return {
        "price": app.price,
        "hold": app.hold,
        "period_s": app.period_s,
        "pays": app.pays,
        "users_pay": app.users_pay,
    }


def list_apps(state: Path, *, as_json: bool) -> None:
    """The apps, and what they ask."""
    apps = read_apps(apps_file(state)).apps
    if as_json:
        rows = [{"app": it.name, "mode": it.mode, **_asks_map(it)} for it in apps]
        show_json({"apps": rows})
        return
    for app in apps:
        per = f"for {_period(app.period_s)}" if app.period_s else "a call"
        asks = f", {show_credits(app.price)} credits {per}" if app.price else ""
        asks += f", {show_credits(app.hold)} credits held for two epochs" if app.hold else ""
        console.print(f"{safe(app.name)}: {app.mode}{asks}")
        if app.pays:
            console.print(f"  you pay gateways with prices up to {show_credits(app.pays)} a call")
        if app.users_pay:
            console.print("  users pay gateways with prices by themselves, beside the key")
    if not apps:
        console.print(hint("there are no apps; one is made by: python -m node app new NAME"))


def add_key(
    assembly: Assembly,
    state: Path,
    asked: tuple[str, str, str | None, str | None, int, str | None],
    *,
    as_json: bool,
) -> None:
    """Make a key of what was typed: its app, label, budget, end, rate, account."""
    app, label, budget, until, per_minute, account = asked
    wall_s = assembly.wall_s()
    key = OwnKey(
        app=app,
        label=label,
        sha256="",
        budget=_amount(budget),
        until_wall_s=_end_wall_s(until, wall_s),
        per_minute=per_minute,
        account=None if account is None else str(read_key(account)),
    )
    owner = SigningKey(key_seed(state, lambda: assembly.entropy(32))).peer
    secret = add_app_key(apps_file(state), key, owner, assembly.entropy, wall_s)
    if as_json:
        show_json({"app": app, "label": label, "key": secret, "until_wall_s": key.until_wall_s})
        return
    console.print(
        f"the key [bold]{safe(label)}[/bold] of {safe(app)}, which is shown only now; it ends on"
        f" {_day(key.until_wall_s)}:"
    )
    # One line, so that it is copied whole.
    console.print(f"\n  {secret}\n", soft_wrap=True)


def revoke(state: Path, app: str, label: str, wall_s: float, *, as_json: bool) -> None:
    """Revoke a key."""
    after = revoke_key(apps_file(state), app, label, wall_s)
    if as_json:
        show_json({"app": app, "revoked": label, "sequence": after.sequence})
        return
    console.print(
        f"revoked: {safe(label)} of {safe(app)}; while this peer is up, gateways hear of it within"
        " a minute, and while it is not they take no key of its apps",
        soft_wrap=True,
    )


def list_keys(state: Path, *, as_json: bool) -> None:
    """The keys, without their secrets."""
    keys = read_apps(apps_file(state)).keys
    if as_json:
        rows = [
            {
                "app": it.app,
                "label": it.label,
                "budget": it.budget,
                "until_wall_s": it.until_wall_s,
                "per_minute": it.per_minute,
                "account": it.account,
                "revoked": it.revoked,
            }
            for it in keys
        ]
        show_json({"keys": rows})
        return
    for key in keys:
        told = f"{safe(key.label)} of {safe(key.app)}: until {_day(key.until_wall_s)}"
        told += f", {show_credits(key.budget)} credits" if key.budget else ""
        told += f", {key.per_minute} requests a minute"
        console.print(told + (", [red]revoked[/red]" if key.revoked else ""))
    if not keys:
        console.print(
            hint("there are no keys; one is made by: python -m node app key add LABEL --app A")
        )


async def show_usage(state: Path, *, as_json: bool) -> None:
    """What gateways tell of keys."""
    found = await call(state / SOCKET, "app_usage", {}, unheard, deadline_s=LOOK_DEADLINE_S)
    if as_json:
        show_json(found)
        return
    for key in found["keys"]:
        console.print(f"{safe(key['label'])} of {safe(key['app'])}")
        for gateway, use in key["gateways"].items():
            console.print(f"  {_use(use)}, says {gateway}", soft_wrap=True)
    if not found["keys"]:
        console.print("no gateway has told of a key yet")
    if found["problem"]:
        console.print(f"[yellow]{safe(found['problem'])}[/yellow]")


def _use(use: dict[str, Any]) -> str:
    calls = f"{use['calls']} call{'' if use['calls'] == 1 else 's'}"
    if not use["share"]:
        return calls
    told = (
        f"{calls}, {show_credits(use['spent'])} credits of its share {show_credits(use['share'])}"
    )
    if not use["promised"]:
        return told
    paid, promised = show_credits(use["paid"]), show_credits(use["promised"])
    return f"{told}, {paid} paid by you ({promised} promised)"


def _amount(text: str | None) -> int:
    return 0 if text is None else read_credits(text)


def _day(wall_s: int) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d")


def _end_wall_s(text: str | None, wall_s: float) -> int:
    """The end of the day that was typed; InputError if it is none."""
    if text is None:
        return int(wall_s) + UNTIL_DAYS_DEFAULT * DAY_S
    try:
        day = datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise InputError(f"{text[:40]!r} is not a day", todo="give --until 2030-01-31") from error
    return int(day.timestamp()) + DAY_S
