"""Lines that `status` shows of a peer on one screen, and among all that it knows."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from node.commands.output import safe, short, size, state_words
from node.health.reach_words import ago, lasted, relay_words, seed_words, times_words
from wire.plural import plural


def network_words(found: Mapping[str, Any]) -> str:
    """What people call the network: the id of one with a ledger or with members is no name."""
    named: Mapping[str, Any] = found.get("ledger") or found.get("membership") or {}
    return safe(named["name"]) if named.get("name") else repr(found["network"])


def up_words(found: Mapping[str, Any]) -> str:
    """For how long the peer has run, and which version of Baton it is."""
    release = f", version {safe(found['release'])}" if found.get("release") else ""
    return f"up for {lasted(found['uptime_s'])}{release}"


def belonging_lines(found: Mapping[str, Any]) -> list[str]:
    """What it passes on for others, whose it is, what names it finds others by, its network."""
    relayed = relay_words(found.get("reach", {}), size)
    lines = [relayed] if relayed else []
    if found.get("owner"):
        lines.append(f"shown as a peer of the owner {found['owner']}")
    for name, told in found.get("seeds", {}).items():
        line = safe(seed_words(name, told))
        lines.append(f"[yellow]{line}[/yellow]" if told["problem"] else line)
    membership = found.get("membership")
    return lines if membership is None else [*lines, _membership_line(membership)]


def _membership_line(found: Mapping[str, Any]) -> str:
    """How this peer stands in its private network, in one line."""
    name, connected = safe(found["name"]), plural(found["members_connected"], "member")
    if found["owner"]:
        return f"owner of the private network {name}; {connected} connected"
    if found["member"]:
        until = datetime.fromtimestamp(found["not_after_wall_s"], UTC)
        return (
            f"member of the private network {name}; {connected} connected; renews by"
            f" {until:%Y-%m-%d}"
        )
    why = safe(found["problem"]) or "nobody who may admit it has answered yet"
    return f"[yellow]no member of the private network {name}: {why}[/yellow]"


def model_line(model: Mapping[str, Any], shown: Callable[[object], str] = safe) -> str:
    """How a model is, in one line; `shown` makes words of others safe, and short where need be."""
    problem = f" [yellow]{shown(model['problem'])}[/yellow]" if model["problem"] else ""
    speed = f", {model['units_per_s']:.1f} units/s" if "units_per_s" in model else ""
    if model.get("pages"):
        speed += f", {model['pages_used']} of {plural(model['pages'], 'page')}"
    state = ", ".join(filter(None, (model.get("layers", ""), state_words(model))))
    return f"model {shown(model['name'])}: {state}{speed}{problem}"


def wrong_rows_lines(model: Mapping[str, Any]) -> list[str]:
    """Who gave wrong rows of a model whose layers are at several peers."""
    return [
        f"{short(it['peer'])} gave wrong rows of {safe(it['layers'])} and is banned"
        for it in model.get("gave_wrong_rows", ())
    ]


def noted_words(note: Mapping[str, Any]) -> str:
    """A line that was noted, when, and how often, in one line: others' words make no second."""
    line = " ".join(str(note["line"]).split())
    return f"noted {ago(note['s_ago'])}: {line}{times_words(note['times'])}"


def news_of(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was noted lately, without what the lines of models say already; the newest is last."""
    told = {f"model {it['name']} is ready" for it in found["models"]}
    told |= {f"model {it['name']} is set aside: {it['problem']}" for it in found["models"]}
    return [it for it in found["noted"] if it["line"] not in told]
