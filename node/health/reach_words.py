"""How others reach a peer, in words, out of what its status says of it. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from wire.amount import show_credits

ALONE = "alone"
_REACHED = {
    "nearby": "from this machine and its network alone",
    "asking": "others are asked to call back",
    "open": "open",
    "mapped": "mapped, its router passes calls on",
    "kept": "kept",
    ALONE: "alone, only those that it calls itself talk to it",
}


def lasted(seconds: float) -> str:
    """A length of time in steps: what is shown changes seldom."""
    if seconds < 10:
        return "some seconds"
    if seconds < 60:
        return f"{seconds // 10 * 10:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h"
    return f"{seconds // 86400:.0f} days"


def ago(seconds: float) -> str:
    """When something was, in words."""
    return "just now" if seconds < 10 else f"{lasted(seconds)} ago"


def times_words(times: int) -> str:
    """How often something was; nothing if it was once."""
    return f" ({times} times)" if times > 1 else ""


def reach_words(reach: Mapping[str, Any]) -> str:
    """One line: how, since when, and who confirmed it. Addresses are as strangers gave them."""
    how = str(reach["how"])
    words = _REACHED.get(how, how)
    if how == "kept":
        words += f" by {_ends(reach['keepers'])}"
    mapping = reach.get("mapping") or {}
    if how == "mapped" and mapping.get("state") == "made":
        words = f"mapped, its router passes port {mapping['port']} on by {mapping['by']}"
    line = f"reached: {words}, for {lasted(reach['since_s'])}"
    if reach["confirmed_by"]:
        return f"{line}; confirmed by {_ends(reach['confirmed_by'])}"
    if reach["seen_at"]:
        return f"{line}; called at {', '.join(reach['seen_at'])}, nobody got through"
    return line


def relay_words(reach: Mapping[str, Any], size: Callable[[float], str]) -> str:
    """One line of a peer that asks for something: what it passed on, and who paid for how much."""
    if "carried_paid_bytes" not in reach:
        return ""
    paid, free = reach["carried_paid_bytes"], reach["carried_free_bytes"]
    earned = show_credits(reach["carried_earned"])
    line = f"relay: {size(paid)} passed on for {earned} credits, {size(free)} for nothing"
    if owing := reach["owing"]:
        line += f"; {owing} {'asker owes' if owing == 1 else 'askers owe'} a promise"
    return line


def seed_words(name: str, told: Mapping[str, Any]) -> str:
    """One line: of how many peers a name in the DNS tells, or why of none."""
    if told["problem"]:
        return f"no seed at {name}: {told['problem']}"
    refused = sum(told["refused"].values())
    line = f"seeds: {name} tells of {told['found']} {'peer' if told['found'] == 1 else 'peers'}"
    return f"{line}; {refused} of its records do not count" if refused else line


def _ends(peers: list[str]) -> str:
    return ", ".join(f"…{it[-6:]}" for it in peers)
