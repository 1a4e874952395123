"""The prices of a peer as its owner types them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wire.amount import AMOUNT_MAX, read_credits
from wire.errors import InputError
from wire.tariff import UNITS

_PER = {"1k": 1000, "1m": 1_000_000}
_PRICE = re.compile(r"([0-9.]+)/(1k|1m):([0-9.]+)/(1k|1m)(?:\+([0-9.]+))?")
_EXAMPLE = "for example --price smollm2=0.3/1k:0.6/1k"


@dataclass(frozen=True, slots=True)
class TypedPrice:
    """What one model costs, in millionths for UNITS units; `base` for each task."""

    base: int
    given: int
    made: int


@dataclass(frozen=True, slots=True)
class TypedPrices:
    """What an owner asks for: models by the names that were typed, and each check."""

    models: Mapping[str, TypedPrice] = field(default_factory=dict)
    check: int = 0

    def __bool__(self) -> bool:
        return bool(self.models) or self.check > 0


def read_prices(typed: Iterable[str], check: str | None) -> TypedPrices:
    """`MODEL=IN:OUT` as 0.3/1k:0.6/1k, each with a base after a +; InputError for anything else."""
    models: dict[str, TypedPrice] = {}
    for text in typed:
        name, found, price = text.rpartition("=")
        match = _PRICE.fullmatch(price.strip().lower())
        if not found or not name.strip() or match is None:
            raise InputError(
                f"{text[:80]!r} is no price",
                todo=f"give MODEL=IN:OUT in credits for 1k or 1m units, {_EXAMPLE}",
            )
        if name.strip() in models:
            raise InputError(f"two prices for {name.strip()!r}", todo="give one")
        given, per_given, made, per_made, base = match.groups()
        models[name.strip()] = TypedPrice(
            _amount(base or "0"), _for_units(given, per_given), _for_units(made, per_made)
        )
    return TypedPrices(models, _amount(check or "0"))


def read_price(text: str) -> TypedPrice:
    """`IN:OUT` as 0.3/1k:0.6/1k, with a base after a +, for any model; InputError otherwise."""
    try:
        return read_prices([f"any={text}"], None).models["any"]
    except InputError as error:
        raise InputError(
            f"{text[:80]!r} is no price",
            todo="give IN:OUT in credits for 1k or 1m units, as in 0.3/1k:0.6/1k+0.001",
        ) from error


def _for_units(text: str, per: str) -> int:
    amount = _amount(text) * (UNITS // _PER[per])
    if amount > AMOUNT_MAX:
        raise InputError(f"{text[:40]} credits are too many for {per} units", todo=_EXAMPLE)
    return amount


def _amount(text: str) -> int:
    return 0 if re.fullmatch(r"0+(\.0*)?", text.strip()) else read_credits(text)
