"""The settings of a running peer, each with where its value came from. A pure core."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

# No settings: how the port came is told by its own origin, and what others would be by theirs.
_OF_OTHERS = ("port_named", "untyped")
TYPED, MEMBERSHIP = "command line", "membership"


def settings_of(config: Any, *, private: bool = False) -> list[dict[str, str]]:
    """Every setting of a configuration as text, with the `origin` of its value.

    It is `default`, `command line`, `membership` for what a private network brings with it,
    `genesis` for the name of a network with a ledger, or `start` for the port that was looked for.
    """
    rows = list(_rows(config, config.untyped, ""))
    for row in rows:
        name = row["name"]
        if name == "private" and private:
            row |= {"value": str(True), "origin": MEMBERSHIP}
        elif name == "peers.listen":
            row["origin"] = TYPED if config.port_named else "start"
        elif row["origin"] == TYPED and name == "peers.network":
            row["origin"] = "genesis" if config.genesis else MEMBERSHIP if private else TYPED
        elif row["origin"] == TYPED and name == "peers.bootstraps" and private:
            # Admitters' addresses stand beside those that were typed.
            row["origin"] = f"{TYPED}, {MEMBERSHIP}"
    return rows


def _rows(config: Any, untyped: Any, prefix: str) -> Iterator[dict[str, str]]:
    """The fields, each beside that of `untyped`, what is there where nothing is typed."""
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if name in _OF_OTHERS:
            continue
        default = _default_of(field) if untyped is None else getattr(untyped, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _rows(value, default if type(default) is type(value) else None, f"{name}.")
            continue
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
