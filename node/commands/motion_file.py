"""Motions as people write them: a small TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.local.arguments import read_key
from wire.amount import read_credits
from wire.content import ContentId
from wire.errors import InputError, WireError
from wire.motion import (
    BuilderClaim,
    FundGrant,
    ModelClaim,
    Motion,
    Parameter,
    ParameterChange,
    SeatClaim,
)

FILE_BYTES_MAX = 16 << 10
EPOCHS_DEFAULT = 168
_ABOUT = frozenset({"grant", "parameter", "model", "builder", "member"})
_TOP = _ABOUT | {"title", "why", "epochs", "bond"}
_BUILDER = frozenset({"account", "matched"})
_MEMBER = frozenset({"account", "weight", "since"})
_MODEL = frozenset({"id", "author", "share"})
_GRANT = frozenset({"to", "step", "steps", "use"})
_PARAMETER = frozenset({"name", "value"})
# In the file a share is a number of millionths, and an amount a number of credits.
_AMOUNTS = frozenset({Parameter.MOTION_BOND})
EXAMPLE = (
    'title = "…", why = "…", and [grant] to = "KEY", step = "100", steps = 4, use = "50",'
    ' or [parameter] name = "growth", value = 60000 (millionths),'
    ' or [model] id = "MODEL ID", author = "KEY", share = 50000 (millionths),'
    ' or [builder] account = "KEY", or [member] account = "KEY", weight = 1, since = EPOCH'
)


def read_motion(path: Path, bond: int) -> Motion:
    """The motion in a file, which may name another bond; InputError says what is wrong."""
    try:
        with path.open("rb") as source:
            data = source.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", todo="check the name"
        ) from error
    if len(data) > FILE_BYTES_MAX:
        raise InputError(f"{path} is larger than {FILE_BYTES_MAX} bytes", todo="say it shorter")
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML: {error}", todo=f"write {EXAMPLE}") from error
    try:
        return _motion(document, bond)
    except (WireError, TypeError, KeyError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is no motion: {why}", todo=f"write {EXAMPLE}") from error


def _motion(document: Mapping[str, Any], least: int) -> Motion:
    _known(document, _TOP)
    grant, change, model = (document.get(it) for it in ("grant", "parameter", "model"))
    builder, member = document.get("builder"), document.get("member")
    bond = document.get("bond")
    return Motion(
        title=_text(document, "title"),
        why=_text(document, "why"),
        epochs=_number(document, "epochs", EPOCHS_DEFAULT),
        bond=least if bond is None else read_credits(str(bond)),
        change=None if change is None else _change(change),
        grant=None if grant is None else _grant(grant),
        claims=() if model is None else (_claim(model),),
        builders=() if builder is None else (_builder(builder),),
        seats=() if member is None else (_seat(member),),
    )


def _seat(typed: Mapping[str, Any]) -> SeatClaim:
    """A member of the ledger; one of no weight is none any more."""
    _known(typed, _MEMBER)
    typed["since"]
    return SeatClaim(
        member=read_key(_text(typed, "account")),
        weight=_number(typed, "weight", 1),
        since=_number(typed, "since", 0),
    )


def _builder(typed: Mapping[str, Any]) -> BuilderClaim:
    _known(typed, _BUILDER)
    matched = typed.get("matched", True)
    if not isinstance(matched, bool):
        raise TypeError("matched is true or false")
    return BuilderClaim(account=read_key(_text(typed, "account")), matched=matched)


def _claim(typed: Mapping[str, Any]) -> ModelClaim:
    _known(typed, _MODEL)
    typed["share"]
    return ModelClaim(
        model=ContentId.parse(_text(typed, "id")),
        author=read_key(_text(typed, "author")),
        share=_number(typed, "share", 0),
    )


def _grant(typed: Mapping[str, Any]) -> FundGrant:
    _known(typed, _GRANT)
    use = typed.get("use")
    return FundGrant(
        to=read_key(_text(typed, "to")),
        step=read_credits(str(typed["step"])),
        steps=_number(typed, "steps", 1),
        use=0 if use is None else read_credits(str(use)),
    )


def _change(typed: Mapping[str, Any]) -> ParameterChange:
    _known(typed, _PARAMETER)
    name = _text(typed, "name")
    if name.upper() not in Parameter.__members__:
        there = ", ".join(it.name.lower() for it in Parameter)
        raise InputError(f"there is no parameter {name[:40]!r}", todo=f"name one of {there}")
    parameter = Parameter[name.upper()]
    value = typed["value"]
    found = read_credits(str(value)) if parameter in _AMOUNTS else _number(typed, "value", 0)
    return ParameterChange(parameter=parameter, value=found)


def _known(typed: object, names: frozenset[str]) -> None:
    if not isinstance(typed, Mapping):
        raise TypeError("a table is due")
    for name in typed:
        if name not in names:
            raise InputError(
                f"{str(name)[:40]!r} is nothing that a motion says",
                todo=f"it says {', '.join(sorted(names))}",
            )


def _text(typed: Mapping[str, Any], name: str) -> str:
    found = typed[name]
    if not isinstance(found, str):
        raise TypeError(f"{name} is a text")
    return found


def _number(typed: Mapping[str, Any], name: str, default: int) -> int:
    found = typed.get(name, default)
    if type(found) is not int:
        raise TypeError(f"{name} is a whole number")
    return found
