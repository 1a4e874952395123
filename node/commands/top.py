"""`top`: a live screen of the running peer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from node.commands.ask import SOCKET
from node.commands.output import console, plain_text, size
from node.console.history import rate_of
from node.local.control import call, unheard
from wire.plural import plural

DEADLINE_S = 30.0


async def top(state: Path, every_s: float, *, once: bool) -> None:
    """Look at the peer again and again; BatonError once it does not answer any more."""
    before = await _look(state)
    await trio.sleep(every_s)
    now = await _look(state)
    if once:
        console.print(picture_of(before, now))
        return
    with Live(
        live_picture_of(before, now), console=console, auto_refresh=False, screen=True
    ) as live:
        while True:
            live.update(live_picture_of(before, now), refresh=True)
            await trio.sleep(every_s)
            before, now = now, await _look(state)


async def _look(state: Path) -> dict[str, Any]:
    return await call(state / SOCKET, "status", {}, unheard, deadline_s=DEADLINE_S)


def live_picture_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> Group:
    """The picture that stays, with how it is left; the first line, so that no table hides it."""
    end = Text("Ctrl-C ends this screen; the peer goes on", style="dim")
    return Group(end, picture_of(before, now))


def picture_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> Group:
    """The screen for two looks at one peer, the earlier one first."""
    tasks, store = now["tasks"], now["store"]
    paused = f"  paused: {plain_text(now['paused'])}" if now["paused"] else ""
    lines = (
        f"peer …{now['peer'][-6:]}  up {now['uptime_s']:.0f} s{paused}",
        f"peers      {now['connected']} connected, {now['known']} known,"
        f" {now['answered_last_minute']} answered in the last minute",
        f"own tasks  {tasks['under_way']} under way, {tasks['answered']} answered,"
        f" {tasks['failed']} failed",
        f"here       {plural(now['legs_under_way'], 'leg')} under way, {now['legs_done']} done,"
        f" {plural(now['checks_done'], 'check')}",
        f"work       {rate_of(before, now):.1f} units/s (tokens, texts or calls)",
        f"store      {size(store['used_bytes'])} of {size(store['quota_bytes'])}",
        f"models     {size(now['engine']['memory_bytes'])} of memory",
        *(_gpu_words(*it) for it in now.get("gpus", {}).items()),
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "state", "measured", "memory", "runs on"):
        table.add_column(column)
    for row in now["models"]:
        speed = f"{row['units_per_s']:.1f} units/s" if "units_per_s" in row else ""
        memory = size(row["memory_bytes"]) if row.get("memory_bytes") else ""
        if row.get("pages"):
            memory += f", {row['pages_used']} of {plural(row['pages'], 'page')}"
        state = f"{row['state']} {row['problem']}".strip()
        cells = (row["name"], state, speed, memory, row.get("profile", ""))
        table.add_row(*(Text(plain_text(it)) for it in cells))
    return Group(*(Text(it, no_wrap=True, overflow="ellipsis") for it in lines), Text(""), table)


def _gpu_words(number: str, row: Mapping[str, Any]) -> str:
    """One GPU as its driver tells of it, all programs together."""
    parts = [plain_text(row["name"])] if "name" in row else []
    if "busy_share" in row:
        parts.append(f"{row['busy_share'] * 100:.0f} % busy")
    if "size_bytes" in row:
        parts.append(f"{size(row.get('used_bytes', 0))} of {size(row['size_bytes'])}")
    return f"GPU {number:<6} {', '.join(parts) or 'its driver does not tell'}"
