"""The settings of a running peer, each with where its value came from. A pure core."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

# What `join` sets where nothing is typed, unlike a program that makes a peer.
JOIN_SETS: Mapping[str, object] = {
    "state": Path("~/.baton").expanduser(),
    "peers.keep_calling": True,
    "quota_bytes": 20_000_000_000,
    "lan": True,
    "map_port": True,
}
TYPED, MEMBERSHIP = "command line", "membership"


def settings_of(config: Any, *, private: bool = False) -> list[dict[str, str]]:
    """Every setting of a configuration as text, with the `origin` of its value.

    It is `default`, `command line`, `membership` for what a private network brings with it,
    `genesis` for the name of a network with a ledger, or `start` for the port that was looked for.
    """
    rows = list(_rows(config, ""))
    for row in rows:
        name = row["name"]
        if name == "private" and private:
            row |= {"value": str(True), "origin": MEMBERSHIP}
        elif name == "peers.listen" and not config.port_named:
            row["origin"] = "start"
        elif row["origin"] == TYPED and name == "peers.network":
            row["origin"] = "genesis" if config.genesis else MEMBERSHIP if private else TYPED
        elif row["origin"] == TYPED and name == "peers.bootstraps" and private:
            # Admitters' addresses stand beside those that were typed.
            row["origin"] = f"{TYPED}, {MEMBERSHIP}"
    # How the port came is told by its own origin.
    return [it for it in rows if it["name"] != "port_named"]


def _rows(config: Any, prefix: str) -> Iterator[dict[str, str]]:
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if is_dataclass(value) and not isinstance(value, type):
            yield from _rows(value, f"{name}.")
            continue
        default = JOIN_SETS.get(name, _default_of(field))
        is_typed = default is MISSING or value != default
        yield {"name": name, "value": _text(value), "origin": TYPED if is_typed else "default"}


def _default_of(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return MISSING if field.default_factory is MISSING else field.default_factory()


def _text(value: Any) -> str:
    match value:
        case Mapping():
            return ", ".join(f"{key}={_text(it)}" for key, it in value.items())
        case frozenset() | set():
            return ", ".join(sorted(map(_text, value)))
        case list() | tuple():
            return ", ".join(map(_text, value))
        case None:
            return ""
        case bytes() if type(value) is bytes:
            return value.hex()
        case _:
            name = getattr(value, "name", None)
            return name.lower() if isinstance(name, str) and hasattr(value, "value") else str(value)
