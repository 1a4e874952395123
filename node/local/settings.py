"""The settings of a running peer, each with where its value came from. A pure core."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any


def settings_of(config: Any, prefix: str = "") -> list[dict[str, str]]:
    """Every setting of a configuration as text; `origin` is `default` or `command line`.

    A setting without a default was given by whoever started the peer, and so was one whose value
    differs from its default.
    """
    return list(_rows(config, prefix))


def _rows(config: Any, prefix: str) -> Iterator[dict[str, str]]:
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _rows(value, f"{prefix}{field.name}.")
            continue
        default = _default_of(field)
        origin = "default" if default is not MISSING and value == default else "command line"
        yield {"name": prefix + field.name, "value": _text(value), "origin": origin}


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
