"""Motions as people write them: a small TOML file."""

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from node.local.arguments import read_key
from wire.amount import CREDIT, read_credits, show_credits
from wire.content import ContentId
from wire.errors import InputError, WireError
from wire.motion import (
    AUTHOR_SHARE_MAX,
    BOUNDS,
    FIRST,
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
# Parameters that are amounts; all others are shares.
AMOUNTS = frozenset({Parameter.MOTION_BOND})
MILLION = 1_000_000
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?(%?)")
EXAMPLE = (
    'title = "…", why = "…", and [grant] to = "KEY", step = "100", steps = 4, use = "50",'
    ' or [parameter] name = "growth", value = "6%",'
    ' or [model] id = "MODEL ID", author = "KEY", share = "5%",'
    ' or [builder] account = "KEY", or [member] account = "KEY", weight = 1, since = EPOCH;'
    ' shares are "5%" or 0.05, amounts credits: "2.5"'
)
_MEANS = {
    Parameter.GROWTH: "Of what channels redeem, to the fund.",
    Parameter.MOTION_BOND: "What a motion's author puts up.",
    Parameter.MATCHING: "Of the growth share of what others pay a builder, back to the builder.",
}


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
        # A share is taken as it is written: 0.05 is no binary fraction.
        document = tomllib.loads(data.decode(), parse_float=Decimal)
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
        bond=least if bond is None else _credits(bond),
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
    share = _share(typed["share"])
    if share > AUTHOR_SHARE_MAX:
        raise InputError(f"an author's share is 0 % to {percent(AUTHOR_SHARE_MAX)}")
    return ModelClaim(
        model=ContentId.parse(_text(typed, "id")),
        author=read_key(_text(typed, "author")),
        share=share,
    )


def _grant(typed: Mapping[str, Any]) -> FundGrant:
    _known(typed, _GRANT)
    use = typed.get("use")
    return FundGrant(
        to=read_key(_text(typed, "to")),
        step=_credits(typed["step"]),
        steps=_number(typed, "steps", 1),
        use=0 if use is None else _credits(use),
    )


def _change(typed: Mapping[str, Any]) -> ParameterChange:
    _known(typed, _PARAMETER)
    name = _text(typed, "name")
    if name.upper() not in Parameter.__members__:
        there = ", ".join(it.name.lower() for it in Parameter)
        raise InputError(f"there is no parameter {name[:40]!r}", todo=f"name one of {there}")
    parameter, value = Parameter[name.upper()], typed["value"]
    found = _credits(value) if parameter in AMOUNTS else _share(value)
    low, high = BOUNDS[parameter]
    if not low <= found <= high:
        least, most, wanted = (shown_value(parameter, it) for it in (low, high, found))
        raise InputError(f"{parameter.name.lower()} is {least} to {most}, not {wanted}")
    return ParameterChange(parameter=parameter, value=found)


def parameter_rows() -> list[tuple[str, str]]:
    """What `govern propose --help` says of each parameter: its bounds, and what it is."""
    rows = []
    for parameter, (low, high) in BOUNDS.items():
        least, most, first = (shown_value(parameter, it) for it in (low, high, FIRST[parameter]))
        name = parameter.name.lower()
        rows.append((name, f"{least} to {most}, at first {first}. {_MEANS[parameter]}"))
    return rows


def percent(millionths: int) -> str:
    """A share as people write it."""
    return f"{Decimal(millionths) / 10_000:f} %"


def shown_value(parameter: Parameter, value: int) -> str:
    """What a parameter is, in its unit."""
    if parameter not in AMOUNTS:
        return percent(value)
    return f"{show_credits(value)} {'credit' if value == CREDIT else 'credits'}"


def _credits(typed: object) -> int:
    if isinstance(typed, bool) or not isinstance(typed, int | str | Decimal):
        raise TypeError(f'{str(typed)[:40]!r} is no amount: write credits, as "2.5"')
    return read_credits(str(typed).strip().removesuffix("credits").strip())


def _share(typed: object) -> int:
    """A share in millionths, of `5%`, 0.05, or a whole number of millionths."""
    if type(typed) is int:
        return typed
    text = str(typed).strip()
    written = _SHARE.fullmatch(text)
    if written is not None:
        millionths = Decimal(written[1]) * (MILLION // 100 if written[2] else MILLION)
        if millionths <= MILLION and not millionths % 1:
            return int(millionths)
    raise InputError(f'{text[:40]!r} is no share: write "5%", 0.05, or 50000 (millionths)')


def _known(typed: object, names: frozenset[str]) -> None:
    if not isinstance(typed, Mapping):
        raise TypeError("a table is due")
    for name in typed:
        if name not in names:
            raise InputError(
                f"{str(name)[:40]!r} is nothing that a motion says",
                todo=f"what may stand there: {', '.join(sorted(names))}",
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
