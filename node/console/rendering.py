"""The page of the console, and its parts, which change each by itself.

A part is the inside of one element of the page, by the element's name. Lists have a fixed number of
places, so that a row that changes is sent alone. Words of others are text in every part: the
templates escape them, and what cannot be printed is replaced.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from node.console.facts import PEERS_SHOWN, RECEIPTS_SHOWN, TASKS_SHOWN, ConsoleFacts
from node.console.history import points_of
from node.health.finding import State
from node.health.reach_words import ago, lasted, reach_words, times_words
from node.local.owner_commands import OWNER_PAUSED
from wire.amount import show_credits

TEMPLATES = Path(__file__).parent / "templates"
EARNED_FOR_SHOWN = 4
MODELS_SHOWN = 24
FINDINGS_SHOWN, OTHERS_SHOWN = 24, 64
# Longer words of others are cut.
WORDS_MAX = 300
_JOINERS = "\u200c\u200d"
_RANKS = {State.BAD: 0, State.WARN: 1, State.UNKNOWN: 2, State.OK: 3}
_ALARMS = frozenset({State.BAD, State.WARN})


def plain(text: object) -> str:
    """Words of others, cut, without what would turn or hide other words."""
    shown = "".join(
        it if it.isprintable() or it in _JOINERS else "\N{REPLACEMENT CHARACTER}"
        for it in str(text)[:WORDS_MAX]
    )
    return shown + ("…" if len(str(text)) > WORDS_MAX else "")


def size(size_bytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def short(peer: object) -> str:
    """A peer, or an id, as people tell it from others: its end."""
    return f"…{str(peer)[-6:]}"


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "plain": plain,
        "size": size,
        "ago": ago,
        "times": times_words,
        "lasted": lasted,
        "short": short,
        "points": points_of,
        "reach_words": reach_words,
        "credits": show_credits,
    }
    return made


_ENVIRONMENT = _environment()
_PARTS = _ENVIRONMENT.get_template("parts.html")
_PAGE = _ENVIRONMENT.get_template("page.html")
_PEERS = _ENVIRONMENT.get_template("peers.html")
_ENTER = _ENVIRONMENT.get_template("enter.html")


def parts_of(facts: ConsoleFacts) -> dict[str, str]:
    """Every part of the page, by the name of its element."""
    macros: Any = _PARTS.module
    status = facts.status
    parts = {
        "headline": macros.headline(status),
        "reach": macros.reach(status),
        "controls": macros.taking(status),
        "switch": macros.switch(status["paused"] == OWNER_PAUSED),
        "work": macros.work(status, facts.history),
        "machine": macros.machine(status, facts.history),
        "earnings": macros.earnings(_earned(facts.earnings)),
        "peers-line": macros.peers_line(status, facts.peers),
        "doctor-line": macros.doctor_line(facts.findings, facts.examined_s_ago),
        "problems": macros.problems(status),
    }
    parts |= _rows("model", status["models"], MODELS_SHOWN, macros.model)
    parts |= _rows("peer", facts.peers["peers"], PEERS_SHOWN, macros.peer)
    parts |= _rows("receipt", facts.receipts["receipts"], RECEIPTS_SHOWN, macros.receipt)
    tasks = facts.routes["tasks"]
    parts |= _rows("task", tasks, TASKS_SHOWN, macros.task)
    parts |= _rows("route", tasks, TASKS_SHOWN, macros.route)
    found = sorted(facts.findings or (), key=lambda it: _RANKS[it.state])
    alarms = [it for it in found if it.state in _ALARMS]
    others = [it for it in found if it.state not in _ALARMS]
    parts |= _rows("finding", alarms, FINDINGS_SHOWN, macros.finding)
    parts |= _rows("sound", others, OTHERS_SHOWN, macros.finding)
    return {name: str(it).strip() for name, it in parts.items()}


def _earned(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The earnings, with what most of them are for."""
    if found is None:
        return None
    sums: Counter[str] = Counter()
    for row in found["sums"]:
        whole = row["name"] or short(row["model"]) if row["for"] == "model" else row["for"]
        sums[str(whole)] += row["charged"]
    shown = sums.most_common(EARNED_FOR_SHOWN)
    return {
        **found,
        "earned_for": [{"name": name, "charged": charged} for name, charged in shown],
        "earned_for_more": len(sums) - len(shown),
    }


def _rows(name: str, rows: Sequence[Any], count: int, macro: Any) -> dict[str, Any]:
    """One part for each place of a list; those beyond its end are empty."""
    return {
        f"{name}-{place}": macro(rows[place]) if place < len(rows) else "" for place in range(count)
    }


def page_of(
    parts: Mapping[str, str], version: int, token: str, advised: Callable[[str], str] = str
) -> bytes:
    """The whole page; `version` is that of the parts, `token` what it says with each change.

    `advised` names the peer's state folder in a command to type.
    """
    shown = _PAGE.render(
        parts=parts,
        version=version,
        token=token,
        advised=advised,
        counts={
            "model": MODELS_SHOWN,
            "peer": PEERS_SHOWN,
            "receipt": RECEIPTS_SHOWN,
            "task": TASKS_SHOWN,
            "finding": FINDINGS_SHOWN,
            "sound": OTHERS_SHOWN,
        },
    )
    return shown.encode()


def peers_page_of(peers: Mapping[str, Any], page: int, each: int) -> bytes:
    """One page of the list of all peers."""
    return _PEERS.render(found=peers, page=page, each=each).encode()


def enter_page_of(words: str, *, by_key: bool) -> bytes:
    """What whoever has no session is shown: why, and how to come in."""
    return _ENTER.render(words=words, by_key=by_key).encode()
